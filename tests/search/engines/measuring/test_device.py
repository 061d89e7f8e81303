"""Measuring actors on a real Ray: what they measure and keep, and what may happen to them."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest

from parefront.errors import (
    DeviceAwayError,
    MeasurementError,
    UsageError,
)
from parefront.objectives.targets.device import Device, Effort
from parefront.objectives.targets.local import LocalDevice
from parefront.objectives.targets.target import Target
from tests.objectives.agent.models import ORT, WIDTH, X, endless, linear, weights
from tests.waiting import until
from tests.workers import workers_of

ray = pytest.importorskip("ray")

from parefront.search.engines.ray import measuring  # noqa: E402 (needs Ray)
from parefront.search.engines.ray.measurer import Measurer  # noqa: E402
from parefront.search.engines.ray.measuring import MeasuringDevice  # noqa: E402
from tests.search.engines.measuring.actors import (  # noqa: E402
    MARKS,
    actor_of,
    measures,
    opened,
)

pytestmark = MARKS

BATCH = {"input": X[:1]}


def test_outputs_are_those_of_the_machine_itself(device: MeasuringDevice, model: Path) -> None:
    (output,) = device.run(model, {"input": X}, **ORT, batch_size=7)
    (local,) = LocalDevice().run(model, {"input": X}, **ORT, batch_size=7)
    np.testing.assert_array_equal(output, local)
    assert output.flags.writeable  # a metric may write to it
    np.testing.assert_allclose(output, X @ weights(8), rtol=1e-4, atol=1e-5)  # type: ignore[arg-type]


def test_an_actor_is_a_device(device: MeasuringDevice, model: Path, tmp_path: Path) -> None:
    same: Device = device
    assert same.fingerprint("onnxruntime", 1) == LocalDevice().fingerprint("onnxruntime", 1)
    large = linear(tmp_path / "large.onnx", outputs=40_000)
    timing = same.time(large, model, BATCH, **ORT, effort=Effort(20, 0.5, 0.1))
    assert timing.ratio_low > 2
    assert timing.candidate_ms["p50"] > timing.baseline_ms["p50"] > 0
    assert 0 < same.reference_ms(model, BATCH, **ORT, runs=20, sessions=2) < 1000
    found = same.footprint(model, BATCH, **ORT, sessions=2)
    assert len(found.load_ms) == len(found.peak_memory_bytes) == 2


def test_errors_are_those_of_the_device(device: MeasuringDevice, tmp_path: Path) -> None:
    garbage = tmp_path / "garbage.onnx"
    garbage.write_bytes(b"garbage" * 1000)
    fine = linear(tmp_path / "fine.onnx")
    with pytest.raises(MeasurementError, match=r"^artifact: .*could not load garbage\.onnx"):
        device.reference_ms(garbage, BATCH, **ORT)
    with pytest.raises(MeasurementError, match="could not run it: .*input"):
        device.run(fine, {"input": X[:, :9]}, **ORT, batch_size=4)
    with pytest.raises(UsageError, match="got 'none'"):
        device.fingerprint("none", 1)
    with pytest.raises(UsageError, match="got 'none'"):
        device.run(fine, {"input": X}, runtime="none", threads=1, batch_size=4)
    with pytest.raises(MeasurementError, match="cannot be started: .*No such file"):
        device.run(tmp_path / "absent.onnx", {"input": X}, **ORT, batch_size=4)
    objects = np.array([{}, {}], dtype=object)
    with pytest.raises(MeasurementError, match="cannot be started: Object arrays"):
        device.run(fine, {"input": objects}, **ORT, batch_size=4)
    hanging = opened(timeout=1.5)
    with pytest.raises(MeasurementError, match=r"did not end within 1\.5 s and was stopped"):
        hanging.run(endless(tmp_path / "endless.onnx"), {"input": X}, **ORT, batch_size=4)


def test_a_worker_elsewhere_measures_with_it(device: MeasuringDevice, model: Path) -> None:
    def outputs(packed: bytes, path: str) -> Any:
        device: MeasuringDevice = ray.cloudpickle.loads(packed)
        return device.run(Path(path), {"input": X}, **ORT, batch_size=7)

    (output,) = ray.get(ray.remote(outputs).remote(ray.cloudpickle.dumps(device), str(model)))
    np.testing.assert_allclose(output, X @ weights(8), rtol=1e-4, atol=1e-5)


def test_a_file_is_sent_once(
    device: MeasuringDevice, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sent: list[str] = []
    put = measuring._put

    def counted(path: Path) -> Any:
        sent.append(path.name)
        return put(path)

    monkeypatch.setattr(measuring, "_put", counted)
    baseline = linear(tmp_path / "baseline.onnx", seed=7)
    brief = Effort(20, 0.5, 0.1)
    for seed in (8, 9):
        candidate = linear(tmp_path / f"{seed}.onnx", seed=seed)
        device.time(candidate, baseline, {"input": X[:3]}, **ORT, effort=brief)
    assert sorted(sent) == ["8.onnx", "9.onnx", "baseline.onnx", "feeds.npz"]


def test_what_is_kept_has_a_limit(cluster: Path, device: MeasuringDevice, tmp_path: Path) -> None:
    device.run(linear(tmp_path / "other.onnx"), {"input": X}, **ORT, batch_size=7)
    quota = 20_000
    options: dict[str, Any] = {"concurrency_groups": {"files": 1}}
    actor = ray.remote(**options)(Measurer).remote(Target(), quota)
    small = MeasuringDevice("small", actor, 60.0, "", 1)
    for seed in range(4):  # each has 8 KB
        path = linear(tmp_path / f"{seed}.onnx", outputs=128, seed=seed)
        (output,) = small.run(path, {"input": X[:2]}, **ORT, batch_size=2)
        np.testing.assert_allclose(output, X[:2] @ weights(128, seed), rtol=1e-4, atol=1e-5)  # type: ignore[arg-type]
    large = linear(tmp_path / "large.onnx", outputs=4000)
    with pytest.raises(MeasurementError, match="cannot be kept .*expected a file of at most 19"):
        small.run(large, {"input": X[:2]}, **ORT, batch_size=2)
    folders = list((cluster / "parefront-devices").iterdir())
    assert len(folders) >= 2  # no two actors use one
    last = folders[0].parent / str(max(int(folder.name) for folder in folders))
    kept = [path.stat().st_size for path in last.iterdir()]
    assert 8000 < sum(kept) <= quota


def spans_of(processes: dict[int, list[float]]) -> list[tuple[float, float]]:
    return sorted((min(times), max(times)) for times in processes.values())


def test_measurements_of_several_workers_never_overlap(
    device: MeasuringDevice, model: Path
) -> None:
    actor = actor_of(device)
    seen: dict[int, list[float]] = {}
    crowds: set[int] = set()
    with ThreadPoolExecutor(3) as pool:
        asked = [
            pool.submit(device.reference_ms, model, BATCH, **ORT, runs=20, sessions=3)
            for _ in range(3)
        ]
        while not all(future.done() for future in asked):
            now = workers_of(actor)
            crowds.add(len(now))
            for worker in now:
                seen.setdefault(worker.pid, []).append(time.monotonic())
        assert all(future.result() > 0 for future in asked)
    assert crowds <= {0, 1}
    assert len(seen) >= 6
    assert all(earlier[1] <= later[0] for earlier, later in pairwise(spans_of(seen)))


def test_another_process_of_the_machine_is_kept_out(
    cluster: Path, device: MeasuringDevice, model: Path, tmp_path: Path
) -> None:
    program = (
        "import sys, numpy as np\n"
        "from pathlib import Path\n"
        "from parefront.objectives.targets.local import LocalDevice\n"
        f"x = np.zeros((1, {WIDTH}), np.float32)\n"
        "LocalDevice(600).run(Path(sys.argv[1]), {'input': x}, runtime='onnxruntime', threads=1,"
        " batch_size=1)"
    )
    path, actor = endless(tmp_path / "endless.onnx"), actor_of(device)
    other = subprocess.Popen(
        [sys.executable, "-c", program, str(path)], env=os.environ | {"TMPDIR": str(cluster)}
    )
    try:
        until(lambda: workers_of(psutil.Process(other.pid)))
        with ThreadPoolExecutor(1) as pool:
            asked = pool.submit(device.run, model, {"input": X}, **ORT, batch_size=7)
            time.sleep(2.0)
            assert not asked.done()
            assert not workers_of(actor)
            other.kill()
            assert len(asked.result(timeout=60)) == 1
    finally:
        other.kill()
        other.wait()


def test_a_measurement_outlives_its_actor(cluster: Path, tmp_path: Path) -> None:
    device = opened()
    actor = actor_of(device)
    path = linear(tmp_path / "large.onnx", outputs=4000)
    with ThreadPoolExecutor(1) as pool:
        asked = pool.submit(device.reference_ms, path, BATCH, **ORT, runs=300, sessions=10)
        (worker,) = until(lambda: workers_of(actor))
        actor.kill()
        assert asked.result(timeout=120) > 0
    # What it measured with died with it.
    until(lambda: not worker.is_running() or worker.status() == psutil.STATUS_ZOMBIE)
    assert actor_of(device).pid != actor.pid


def test_a_measurement_that_takes_its_actor_down_fails(cluster: Path, tmp_path: Path) -> None:
    device = opened()
    path = endless(tmp_path / "endless.onnx")
    with ThreadPoolExecutor(1) as pool:
        asked = pool.submit(device.run, path, {"input": X}, **ORT, batch_size=4)
        gone: set[int] = set()
        while not asked.done():
            for process in psutil.Process().children(recursive=True):
                if process.pid not in gone and measures(process):
                    gone.add(process.pid)
                    process.kill()
            time.sleep(0.05)
        with pytest.raises(MeasurementError, match="died 3 times in the middle of this"):
            asked.result()
    assert device.fingerprint("onnxruntime", 1)["threads"] == 1


def test_a_device_that_is_away_is_waited_for(
    cluster: Path, model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(measuring, "_BEAT", 0.3)
    device = opened(patience=1.5)
    actor = actor_of(device)
    actor.send_signal(signal.SIGSTOP)
    try:
        with pytest.raises(DeviceAwayError, match=r"device main did not answer for 1\.5 s") as away:
            device.run(model, {"input": X}, **ORT, batch_size=7)
        assert not away.value.begun
    finally:
        actor.send_signal(signal.SIGCONT)
    assert len(device.run(model, {"input": X}, **ORT, batch_size=7)) == 1
    with ThreadPoolExecutor(1) as pool:
        path = linear(model.with_name("large.onnx"), outputs=4000)
        asked = pool.submit(device.reference_ms, path, BATCH, **ORT, runs=300, sessions=10)
        until(lambda: workers_of(actor))
        actor.send_signal(signal.SIGSTOP)
        try:
            with pytest.raises(DeviceAwayError) as away:
                asked.result(timeout=60)
            assert away.value.begun
        finally:
            actor.send_signal(signal.SIGCONT)
