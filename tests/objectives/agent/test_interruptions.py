"""Agents that are killed, stopped, started again, or never there."""

from __future__ import annotations

import json
import signal
import socket
import tempfile
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import httpx
import pytest

from parefront.errors import MeasurementError
from parefront.objectives.targets.agent import connection as connections
from parefront.objectives.targets.agent import remote
from parefront.objectives.targets.agent.connection import Connection
from parefront.objectives.targets.agent.remote import RemoteDevice
from tests.objectives.agent.models import ORT, X, linear
from tests.objectives.agent.process import AgentProcess
from tests.waiting import until

BATCH = {"input": X[:1]}


@pytest.fixture
def agent(tmp_path: Path) -> Iterator[AgentProcess]:
    agent = AgentProcess(tmp_path / "agent")
    yield agent
    agent.stop()


@pytest.fixture
def model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    return linear(tmp_path / "model.onnx", outputs=4000)


def test_a_measurement_outlives_an_agent_that_is_killed(agent: AgentProcess, model: Path) -> None:
    with ThreadPoolExecutor(1) as pool:
        asked = pool.submit(
            agent.device(patience=120).reference_ms, model, BATCH, **ORT, runs=300, sessions=10
        )
        (worker,) = until(agent.workers)
        agent.kill()
        until(lambda: not worker.is_running() or worker.status() == "zombie")
        assert not asked.done()
        (agent.folder / f"{'0' * 64}.onnx.abc.part").write_bytes(b"half")
        kept = {name: (agent.folder / name).stat().st_ino for name in agent.files()}
        agent.start()
        assert asked.result(timeout=120) > 0
    agent.assert_well()
    kept = {name: inode for name, inode in kept.items() if ".part" not in name}
    assert {name: (agent.folder / name).stat().st_ino for name in agent.files()} == kept


def test_a_measurement_outlives_an_agent_that_is_ended(agent: AgentProcess, model: Path) -> None:
    with ThreadPoolExecutor(1) as pool:
        asked = pool.submit(
            agent.device(patience=120).reference_ms, model, BATCH, **ORT, runs=300, sessions=10
        )
        until(agent.workers)
        assert agent.stop() in {0, -signal.SIGTERM}
        agent.start()
        assert asked.result(timeout=120) > 0
    agent.assert_well()


def test_an_agent_that_stands_still_for_a_while(
    agent: AgentProcess, model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(remote, "_SILENCE", 0.5)
    asks = []
    send = Connection.send

    def counted(self: Connection, method: str, path: str, **more: Any) -> Any:
        asks.append(method)
        return send(self, method, path, **more)

    monkeypatch.setattr(Connection, "send", counted)
    with ThreadPoolExecutor(1) as pool:
        asked = pool.submit(
            agent.device(patience=120).reference_ms, model, BATCH, **ORT, runs=300, sessions=10
        )
        until(agent.workers)
        agent.signal(signal.SIGSTOP)
        seen = len(asks)
        until(lambda: len(asks) >= seen + 2)  # it asked again, twice
        assert not asked.done()
        agent.signal(signal.SIGCONT)
        monkeypatch.setattr(remote, "_SILENCE", 30.0)
        assert asked.result(timeout=120) > 0
    agent.assert_well()


def test_an_agent_that_stands_still_for_too_long(
    agent: AgentProcess, model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(remote, "_SILENCE", 0.3)
    agent.signal(signal.SIGSTOP)
    with pytest.raises(MeasurementError, match=r"did not answer for 1 s: .*timed out"):
        agent.device(patience=1).reference_ms(model, BATCH, **ORT)
    agent.signal(signal.SIGCONT)
    agent.assert_well()


def test_an_agent_that_is_not_there(model: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    device = RemoteDevice(f"http://127.0.0.1:{port}", "a-token-of-some-length", patience=0.6)
    with pytest.raises(MeasurementError, match=r"did not answer for 0\.6 s: .*refused"):
        device.reference_ms(model, BATCH, **ORT)
    with pytest.raises(MeasurementError, match=r"did not answer for 0\.6 s: .*refused"):
        device.fingerprint("onnxruntime", 1)


def test_a_search_may_begin_before_the_agent(tmp_path: Path, model: Path) -> None:
    early = AgentProcess(tmp_path / "early")
    early.stop()
    with ThreadPoolExecutor(1) as pool:
        asked = pool.submit(
            early.device(patience=120).reference_ms, model, BATCH, **ORT, sessions=1
        )
        early.start()
        assert asked.result(timeout=120) > 0
    early.stop()


def test_patience_counts_anew_after_progress(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 0.0
    pauses = []

    def sleep(seconds: float) -> None:
        nonlocal now
        now += seconds
        pauses.append(seconds)

    monkeypatch.setattr(connections, "time", SimpleNamespace(monotonic=lambda: now, sleep=sleep))
    connection = Connection("http://127.0.0.1:1", "token", patience=10)
    calls = 0

    def progressing(progress: Callable[[], None]) -> str:
        nonlocal calls
        calls += 1
        if calls % 3 == 0:
            progress()
        if calls < 50:
            raise httpx.ConnectError("refused")
        return "there"

    assert connection.persist(progressing) == "there"
    assert now > 20
    pauses.clear()
    began = now

    def failing(_: Callable[[], None]) -> str:
        raise httpx.ConnectError("refused")

    with pytest.raises(MeasurementError, match="did not answer for 10 s: refused"):
        connection.persist(failing)
    assert now - began == pytest.approx(10)
    assert pauses == pytest.approx([0.25, 0.5, 1, 2, 4, 2.25])
    connection.close()


class Impostor(BaseHTTPRequestHandler):
    """Has every file, and answers each measurement as it is told."""

    answers: tuple[bytes, ...] = ()
    asked = 0

    def do_HEAD(self) -> None:
        self.send_response(200)
        self.end_headers()

    def do_POST(self) -> None:
        type(self).asked += 1
        self.rfile.read(int(self.headers["content-length"]))
        self.send_response(200)
        self.end_headers()
        for answer in self.answers:
            self.wfile.write(answer)

    def log_message(self, *_: Any) -> None: ...


@pytest.fixture
def impostor() -> Iterator[tuple[type[Impostor], RemoteDevice]]:
    kind = type("Told", (Impostor,), {})
    with ThreadingHTTPServer(("127.0.0.1", 0), kind) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        device = RemoteDevice(f"http://127.0.0.1:{server.server_port}", "token", patience=60)
        yield kind, device
        device.close()
        server.shutdown()
        thread.join()


MEASURING = json.dumps({"state": "measuring"}).encode() + b"\n"


def test_a_measurement_that_takes_the_agent_with_it_is_given_up(
    impostor: tuple[type[Impostor], RemoteDevice], model: Path
) -> None:
    kind, device = impostor
    kind.answers = (MEASURING, MEASURING)
    with pytest.raises(MeasurementError, match="was lost 5 times in the middle"):
        device.reference_ms(model, BATCH, **ORT)
    assert kind.asked == 5


@pytest.mark.parametrize(
    ("last", "message"),
    [
        (b"nonsense\n", "expected a line of JSON, got b'nonsense'"),
        (b"[1]\n", r"expected an agent's answer, got b'\[1\]'"),
        (b'{"ok": "fast"}\n', "expected a measurement, got .*fast"),
        (b'{"ok": null}\n', "expected a measurement, got"),
        (b'{"missing": ["x"]}\n', "cannot keep the files of one measurement together"),
        (b"\0" * 5_000_000, "expected a line of JSON"),
    ],
)
def test_what_is_no_measurement_fails_as_one(
    last: bytes, message: str, impostor: tuple[type[Impostor], RemoteDevice], model: Path
) -> None:
    kind, device = impostor
    kind.answers = (MEASURING, last)
    with pytest.raises(MeasurementError, match=message):
        device.reference_ms(model, BATCH, **ORT)


def test_outputs_that_are_not_whole_are_asked_for_again(
    impostor: tuple[type[Impostor], RemoteDevice], model: Path
) -> None:
    kind, device = impostor
    line = json.dumps({"ok": {"outputs": 1, "bytes": 9, "sha256": "0" * 64}}).encode() + b"\n"
    kind.answers = (MEASURING, line, b"123")
    with pytest.raises(MeasurementError, match="was lost 5 times.*expected outputs of 9 bytes"):
        device.run(model, BATCH, **ORT, batch_size=1)
    assert kind.asked == 5
