"""A device behind a real agent, in a second process."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import psutil
import pytest

from parefront.errors import AgentError, MeasurementError, TokenError, UsageError
from parefront.objectives.targets.agent.remote import RemoteDevice
from parefront.objectives.targets.device import Device, Effort
from parefront.objectives.targets.local import LocalDevice
from tests.objectives.agent.models import ORT, WIDTH, X, endless, linear, weights
from tests.objectives.agent.process import AgentProcess
from tests.waiting import until


@pytest.fixture(scope="module")
def agent(tmp_path_factory: pytest.TempPathFactory) -> Iterator[AgentProcess]:
    agent = AgentProcess(tmp_path_factory.mktemp("agent"))
    yield agent
    agent.stop()


@pytest.fixture(autouse=True)
def own_lock(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Measurements of other processes on this machine do not hold up the tests."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.setenv("TMPDIR", str(tmp_path))


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return linear(tmp_path / "model.onnx")


def test_outputs_are_those_of_the_machine_itself(agent: AgentProcess, model: Path) -> None:
    (output,) = agent.device().run(model, {"input": X}, **ORT, batch_size=7)
    (local,) = LocalDevice().run(model, {"input": X}, **ORT, batch_size=7)
    np.testing.assert_array_equal(output, local)
    np.testing.assert_allclose(output, X @ weights(8), rtol=1e-4, atol=1e-5)  # type: ignore[arg-type]
    agent.assert_well()


def test_an_agent_is_a_device(agent: AgentProcess, model: Path, tmp_path: Path) -> None:
    device: Device = agent.device()
    batch = {"input": X[:1]}
    assert device.fingerprint("onnxruntime", 1) == LocalDevice().fingerprint("onnxruntime", 1)
    large = linear(tmp_path / "large.onnx", outputs=40_000)
    timing = device.time(large, model, batch, **ORT, effort=Effort(20, 0.5, 0.1))
    assert timing.ratio_low > 2
    assert timing.rounds >= 1
    assert timing.candidate_ms["p50"] > timing.baseline_ms["p50"] > 0
    assert 0 < device.reference_ms(model, batch, **ORT, runs=20, sessions=2) < 1000
    found = device.footprint(model, batch, **ORT, sessions=2)
    assert len(found.load_ms) == len(found.peak_memory_bytes) == 2
    agent.assert_well()


def test_a_file_is_uploaded_once(agent: AgentProcess, model: Path) -> None:
    device = agent.device()
    device.run(model, {"input": X}, **ORT, batch_size=7)
    before = {name: (agent.folder / name).stat().st_ino for name in agent.files()}
    renamed = model.rename(model.with_name("other.onnx"))
    device.run(renamed, {"input": X}, **ORT, batch_size=5)
    assert {name: (agent.folder / name).stat().st_ino for name in agent.files()} == before


def test_reasons_name_the_files_of_the_one_who_asks(agent: AgentProcess, tmp_path: Path) -> None:
    garbage = tmp_path / "garbage.onnx"
    garbage.write_bytes(b"garbage" * 1000)
    with pytest.raises(MeasurementError, match=r"artifact: .*could not load garbage\.onnx"):
        agent.device().reference_ms(garbage, {"input": X[:1]}, **ORT)
    with pytest.raises(MeasurementError, match="could not run it: .*input"):
        agent.device().run(linear(tmp_path / "fine.onnx"), {"input": X[:, :9]}, **ORT, batch_size=4)
    agent.assert_well()


def test_neither_the_agent_nor_what_it_measures_imports_torch(
    agent: AgentProcess, model: Path
) -> None:
    agent.device().run(model, {"input": X}, **ORT, batch_size=7)
    agent.device().fingerprint("onnxruntime", 1)
    mapped = {entry.path for entry in psutil.Process(agent.process.pid).memory_maps()}
    assert not [path for path in mapped if "torch" in path or "onnxruntime" in path]
    program = (
        "import sys\n"
        "import parefront.objectives.targets.agent.serve\n"
        "import parefront.objectives.targets.agent.remote\n"
        "assert not {'torch', 'pandas', 'optuna', 'onnx'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", program], check=True)


def test_measurements_of_several_clients_never_overlap(agent: AgentProcess, model: Path) -> None:
    batch = {"input": X[:1]}
    crowds: set[int] = set()
    with ThreadPoolExecutor(3) as pool:
        asked = [
            pool.submit(agent.device().reference_ms, model, batch, **ORT, runs=20, sessions=3)
            for _ in range(3)
        ]
        while not all(future.done() for future in asked):
            crowds.add(len(agent.workers()))
        assert all(future.result() > 0 for future in asked)
    assert crowds <= {0, 1}
    assert 1 in crowds


def test_a_measurement_ends_when_nobody_waits_for_it(
    agent: AgentProcess, model: Path, tmp_path: Path
) -> None:
    program = (
        "import sys, numpy as np\n"
        "from pathlib import Path\n"
        "from parefront.objectives.targets.agent.remote import RemoteDevice\n"
        f"x = np.zeros((1, {WIDTH}), np.float32)\n"
        "RemoteDevice(sys.argv[1], sys.argv[2], timeout=600).run(Path(sys.argv[3]), {'input': x},"
        " runtime='onnxruntime', threads=1, batch_size=1)"
    )
    path = endless(tmp_path / "endless.onnx")
    clients = [
        subprocess.Popen([sys.executable, "-c", program, agent.url, agent.token, str(path)])
        for _ in range(2)  # one is measured, one waits
    ]
    try:
        (worker,) = until(agent.workers)
        until(lambda: worker.cpu_times().user > 0.5)
    finally:
        for client in clients:
            client.kill()
            client.wait()
    until(lambda: not agent.workers())
    agent.device().run(model, {"input": X}, **ORT, batch_size=7)
    agent.assert_well()


def test_what_the_agent_can_never_do_is_the_users_mistake(agent: AgentProcess, model: Path) -> None:
    batch = {"input": X[:1]}
    device = agent.device()
    cores = len(os.sched_getaffinity(0))
    with pytest.raises(AgentError, match=rf"expected at most {cores} threads, .* got 4096"):
        device.fingerprint("onnxruntime", 4096)
    with pytest.raises(AgentError, match=rf"expected at most {cores} threads, .* got 4096"):
        device.reference_ms(model, batch, runtime="onnxruntime", threads=4096)
    with pytest.raises(UsageError, match="got 'none'"):
        device.fingerprint("none", 1)
    with pytest.raises(AgentError, match="timeout of at most 600 s, got 601 s.*--time-limit"):
        agent.device(timeout=601).reference_ms(model, batch, **ORT)
    with pytest.raises(AgentError, match=r"'pt2' may bring code of their own.*--allow-native"):
        device.reference_ms(model, batch, runtime="aotinductor", threads=1)
    agent.assert_well()


def test_another_token_is_refused_at_once(agent: AgentProcess, model: Path) -> None:
    device = RemoteDevice(agent.url, "another-token-of-some-length", patience=600)
    with pytest.raises(TokenError, match="has another token; copy its token file"):
        device.fingerprint("onnxruntime", 1)
    with pytest.raises(TokenError, match="has another token"):
        device.run(model, {"input": X}, **ORT, batch_size=7)


def test_another_version_is_refused(agent: AgentProcess, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("parefront.objectives.targets.agent.connection.VERSION", "0.0.1")
    with pytest.raises(AgentError, match=r"asked by version 0\.0\.1; install the same on both"):
        agent.device().fingerprint("onnxruntime", 1)


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("ftp://host", "expected an address of an agent such as"),
        ("host:8765", "expected an address of an agent such as"),
        ("http://", "expected an address of an agent such as"),
        ("http://me:secret@host", "expected an address of an agent such as"),
        ("http://host/path", "expected an address of an agent such as"),
        ("http://host:port", "expected an address of an agent, got"),
    ],
)
def test_what_is_no_address_is_refused(url: str, message: str) -> None:
    with pytest.raises(AgentError, match=message):
        RemoteDevice(url, "a-token-of-some-length")


@pytest.mark.parametrize("token", ["", "two words", "line\nline", "größe"])
def test_what_is_no_token_is_refused(token: str) -> None:
    with pytest.raises(TokenError, match="expected a token of visible ASCII characters"):
        RemoteDevice("http://127.0.0.1:1", token)


def test_an_artifact_that_is_not_there(agent: AgentProcess, tmp_path: Path) -> None:
    with pytest.raises(MeasurementError, match="cannot be started: .*No such file"):
        agent.device().run(tmp_path / "absent.onnx", {"input": X}, **ORT, batch_size=7)


def test_inputs_that_are_no_numbers_are_refused(agent: AgentProcess, model: Path) -> None:
    objects = np.array([{}, {}], dtype=object)
    with pytest.raises(MeasurementError, match="cannot be started: Object arrays"):
        agent.device().run(model, {"input": objects}, **ORT, batch_size=4)
