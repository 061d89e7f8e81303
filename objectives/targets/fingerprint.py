"""What makes two measurements comparable: the machine, the system, the runtime."""

from __future__ import annotations

import hashlib
import json
import os
import platform
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from parefront.objectives.targets.catalog import runtime as runtime_of

_ISA = (
    "avx2",
    "avx512f",
    "avx512_vnni",
    "avx512_bf16",
    "avx512_fp16",
    "avx_vnni",
    "amx_tile",
    "amx_int8",
    "amx_bf16",
    "asimd",
    "asimddp",
    "i8mm",
    "bf16",
    "sve",
    "sve2",
)
"""CPU features that decide which kernels a runtime picks (x86, then Arm: asimd is NEON)."""


def fingerprint(runtime: str, threads: int, *, root: Path = Path("/")) -> dict[str, Any]:
    """Facts about this machine and a runtime on it; what cannot be read is `None`.

    Everything is the same from call to call until the machine is changed: the memory is the
    memory built in, not what is free.

    Args:
        runtime: Name of the runtime.
        threads: Threads the runtime may use.
        root: Root of the tree with `/proc` and `/sys`.

    Raises:
        UsageError: If there is no such runtime.
    """
    cpu = _read(root / "proc/cpuinfo")
    memory = _match(r"^MemTotal:\s+(\d+) kB", _read(root / "proc/meminfo"))
    flags = _match(r"^(?:flags|Features)\s*: (.*)$", cpu)
    device = _read(root / "proc/device-tree/model")
    governor = _read(root / "sys/devices/system/cpu/cpu0/cpufreq/scaling_governor")
    return {
        "cpu": _match(r"^model name\s*: (.*)$", cpu) or (device or "").strip("\0\n ") or None,
        "isa": None if flags is None else [name for name in _ISA if name in flags.split()],
        "cores": os.cpu_count(),
        "governor": governor and governor.strip(),
        "memory_gib": memory and round(int(memory) / 2**20, 1),
        "system": platform.system(),
        "kernel": platform.release(),
        "architecture": platform.machine(),
        "python": platform.python_version(),
        "runtime": runtime,
        "runtime_version": runtime_of(runtime).version(),
        "threads": threads,
    }


def saturates(facts: Mapping[str, Any]) -> bool:
    """Whether products of unsigned and signed 8-bit integers are added up in 16 bits.

    So does an x86 processor without VNNI or AMX (VPMADDUBSW), and the sums come out wrong where
    weights use all 8 bits. One whose features cannot be read is taken to be such:
    https://onnxruntime.ai/docs/performance/model-optimizations/quantization.html

    Args:
        facts: What `fingerprint` found on a device.
    """
    exact = {"avx512_vnni", "avx_vnni", "amx_int8"}
    known = facts.get("isa") or ()
    return facts.get("architecture") in ("x86_64", "AMD64") and exact.isdisjoint(known)


def fingerprint_id(facts: Mapping[str, Any]) -> str:
    """A name of 12 hexadecimal digits for a fingerprint; equal facts have equal names."""
    text = json.dumps(dict(facts), sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def _read(path: Path) -> str | None:
    try:
        return path.read_text(errors="replace")
    except OSError:  # absent in containers and on other systems
        return None


def _match(pattern: str, text: str | None) -> str | None:
    found = re.search(pattern, text or "", re.MULTILINE)
    return found[1].strip() if found else None
