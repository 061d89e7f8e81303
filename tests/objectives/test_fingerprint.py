from __future__ import annotations

import json
from pathlib import Path

import pytest

from parefront.errors import UsageError
from parefront.objectives.targets.fingerprint import fingerprint, fingerprint_id, saturates

X86 = """processor\t: 0
model name\t: Imaginary Xeon 9000
flags\t\t: fpu avx2 avx512f avx512_vnni amx_int8 sse2

processor\t: 1
model name\t: Imaginary Xeon 9000
flags\t\t: fpu avx2 avx512f avx512_vnni amx_int8 sse2
"""
ARM = """processor\t: 0
BogoMIPS\t: 108.00
Features\t: fp asimd evtstrm crc32 asimddp i8mm
CPU implementer\t: 0x41
"""


def tree(root: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    return root


def test_an_x86_machine(tmp_path: Path) -> None:
    governor = "sys/devices/system/cpu/cpu0/cpufreq/scaling_governor"
    memory = "MemTotal:       24641188 kB\nMemFree:        1 kB\n"
    root = tree(tmp_path, {"proc/cpuinfo": X86, "proc/meminfo": memory, governor: "performance\n"})
    found = fingerprint("onnxruntime", 2, root=root)
    assert found["cpu"] == "Imaginary Xeon 9000"
    assert found["isa"] == ["avx2", "avx512f", "avx512_vnni", "amx_int8"]
    assert found["memory_gib"] == 23.5
    assert found["governor"] == "performance"
    assert found["threads"] == 2


def test_an_arm_board_without_a_model_name_or_governor(tmp_path: Path) -> None:
    root = tree(
        tmp_path, {"proc/cpuinfo": ARM, "proc/device-tree/model": "Imaginary Pi 7 Rev 1.0\0"}
    )
    found = fingerprint("onnxruntime", 1, root=root)
    assert found["cpu"] == "Imaginary Pi 7 Rev 1.0"
    assert found["isa"] == ["asimd", "asimddp", "i8mm"]
    assert found["governor"] is None


def test_what_cannot_be_read_is_null_and_not_guessed(tmp_path: Path) -> None:
    found = fingerprint("onnxruntime", 1, root=tmp_path)
    assert [name for name, value in found.items() if value is None] == [
        "cpu",
        "isa",
        "governor",
        "memory_gib",
    ]


def test_this_machine_is_the_same_from_call_to_call() -> None:
    first = fingerprint("onnxruntime", 1)
    ballast = bytearray(200_000_000)  # takes free memory
    assert fingerprint("onnxruntime", 1) == first
    assert len(ballast) == 200_000_000
    assert json.loads(json.dumps(first)) == first
    assert first["cores"] >= 1
    assert first["runtime_version"]


def test_an_unknown_runtime_is_a_usage_error() -> None:
    with pytest.raises(UsageError, match="got 'none'"):
        fingerprint("none", 1)


def test_the_id_depends_on_every_fact_and_on_nothing_else() -> None:
    facts = fingerprint("onnxruntime", 1)
    name = fingerprint_id(facts)
    assert len(name) == 12
    assert fingerprint_id(dict(reversed(facts.items()))) == name
    others = {fingerprint_id(facts | {key: "other"}) for key in facts}
    assert len(others | {name}) == len(facts) + 1


def test_sums_saturate_on_x86_without_vnni() -> None:
    old = {"architecture": "x86_64", "isa": ["avx2", "avx512f"]}
    assert saturates(old)
    for name in ("avx512_vnni", "avx_vnni", "amx_int8"):
        assert not saturates(old | {"isa": ["avx2", name]})
    assert not saturates({"architecture": "aarch64", "isa": ["asimd"]})
    assert saturates({"architecture": "x86_64", "isa": None})
    assert not saturates({"device": "fixed"})
