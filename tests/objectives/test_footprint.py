"""Load, memory and energy of artifacts in real processes, and in made-up ones."""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from parefront.errors import MeasurementError
from parefront.objectives.spread import of_processes
from parefront.objectives.targets.device import Footprint
from parefront.objectives.targets.footprint import Look, PeakMemory, gathered, look
from parefront.objectives.targets.local import LocalDevice
from parefront.objectives.targets.onnx_runtime import OnnxRuntime
from parefront.objectives.targets.runtime import Array, Feeds
from tests.objectives.test_energy import zone
from tests.workers import WORKER
from tests.zoo import make

ORT: dict[str, Any] = {"runtime": "onnxruntime", "threads": 1}
X = np.random.default_rng(0).normal(size=(1, 64)).astype(np.float32)
MB = 1_000_000


@pytest.fixture(autouse=True)
def own_lock(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Measurements of other processes on this machine do not hold up the tests."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.setenv("TMPDIR", str(tmp_path))


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A tiny model, one with a weight of 64 MB, and no model."""
    folder = tmp_path_factory.mktemp("artifacts")
    large = nn.Sequential(nn.Linear(64, 4000), nn.ReLU(), nn.Linear(4000, 4000))
    for name, module in {"tiny": make("mlp")[0], "large": large}.items():
        example = (torch.from_numpy(X),)
        OnnxRuntime().build(module, example, ["input"], folder / f"{name}.onnx")
    (folder / "garbage.onnx").write_bytes(b"garbage" * 1000)
    return {path.stem: path for path in folder.iterdir()}


def test_a_large_weight_needs_memory_and_takes_time_to_load(files: dict[str, Path]) -> None:
    device = LocalDevice()
    own = np.ones(200 * MB // 8)  # what this process holds is not the artifact's
    tiny, large = (
        device.footprint(files[name], {"input": X}, **ORT, sessions=2) for name in ("tiny", "large")
    )
    assert own.all()
    assert len(tiny.load_ms) == len(tiny.peak_memory_bytes) == 2
    assert max(tiny.peak_memory_bytes) < 60 * MB
    assert min(large.peak_memory_bytes) - max(tiny.peak_memory_bytes) >= 60 * MB
    assert max(large.peak_memory_bytes) < 400 * MB
    assert all(0 < value < 60_000 for value in (*tiny.load_ms, *large.load_ms))
    assert tiny.energy_note
    assert len(tiny.energy_mj) in (0, 2)


def test_what_cannot_be_loaded_read_or_run_is_reported(files: dict[str, Path]) -> None:
    device = LocalDevice()
    with pytest.raises(MeasurementError, match=r"^artifact: .*could not load garbage\.onnx"):
        device.footprint(files["garbage"], {"input": X}, **ORT)
    with pytest.raises(MeasurementError, match=r"cannot read missing\.onnx: No such file"):
        device.footprint(Path("missing.onnx"), {"input": X}, **ORT)
    with pytest.raises(MeasurementError, match="could not run it: .*input"):
        device.footprint(files["tiny"], {"input": X[:, :9]}, **ORT)


def test_the_process_imports_nothing_that_would_hide_memory(
    files: dict[str, Path], tmp_path: Path
) -> None:
    np.savez(tmp_path / "feeds.npz", X)
    request = {
        "kind": "footprint",
        "artifact": str(files["tiny"]),
        "parent": os.getpid(),
        "cores": sorted(os.sched_getaffinity(0)),
        "names": ["input"],
        "feeds": str(tmp_path / "feeds.npz"),
        **ORT,
    }
    done = subprocess.run(
        [sys.executable, "-X", "importtime", "-m", WORKER],
        input=json.dumps(request),
        capture_output=True,
        text=True,
        check=True,
    )
    assert Look(**json.loads(done.stdout)["ok"]).peak_memory_bytes > 0
    imported = {line.split("|")[-1].strip().split(".")[0] for line in done.stderr.splitlines()}
    assert {"numpy", "onnxruntime"} <= imported
    assert not {"torch", "pydantic", "optuna", "onnx", "zstandard"} & imported


class Scripted:
    """A session that does as it is told when it is loaded and run."""

    batch: int | None = None

    def __init__(self, status: Path, kilobytes: tuple[int, int, int, int], counter: Path) -> None:
        self.status = status
        self.after_load, self.after_run = kilobytes[:2], kilobytes[2:]
        self.counter = counter
        self.runs = 0

    def load(self) -> Scripted:
        write_status(self.status, *self.after_load)
        return self

    def run(self, feeds: Feeds) -> Sequence[Array]:
        self.runs += 1
        write_status(self.status, *self.after_run)
        self.counter.write_text(str(int(self.counter.read_text()) + 4000))
        return []


def write_status(path: Path, resident: int, peak: int) -> None:
    path.write_text(f"Name:\tpython\nVmHWM:\t{peak:8d} kB\nVmRSS:\t{resident:8d} kB\nThreads:\t1\n")


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "proc/self").mkdir(parents=True)
    write_status(tmp_path / "proc/self/status", 1000, 1000)
    return tmp_path


def test_a_look_times_the_load_alone_and_joins_load_and_run_in_the_peak(root: Path) -> None:
    counter = zone(root, "intel-rapl:0", "package-0")
    session = Scripted(root / "proc/self/status", (1500, 2500, 1800, 3000), counter)
    ticks = iter([0, 7_000_000, *(n * 10**9 for n in range(1, 1000))])
    artifact = root / "artifact"
    artifact.write_bytes(b"x" * 3_000_000)
    found = look(session.load, artifact, {"input": X}, root=root, clock=lambda: next(ticks))
    assert found.load_ms == 7.0
    assert found.peak_memory_bytes == 2000 * 1024
    assert found.energy_mj == pytest.approx(4.0)  # 4000 microjoules a run, nothing when idle
    assert (root / "proc/self/clear_refs").read_text() == "5"


@pytest.mark.parametrize(
    ("before", "after", "added"),
    [
        ((1000, 1000), (1400, 1700), 700),  # reset
        ((1000, 5000), (2000, 6000), 5000),  # not reset, but passed
        ((1000, 5000), (2000, 5000), 1000),  # not reset, and not passed: what stayed
        ((1000, 1000), (1000, 1000), 4),  # a page is the least
        ((1000, 5000), (900, 5000), 4),
    ],
)
def test_the_peak_with_and_without_the_right_to_reset_it(
    before: tuple[int, int], after: tuple[int, int], added: int, root: Path
) -> None:
    (root / "proc/self/clear_refs").mkdir()  # cannot be written, not even by the administrator
    write_status(root / "proc/self/status", *before)
    memory = PeakMemory(root)
    write_status(root / "proc/self/status", *after)
    assert memory.added() == added * 1024


def test_real_memory_that_came_and_went_is_seen() -> None:
    memory = PeakMemory()
    array = np.ones(80 * MB // 8)
    del array
    assert 79 * MB < memory.added() < 120 * MB


def test_a_system_that_does_not_tell_is_reported(tmp_path: Path, root: Path) -> None:
    (root / "proc/self/status").write_text("Name:\tpython\n")
    with pytest.raises(MeasurementError, match="expected VmRSS and VmHWM"):
        PeakMemory(root)
    with pytest.raises(MeasurementError, match="memory of the process cannot be read: No such"):
        PeakMemory(root / "elsewhere")


def test_energy_is_left_out_where_one_process_could_not_measure_it() -> None:
    looks = [Look(1.0, 10, 5.0, "counter"), Look(2.0, 20, 6.0, "counter")]
    assert gathered(looks) == Footprint((1.0, 2.0), (10, 20), (5.0, 6.0), "counter")
    failed = Look(3.0, 30, None, "no counter")
    assert gathered([*looks, failed]) == Footprint((1.0, 2.0, 3.0), (10, 20, 30), (), "no counter")


def interval(figures: Sequence[float], expected: float = 0.1) -> tuple[float, float, float]:
    found = of_processes(figures, unit="ms", expected=expected, protocol="made up", details={})
    assert (found.unit, found.samples) == ("ms", len(figures))
    return found.low, found.value, found.high


def test_the_interval_of_processes_in_closed_form() -> None:
    assert interval([3.0]) == (3.0, 3.0, 3.0)
    low, value, high = interval([2.0] * 5)
    # The expected spread alone: Student's t for 8 degrees of freedom, 4 of them expected.
    half = 2.306 * 0.1 * math.sqrt(4 / 8) * math.sqrt(math.pi / 5)
    assert value == pytest.approx(2.0)
    assert (math.log(value / low), math.log(high / value)) == pytest.approx((half, half), rel=1e-2)


def test_the_interval_covers_a_repeat() -> None:
    rng = np.random.default_rng(0)
    hits = []
    for _ in range(400):
        first, second = np.exp(rng.normal(0, 0.1, (2, 5)))
        low, _, high = interval(list(first))
        hits.append(low <= np.median(second) <= high)
    assert 0.92 <= np.mean(hits) <= 0.99


def test_one_process_that_was_held_up_does_not_move_the_value() -> None:
    assert interval([1.0, 1.01, 0.99, 1.0, 9.0])[1] == pytest.approx(1.0)
