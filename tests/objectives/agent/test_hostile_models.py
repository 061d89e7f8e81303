"""Models that take memory, time, disk or files: they end themselves, and never the agent."""

from __future__ import annotations

import io
import signal
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from parefront.errors import MeasurementError
from parefront.objectives.targets.stored_feeds import StoredFeeds
from tests.objectives.agent.models import ORT, X, endless, greedy, linear, spy
from tests.objectives.agent.process import AgentProcess
from tests.waiting import until

BATCH = {"input": X[:1]}
HUGE = 25_000_000_000
"""Numbers of 4 bytes: 100 GB."""


@pytest.fixture(scope="module")
def agent(tmp_path_factory: pytest.TempPathFactory) -> Iterator[AgentProcess]:
    agent = AgentProcess(
        tmp_path_factory.mktemp("agent"), "--memory", "700M", "--longest", "20M", "--disk", "60M"
    )
    yield agent
    agent.stop()


@pytest.fixture(autouse=True)
def own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))


@pytest.mark.parametrize("at_load", [True, False])
@pytest.mark.parametrize("numbers", [HUGE, 500_000_000], ids=["100GB", "2GB"])
def test_a_model_that_takes_all_memory(
    at_load: bool, numbers: int, agent: AgentProcess, tmp_path: Path
) -> None:
    path = greedy(tmp_path / "greedy.onnx", numbers, at_load=at_load)
    with pytest.raises(MeasurementError, match="could not (load|run).*([Aa]lloc|memory|length)"):
        agent.device().run(path, {"input": X}, **ORT, batch_size=4)
    agent.assert_well()


def test_what_fits_into_the_memory_is_run(agent: AgentProcess, tmp_path: Path) -> None:
    path = greedy(tmp_path / "modest.onnx", 10_000_000, at_load=False)
    (output,) = agent.device().run(path, {"input": X}, **ORT, batch_size=4)
    np.testing.assert_allclose(output, X + 10_000_000, rtol=1e-6)  # type: ignore[arg-type]


def test_a_model_that_never_ends(agent: AgentProcess, tmp_path: Path) -> None:
    path = endless(tmp_path / "endless.onnx")
    with pytest.raises(MeasurementError, match=r"did not end within 2 s and was stopped"):
        agent.device(timeout=2).run(path, {"input": X}, **ORT, batch_size=4)
    agent.assert_well()


CONFINED = """
import time
from parefront.objectives.targets.limits import Limits, confine
confine(Limits(memory_bytes=1 << 30, file_bytes=1 << 20), {seconds})
{then}
"""


def confined(then: str, seconds: int) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", CONFINED.format(seconds=seconds, then=then)],
        capture_output=True,
        text=True,
        check=False,
    )


def test_a_measuring_process_ends_itself_when_nobody_does() -> None:
    assert confined("while True: pass", seconds=1).returncode == -signal.SIGALRM


def test_limits_leave_the_clock_of_the_process_fine() -> None:
    """A limit on CPU time would have Linux count it in ticks of milliseconds."""
    then = """
stamps = [time.process_time_ns() for _ in range(10_000)]
print(sorted(b - a for a, b in zip(stamps, stamps[1:]))[5_000])
"""
    done = confined(then, seconds=100)
    assert 0 < int(done.stdout) < 1_000_000, done.stderr


def test_a_model_whose_outputs_fill_the_disk(agent: AgentProcess, tmp_path: Path) -> None:
    path = linear(tmp_path / "wide.onnx", outputs=10_000)
    many = {"input": np.zeros((1000, X.shape[1]), np.float32)}  # 40 MB of outputs
    with pytest.raises(MeasurementError, match=r"outputs cannot be written: .*too large"):
        agent.device().run(path, many, **ORT, batch_size=100)
    agent.assert_well()


def test_a_measuring_process_that_is_killed(agent: AgentProcess, tmp_path: Path) -> None:
    path = endless(tmp_path / "endless.onnx")
    with ThreadPoolExecutor(1) as pool:
        asked = pool.submit(agent.device().run, path, {"input": X}, **ORT, batch_size=4)
        (worker,) = until(agent.workers)
        until(lambda: worker.cpu_times().user > 0.5)
        assert Path(f"/proc/{worker.pid}/oom_score_adj").read_text().strip() == "1000"
        limits = Path(f"/proc/{worker.pid}/limits").read_text()
        status = Path(f"/proc/{worker.pid}/status").read_text()
        worker.send_signal(signal.SIGSEGV)
        with pytest.raises(MeasurementError, match=r"killed by signal 11 \(SIGSEGV\)"):
            asked.result(timeout=60)
    table = {line[:25].strip(): line[25:].split()[0] for line in limits.splitlines()}
    assert table["Max core file size"] == "0"
    assert table["Max file size"] == str(20 << 20)
    assert table["Max data size"] == str(700 << 20)
    assert int(table["Max address space"]) < 3 << 30
    assert "NoNewPrivs:\t1" in status
    agent.assert_well()


def test_a_model_that_reads_other_files(agent: AgentProcess, tmp_path: Path) -> None:
    for number, secret in enumerate(("../token", str(agent.token_file), "/etc/hostname")):
        path = spy(tmp_path / f"spy{number}.onnx", secret)
        with pytest.raises(MeasurementError, match=r"could not load spy\d\.onnx: .*[Ee]xternal"):
            agent.device().run(path, {"input": X}, **ORT, batch_size=4)
    agent.assert_well()


@pytest.mark.parametrize("content", [b"garbage" * 1000, b"", b"\x08\x08" + b"\xff" * 5000])
def test_a_file_that_is_no_model(content: bytes, agent: AgentProcess, tmp_path: Path) -> None:
    path = tmp_path / "garbage.onnx"
    path.write_bytes(content)
    with pytest.raises(MeasurementError, match=r"artifact: .*(load|input|run)"):
        agent.device().run(path, {"input": X}, **ORT, batch_size=4)
    agent.assert_well()


def bomb() -> bytes:
    """A small file that is an array of 4 GB."""
    file = io.BytesIO()
    with (
        zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED, compresslevel=9) as archive,
        archive.open("arr_0.npy", "w", force_zip64=True) as entry,
    ):
        header: dict[str, Any] = {"descr": "<f4", "fortran_order": False, "shape": (10**9,)}
        np.lib.format.write_array_header_1_0(entry, header)
        entry.write(bytes(1 << 20))
    return file.getvalue()


def pickled() -> bytes:
    file = io.BytesIO()
    np.savez(file, np.array([{}], dtype=object))
    return file.getvalue()


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"PK\x03\x04" + b"\0" * 500, "cannot be read: File is not a zip file"),
        (b"garbage", "expected inputs as an .npz file"),
        (pickled(), "cannot be read: Object arrays cannot be loaded"),
        (bomb(), "cannot be read: (Unable to allocate|EOF)"),
    ],
    ids=["broken", "garbage", "pickled", "bomb"],
)
def test_inputs_that_are_none(
    content: bytes, reason: str, agent: AgentProcess, tmp_path: Path
) -> None:
    path = tmp_path / "feeds.npz"
    path.write_bytes(content)
    model = linear(tmp_path / "model.onnx")
    with pytest.raises(MeasurementError, match=reason):
        agent.device().run(model, StoredFeeds(path, ["input"]), **ORT, batch_size=4)
    agent.assert_well()
