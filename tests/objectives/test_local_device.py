"""Measurements in real child processes, and what can go wrong with them."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import textwrap
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import psutil
import pytest
import torch
from onnx import TensorProto, helper
from torch import nn

from parefront.errors import MeasurementError, UsageError
from parefront.objectives.targets.batches import run_batches
from parefront.objectives.targets.device import Effort
from parefront.objectives.targets.local import LocalDevice
from parefront.objectives.targets.onnx_runtime import OnnxRuntime
from tests.waiting import until
from tests.workers import WORKER, workers_of
from tests.zoo import make

BRIEF = Effort(runs=50, seconds=0.1)
ORT: dict[str, Any] = {"runtime": "onnxruntime", "threads": 1}
X = np.random.default_rng(0).normal(size=(23, 64)).astype(np.float32)


@pytest.fixture(autouse=True)
def own_lock(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Measurements of other processes on this machine do not hold up the tests."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.setenv("TMPDIR", str(tmp_path))


class FixedBatch(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(64, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.linear(x.reshape(4, 64))  # type: ignore[no-any-return]


def endless() -> onnx.ModelProto:
    """Adds one to its input for ever."""
    one = helper.make_tensor("one", TensorProto.FLOAT, [], [1.0])
    body = helper.make_graph(
        [
            helper.make_node("Identity", ["go_on"], ["going"]),
            helper.make_node("Add", ["value", "one"], ["next"]),
        ],
        "body",
        [
            helper.make_tensor_value_info("step", TensorProto.INT64, []),
            helper.make_tensor_value_info("go_on", TensorProto.BOOL, []),
            helper.make_tensor_value_info("value", TensorProto.FLOAT, ["batch", 64]),
        ],
        [
            helper.make_tensor_value_info("going", TensorProto.BOOL, []),
            helper.make_tensor_value_info("next", TensorProto.FLOAT, ["batch", 64]),
        ],
        [one],
    )
    graph = helper.make_graph(
        [helper.make_node("Loop", ["steps", "", "input"], ["output"], body=body)],
        "endless",
        [helper.make_tensor_value_info("input", TensorProto.FLOAT, ["batch", 64])],
        [helper.make_tensor_value_info("output", TensorProto.FLOAT, ["batch", 64])],
        [helper.make_tensor("steps", TensorProto.INT64, [], [10**15])],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Artifacts by name."""
    folder = tmp_path_factory.mktemp("artifacts")
    large = nn.Sequential(nn.Linear(64, 1000), nn.ReLU(), nn.Linear(1000, 1000), nn.Linear(1000, 9))
    example = torch.from_numpy(X[:4])
    for name, module in {
        "mlp": make("mlp")[0],
        "large": large,
        "fixed": FixedBatch(),
        "named": nn.Linear(64, 3),
    }.items():
        inputs = ["file"] if name == "named" else ["input"]
        OnnxRuntime().build(module, (example,), inputs, folder / f"{name}.onnx")
    onnx.save(endless(), folder / "endless.onnx")
    (folder / "garbage.onnx").write_bytes(b"garbage" * 1000)
    return {path.stem: path for path in folder.iterdir()}


@pytest.fixture
def hanging(files: dict[str, Path]) -> Iterator[tuple[psutil.Process, Any]]:
    """A measuring process that never ends, and the future of its measurement."""
    device = LocalDevice()
    with ThreadPoolExecutor(1) as pool:
        future = pool.submit(device.run, files["endless"], {"input": X}, **ORT, batch_size=4)
        (worker,) = until(lambda: workers_of(psutil.Process()))
        core = sorted(os.sched_getaffinity(0))[-1:]
        until(lambda: worker.cpu_affinity() == core)
        # Pinned; now wait until it computes.
        until(lambda: worker.cpu_times().user > 0.5)
        yield worker, future
        if worker.is_running():
            worker.kill()


def test_a_model_against_itself_and_against_a_larger_one(files: dict[str, Path]) -> None:
    device = LocalDevice()
    batch = {"input": X[:1]}
    same = device.time(files["mlp"], files["mlp"], batch, **ORT, effort=Effort(seconds=0.1))
    assert same.ratio_low / 1.3 < 1 < same.ratio_high * 1.3
    assert same.clock == "cpu"
    assert same.runs >= 200
    slower = device.time(files["large"], files["mlp"], batch, **ORT, effort=BRIEF)
    assert slower.ratio_low > 1
    assert slower.candidate_ms["p50"] > slower.baseline_ms["p50"]


def test_more_threads_are_timed_by_the_wall(files: dict[str, Path]) -> None:
    timing = LocalDevice().time(
        files["large"],
        files["mlp"],
        {"input": X[:1]},
        runtime="onnxruntime",
        threads=2,
        effort=BRIEF,
    )
    assert timing.clock == "wall"
    assert timing.ratio > 1


def test_the_reference_is_the_absolute_latency(files: dict[str, Path]) -> None:
    device = LocalDevice()
    batch = {"input": X[:1]}
    small, large = (
        device.reference_ms(files[name], batch, **ORT, runs=50, sessions=2)
        for name in ("mlp", "large")
    )
    assert 0.0005 < small < large < 1000


@pytest.mark.parametrize("name", ["mlp", "fixed"])
@pytest.mark.parametrize("count", [3, 23])
def test_outputs_are_those_of_the_runtime_in_this_process(
    name: str, count: int, files: dict[str, Path]
) -> None:
    x = X[:count]
    (output,) = LocalDevice().run(files[name], {"input": x}, **ORT, batch_size=7)
    session = OnnxRuntime().open(files[name], threads=1)
    if session.batch is None:
        expected: Any = session.run({"input": x})[0]
    else:
        assert session.batch == 4
        full = np.concatenate([x, np.zeros((-count % 4, 64), np.float32)])
        batches = [session.run({"input": part})[0] for part in np.split(full, len(full) // 4)]
        expected = np.concatenate(batches)[:count]
    np.testing.assert_allclose(output, expected, rtol=1e-5, atol=1e-6)  # type: ignore[arg-type]


def test_an_input_may_have_any_name(files: dict[str, Path]) -> None:
    (output,) = LocalDevice().run(files["named"], {"file": X}, **ORT, batch_size=8)
    assert output.shape == (23, 3)


def test_batches_are_as_asked_and_filled_up_where_fixed() -> None:
    class Records:
        def __init__(self, batch: int | None) -> None:
            self.batch = batch
            self.sizes: list[int] = []

        def run(self, feeds: Any) -> list[Any]:
            self.sizes.append(len(feeds["x"]))
            return [feeds["x"] * 2, feeds["x"][:, 0]]

    for batch, sizes in ((None, [4, 4, 2]), (3, [3, 3, 3, 3])):
        session = Records(batch)
        double, first = run_batches(session, {"x": X[:10]}, 4)
        assert session.sizes == sizes
        np.testing.assert_array_equal(double, X[:10] * 2)
        np.testing.assert_array_equal(first, X[:10, 0])


@pytest.mark.parametrize("feeds", [{"a": X[:0]}, {"a": X, "b": X[:3]}, {}])
def test_examples_must_be_as_many_in_each_input(
    feeds: dict[str, Any], files: dict[str, Path]
) -> None:
    with pytest.raises(MeasurementError, match="expected as many examples in each input"):
        LocalDevice().run(files["mlp"], feeds, **ORT, batch_size=4)


def test_the_artifact_that_fails_is_named(files: dict[str, Path]) -> None:
    device = LocalDevice()
    batch = {"input": X[:1]}
    with pytest.raises(MeasurementError, match=r"^candidate: .*could not load garbage\.onnx"):
        device.time(files["garbage"], files["mlp"], batch, **ORT, effort=BRIEF)
    with pytest.raises(MeasurementError, match=r"^baseline: .*could not load garbage\.onnx"):
        device.time(files["mlp"], files["garbage"], batch, **ORT, effort=BRIEF)
    with pytest.raises(MeasurementError, match=r"^artifact: .*could not load garbage\.onnx"):
        device.reference_ms(files["garbage"], batch, **ORT)


def test_inputs_the_model_refuses(files: dict[str, Path]) -> None:
    with pytest.raises(MeasurementError, match="could not run it: .*input"):
        LocalDevice().run(files["mlp"], {"input": X[:, :9]}, **ORT, batch_size=4)


def test_inputs_that_are_no_numbers_are_refused(files: dict[str, Path]) -> None:
    objects = np.array([{}, {}], dtype=object)
    with pytest.raises(MeasurementError, match="cannot be started: Object arrays"):
        LocalDevice().run(files["mlp"], {"input": objects}, **ORT, batch_size=4)


def test_an_unknown_runtime_is_the_users_mistake(files: dict[str, Path]) -> None:
    with pytest.raises(UsageError, match="got 'none'"):
        LocalDevice().run(files["mlp"], {"input": X}, runtime="none", threads=1, batch_size=4)


def test_a_measurement_that_hangs_is_stopped(files: dict[str, Path]) -> None:
    with pytest.raises(MeasurementError, match=r"did not end within 1\.5 s and was stopped"):
        LocalDevice(timeout=1.5).run(files["endless"], {"input": X}, **ORT, batch_size=4)
    assert workers_of(psutil.Process()) == []


@pytest.mark.parametrize(
    ("number", "message"),
    [
        (signal.SIGKILL, r"killed by signal 9 \(SIGKILL\), perhaps for want of memory"),
        (signal.SIGSEGV, r"killed by signal 11 \(SIGSEGV\)$"),
    ],
)
def test_a_process_that_dies_is_reported(
    hanging: tuple[psutil.Process, Any], number: signal.Signals, message: str
) -> None:
    worker, future = hanging
    worker.send_signal(number)
    with pytest.raises(MeasurementError, match=message):
        future.result(timeout=30)


def test_an_interrupt_of_the_terminal_does_not_reach_the_measurement(
    hanging: tuple[psutil.Process, Any],
) -> None:
    worker, _ = hanging
    assert os.getsid(worker.pid) == worker.pid != os.getsid(0)


def test_the_process_does_not_import_torch(files: dict[str, Path], tmp_path: Path) -> None:
    np.savez(tmp_path / "feeds.npz", X)
    request = {
        "kind": "time",
        "candidate": str(files["mlp"]),
        "baseline": str(files["mlp"]),
        "runs": 50,
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
    assert json.loads(done.stdout)["ok"]["blocks"] == 5
    imported = {line.split("|")[-1].strip().split(".")[0] for line in done.stderr.splitlines()}
    assert {"numpy", "onnxruntime"} <= imported
    assert not {"torch", "pydantic", "optuna", "onnx"} & imported


@pytest.mark.parametrize(
    ("program", "message"),
    [
        ("/bin/false", "failed with exit code 1: no message"),
        ("/bin/echo", "expected a JSON answer, got '-P"),
        ("/nonexistent/python", "cannot be started: .*No such file"),
    ],
)
def test_a_process_that_does_not_answer_is_reported(
    program: str, message: str, files: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "executable", program)
    with pytest.raises(MeasurementError, match=message):
        LocalDevice().run(files["mlp"], {"input": X}, **ORT, batch_size=4)


def test_a_missing_folder_for_temporary_files_is_reported(
    files: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", "/nonexistent")
    device = LocalDevice()
    with pytest.raises(MeasurementError, match=r"cannot be started: .*No such file"):
        device.time(files["mlp"], files["mlp"], {"input": X}, **ORT, effort=BRIEF)
    with pytest.raises(MeasurementError, match=r"cannot be started: .*No such file"):
        device.run(files["mlp"], {"input": X}, **ORT, batch_size=4)


def test_outputs_that_find_no_room_are_reported(
    files: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    limited = "import resource, runpy; resource.setrlimit(resource.RLIMIT_FSIZE, (100, 100));"
    script = Path(tempfile.gettempdir(), "python")
    script.write_text(
        f"#!/bin/sh\nexec {sys.executable} -P -c "
        f'\'{limited} runpy.run_module("{WORKER}", run_name="__main__")\'\n'
    )
    script.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(script))
    with pytest.raises(MeasurementError, match=r"outputs cannot be written: .*too large"):
        LocalDevice().run(files["mlp"], {"input": X}, **ORT, batch_size=4)


ASKS = """
    import sys
    from pathlib import Path
    import numpy as np
    from parefront.objectives.targets.local import LocalDevice
    x = {"input": np.zeros((1, 64), np.float32)}
    LocalDevice().reference_ms(
        Path(sys.argv[1]), x, runtime="onnxruntime", threads=1, runs=50, sessions=3
    )
"""


def asks(path: Path) -> subprocess.Popen[bytes]:
    """Another process that measures."""
    return subprocess.Popen([sys.executable, "-c", textwrap.dedent(ASKS), str(path)])


def test_measurements_of_several_processes_never_overlap(files: dict[str, Path]) -> None:
    done = threading.Event()
    seen: dict[int, list[float]] = {}
    crowds: set[int] = set()

    def watch() -> None:
        while not done.is_set():
            now = workers_of(psutil.Process())
            crowds.add(len(now))
            for worker in now:
                seen.setdefault(worker.pid, []).append(time.monotonic())
            time.sleep(0.002)

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        askers = [asks(files["large"]) for _ in range(2)]
        LocalDevice().time(files["mlp"], files["mlp"], {"input": X[:1]}, **ORT, effort=BRIEF)
        assert [asker.wait() for asker in askers] == [0, 0]
    finally:
        done.set()
        watcher.join()
    assert crowds == {0, 1}
    assert len(seen) >= 7  # 3 + 3 sessions and at least a round
    spans = sorted((min(times), max(times)) for times in seen.values())
    assert all(earlier[1] < later[0] for earlier, later in pairwise(spans))


def test_a_device_that_is_always_wanted_is_shared(files: dict[str, Path]) -> None:
    over, made = threading.Event(), [0]

    def again_and_again() -> None:
        while not over.is_set():
            LocalDevice().run(files["mlp"], {"input": X}, **ORT, batch_size=64)
            made[0] += 1

    other = threading.Thread(target=again_and_again)
    other.start()
    try:
        until(lambda: made[0] > 0)
        before = made[0]
        for _ in range(3):
            LocalDevice().run(files["mlp"], {"input": X}, **ORT, batch_size=64)
        between = made[0] - before
    finally:
        over.set()
        other.join()
    assert between <= 3 * 2 + 1


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT])
def test_the_measurement_dies_with_the_process_that_asked(
    number: signal.Signals, files: dict[str, Path]
) -> None:
    asker = asks(files["endless"])
    try:
        (worker,) = until(lambda: workers_of(psutil.Process(asker.pid)))
        until(lambda: worker.cpu_times().user > 0.5)
        asker.send_signal(number)
        assert asker.wait(timeout=30) != 0
        until(lambda: not psutil.pid_exists(worker.pid) or worker.status() == "zombie")
    finally:
        asker.kill()
        asker.wait()


def test_facts_about_this_machine_go_with_the_measurements() -> None:
    facts = LocalDevice().fingerprint("onnxruntime", 1)
    assert facts["runtime_version"] == OnnxRuntime().version()
    assert facts["threads"] == 1
