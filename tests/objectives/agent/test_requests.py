"""What anyone on the network can send to an agent."""

from __future__ import annotations

import hashlib
import io
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from parefront.errors import MeasurementError
from parefront.objectives.targets.agent.app import _Routes
from parefront.objectives.targets.agent.settings import Settings
from parefront.objectives.targets.agent.store import Store
from parefront.objectives.targets.device import Effort
from tests.objectives.agent.models import ORT, X, linear
from tests.objectives.agent.process import AgentProcess
from tests.waiting import until

ROUTES = [
    ("GET", "/v1/fingerprint"),
    ("HEAD", "/v1/{kind}/{sha256}"),
    ("PUT", "/v1/{kind}/{sha256}"),
    ("POST", "/v1/time"),
    ("POST", "/v1/reference"),
    ("POST", "/v1/footprint"),
    ("POST", "/v1/run"),
]
SHA = hashlib.sha256(b"content").hexdigest()


@pytest.fixture(scope="module")
def agent(tmp_path_factory: pytest.TempPathFactory) -> Iterator[AgentProcess]:
    agent = AgentProcess(tmp_path_factory.mktemp("agent"), "--longest", "1M", "--disk", "2M")
    yield agent
    agent.stop()


@pytest.fixture(autouse=True)
def own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))


def put(agent: AgentProcess, content: bytes, **more: Any) -> Any:
    digest = hashlib.sha256(content).hexdigest()
    return agent.request("PUT", f"/v1/artifacts/{digest}?format=onnx", content=content, **more)


def ask(**changes: Any) -> dict[str, Any]:
    return {
        "runtime": "onnxruntime",
        "threads": 1,
        "timeout": 10,
        "feeds": SHA,
        "names": ["input"],
        "artifact": SHA,
        "batch_size": 4,
    } | changes


def test_the_routes_below_are_all_there_are(tmp_path: Path) -> None:
    settings = Settings(folder=tmp_path / "files")
    store = Store(settings.folder, quota=settings.disk, longest=settings.longest)
    routes = {
        (method, route.path)  # type: ignore[attr-defined]
        for route in _Routes(settings, store).router.routes
        for method in route.methods  # type: ignore[attr-defined]
    }
    store.close()
    assert routes == {*ROUTES, ("GET", "/v1/health")}


def test_health_needs_no_token_and_tells_no_secrets(agent: AgentProcess) -> None:
    answer = agent.request("GET", "/v1/health", headers={"Authorization": ""})
    assert answer.status_code == 200
    assert answer.json().keys() == {"status", "version"}


@pytest.mark.parametrize(
    ("method", "path"),
    [
        *ROUTES,
        ("GET", "/"),
        ("GET", "/docs"),
        ("GET", "/openapi.json"),
        ("POST", "/v1/health"),
    ],
)
def test_without_the_token_nothing_is_answered(method: str, path: str, agent: AgentProcess) -> None:
    path = path.format(kind="artifacts", sha256=SHA)
    wrong = [
        "", "Bearer", "Bearer wrong", agent.token, f"Basic {agent.token}",
        f"Bearer {agent.token}x", f"Bearer {agent.token[:-1]}", f"bearer {agent.token.lower()}",
    ]  # fmt: skip
    for header in wrong:
        answer = agent.request(method, path, headers={"Authorization": header})
        expected = 405 if path == "/v1/health" else 401
        assert answer.status_code == expected, (header, answer.text)
        assert agent.token not in answer.text
    agent.assert_well()


def test_a_body_without_the_token_is_not_even_read(agent: AgentProcess) -> None:
    with socket.create_connection(("127.0.0.1", agent.port), timeout=30) as raw:
        raw.sendall(b"POST /v1/run HTTP/1.1\r\nHost: agent\r\nContent-Length: 99999999999\r\n\r\n")
        assert raw.recv(100).startswith(b"HTTP/1.1 401 ")
    agent.assert_well()


def test_a_request_that_is_too_long_is_not_read(agent: AgentProcess) -> None:
    for header in ("Content-Length: 99999999999", "Transfer-Encoding: chunked"):
        with socket.create_connection(("127.0.0.1", agent.port), timeout=30) as raw:
            raw.sendall(
                f"POST /v1/run HTTP/1.1\r\nHost: agent\r\nAuthorization: Bearer {agent.token}\r\n"
                f"{header}\r\n\r\n".encode()
            )
            assert raw.recv(100).startswith(b"HTTP/1.1 41")
    agent.assert_well()


@pytest.mark.parametrize(
    "noise", [b"\0" * 1000, b"GET / HTTP/9.9\r\n\r\n", b"\x16\x03\x01" + b"\xff" * 500, b""]
)
def test_noise(noise: bytes, agent: AgentProcess) -> None:
    with socket.create_connection(("127.0.0.1", agent.port), timeout=30) as raw:
        raw.sendall(noise)
    agent.assert_well()


def test_an_upload_is_kept_by_its_content(agent: AgentProcess) -> None:
    content = b"some model"
    digest = hashlib.sha256(content).hexdigest()
    path = f"/v1/artifacts/{digest}?format=onnx"
    assert agent.request("HEAD", path).status_code == 404
    assert put(agent, content).status_code == 201
    assert agent.request("HEAD", path).status_code == 200
    assert put(agent, content).status_code == 201
    assert (agent.folder / f"{digest}.onnx").read_bytes() == content


def test_an_upload_that_is_another_file(agent: AgentProcess) -> None:
    answer = agent.request("PUT", f"/v1/artifacts/{SHA}?format=onnx", content=b"other")
    assert answer.status_code == 422
    assert f"expected a file with SHA-256 {SHA}, got " in answer.json()["error"]
    assert not [name for name in agent.files() if SHA in name]
    agent.assert_well()


def test_an_upload_that_breaks_off(agent: AgentProcess) -> None:
    with socket.create_connection(("127.0.0.1", agent.port), timeout=30) as raw:
        raw.sendall(
            f"PUT /v1/artifacts/{SHA}?format=onnx HTTP/1.1\r\nHost: agent\r\n"
            f"Authorization: Bearer {agent.token}\r\nContent-Length: 900000\r\n\r\n".encode()
            + b"x" * 500_000
        )
        until(lambda: [name for name in agent.files() if ".part" in name])
    agent.assert_well()
    assert not [name for name in agent.files() if SHA in name]
    # The room it had asked for is free again.
    for number in range(3):
        assert put(agent, bytes([number]) * 900_000).status_code == 201


def test_an_upload_that_is_too_large(agent: AgentProcess, tmp_path: Path) -> None:
    with socket.create_connection(("127.0.0.1", agent.port), timeout=30) as raw:
        raw.sendall(
            f"PUT /v1/artifacts/{SHA}?format=onnx HTTP/1.1\r\nHost: agent\r\n"
            f"Authorization: Bearer {agent.token}\r\nContent-Length: 2000000\r\n\r\n".encode()
        )
        answer = raw.recv(1000).decode()
    assert answer.startswith("HTTP/1.1 413 ")
    large = linear(tmp_path / "large.onnx", outputs=40_000)
    with pytest.raises(MeasurementError, match=r"at most 1 MiB, got 2\.4\d* MiB; .*--longest"):
        agent.device().run(large, {"input": X}, **ORT, batch_size=4)
    agent.assert_well()


@pytest.mark.parametrize(
    "name",
    [
        "..%2F..%2Ftoken", "../../token", "..", "%2Fetc%2Fpasswd", "a" * 63, "A" * 64, "a" * 65,
        SHA + "%00", SHA + "%0A", "%2e%2e%2f" + SHA, SHA[:-3] + "%2Fx",
    ],
)  # fmt: skip
def test_a_name_that_is_no_digest(name: str, agent: AgentProcess) -> None:
    before = {path for path in agent.home.rglob("*") if ".lock" not in path.name}
    for kind in ("artifacts", "feeds", "..", "%2e%2e"):
        for method in ("HEAD", "PUT"):
            with socket.create_connection(("127.0.0.1", agent.port), timeout=30) as raw:
                raw.sendall(
                    f"{method} /v1/{kind}/{name}?format=onnx HTTP/1.1\r\nHost: agent\r\n"
                    f"Authorization: Bearer {agent.token}\r\nContent-Length: 7\r\n"
                    "Connection: close\r\n\r\ncontent".encode()
                )
                assert raw.recv(100).split()[1] in {b"400", b"404", b"415", b"422"}
    assert {path for path in agent.home.rglob("*") if ".lock" not in path.name} == before
    agent.assert_well()


@pytest.mark.parametrize("format_", ["pt2", "ep", "so", "py", "..%2Fx", "", "onnx%2F..%2Fx"])
def test_a_format_that_is_not_taken(format_: str, agent: AgentProcess) -> None:
    answer = agent.request("PUT", f"/v1/artifacts/{SHA}?format={format_}", content=b"content")
    assert answer.status_code == 415
    expected = "may bring code" if format_ in {"pt2", "ep"} else "no runtime reads it"
    assert expected in answer.json()["error"]
    agent.assert_well()


def test_inputs_that_are_none(agent: AgentProcess) -> None:
    for content in (b"", b"P", b"garbage"):
        digest = hashlib.sha256(content).hexdigest()
        answer = agent.request("PUT", f"/v1/feeds/{digest}", content=content)
        assert answer.status_code == 422
        assert answer.json()["error"] == "expected inputs as an .npz file"
    agent.assert_well()


@pytest.mark.parametrize(
    ("change", "status", "reason"),
    [
        ({"runtime": "none"}, 400, "expected a runtime of onnxruntime"),
        ({"runtime": 7}, 422, "runtime"),
        ({"threads": 0}, 422, "threads"),
        ({"threads": 4096}, 400, "expected at most"),
        ({"timeout": 1e9}, 400, "expected a timeout of at most 600 s"),
        ({"timeout": "NaN"}, 422, "timeout"),
        ({"timeout": -1}, 422, "timeout"),
        ({"artifact": "../../token"}, 422, "artifact"),
        ({"artifact": SHA + "\n"}, 422, "artifact"),
        ({"batch_size": 0}, 422, "batch_size"),
        ({"folder": "/etc"}, 422, "folder"),
    ],
)
def test_a_measurement_that_makes_no_sense(
    change: dict[str, Any], status: int, reason: str, agent: AgentProcess
) -> None:
    answer = agent.request("POST", "/v1/run", json=ask(**change))
    assert answer.status_code == status, answer.text
    assert reason in answer.json()["error"]
    agent.assert_well()


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b"null", b"\xff\xfe", b"[" * 100_000])
def test_a_measurement_that_is_no_json(body: bytes, agent: AgentProcess) -> None:
    answer = agent.request("POST", "/v1/time", content=body)
    assert answer.status_code in {400, 422}
    assert answer.json()["error"]
    agent.assert_well()


def test_a_measurement_of_a_file_that_is_not_there(agent: AgentProcess) -> None:
    answer = agent.request("POST", "/v1/run", json=ask(artifact="0" * 64, feeds="1" * 64))
    assert answer.json() == {"missing": ["0" * 64 + ".onnx", "1" * 64 + ".npz"]}


def test_inputs_under_names_that_are_not_the_models(agent: AgentProcess) -> None:
    file = io.BytesIO()
    np.savez(file, X)
    feeds = hashlib.sha256(file.getvalue()).hexdigest()
    assert agent.request("PUT", f"/v1/feeds/{feeds}", content=file.getvalue()).status_code == 201
    model = linear(agent.home / "model.onnx").read_bytes()
    assert put(agent, model).status_code == 201
    digest = hashlib.sha256(model).hexdigest()
    for names in (["other"], ["input", "more"], []):
        body = ask(artifact=digest, feeds=feeds, names=names)
        answer = agent.request("POST", "/v1/run", json=body).text.splitlines()[-1]
        assert answer.startswith('{"error": '), answer
    agent.assert_well()


def test_the_longest_unused_files_go_first(agent: AgentProcess) -> None:
    contents = [bytes([number]) * 600_000 for number in (10, 11, 12)]
    names = [hashlib.sha256(content).hexdigest() + ".onnx" for content in contents]
    for content in contents:
        assert put(agent, content).status_code == 201
    assert set(names) <= agent.files()
    used = f"/v1/artifacts/{names[0].removesuffix('.onnx')}?format=onnx"
    assert agent.request("HEAD", used).status_code == 200
    assert put(agent, bytes([13]) * 600_000).status_code == 201
    assert {names[0], names[2]} <= agent.files()
    assert names[1] not in agent.files()
    assert sum((agent.folder / name).stat().st_size for name in agent.files()) <= 2 << 20


def test_a_file_that_someone_removed_is_asked_for_again(
    agent: AgentProcess, tmp_path: Path
) -> None:
    model = linear(tmp_path / "model.onnx")
    for _ in range(2):
        (output,) = agent.device().run(model, {"input": X}, **ORT, batch_size=4)
        assert output.shape == (23, 8)
        for name in agent.files():
            (agent.folder / name).unlink()


def test_a_quota_too_small_for_one_measurement(tmp_path: Path) -> None:
    small = AgentProcess(tmp_path / "small", "--disk", "40K")
    first, second = (linear(tmp_path / f"{n}.onnx", outputs=500, seed=n) for n in (0, 1))
    with pytest.raises(MeasurementError, match=r"cannot keep the files .* more with --disk"):
        small.device().time(first, second, {"input": X[:1]}, **ORT, effort=Effort(20, 0.5, 0.1))
    large = linear(tmp_path / "large.onnx", outputs=1000)
    with pytest.raises(MeasurementError, match=r"may keep 40 KiB, .* its --disk sets the limit"):
        small.device().run(large, {"input": X}, **ORT, batch_size=4)
    small.assert_well()
    small.stop()


def test_a_disk_that_is_full(tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(disk)],
        capture_output=True,
        check=False,
    )
    if mounted.returncode != 0:
        pytest.skip("mounting a file system is not permitted")
    try:
        full = AgentProcess(tmp_path / "full", folder=disk / "files")
        fits = linear(tmp_path / "fits.onnx", outputs=9_000)
        large = linear(tmp_path / "large.onnx", outputs=40_000)
        device = full.device()
        (output,) = device.run(fits, {"input": X[:4]}, **ORT, batch_size=4)
        assert output.shape == (4, 9_000)
        with pytest.raises(MeasurementError, match="no space left on the agent's disk for 2.4"):
            device.run(large, {"input": X}, **ORT, batch_size=4)
        with pytest.raises(MeasurementError, match="outputs cannot be written: .*No space left"):
            device.run(fits, {"input": X}, **ORT, batch_size=4)  # 828 KB of outputs
        other = linear(tmp_path / "other.onnx", outputs=9_000, seed=1)
        (output,) = device.run(other, {"input": X[:4]}, **ORT, batch_size=4)  # makes room
        full.assert_well()
        full.stop()
    finally:
        subprocess.run(["umount", str(disk)], check=True)


@pytest.mark.skipif(shutil.which("bash") is None, reason="needs bash")
def test_a_disk_that_fails_in_the_middle_of_an_upload(tmp_path: Path) -> None:
    limited = ("bash", "-c", 'ulimit -f 100; exec "$@"', "limited")
    failing = AgentProcess(tmp_path / "failing", before=limited)
    large = linear(tmp_path / "large.onnx", outputs=40_000)
    with pytest.raises(MeasurementError, match="could not keep the file: File too large"):
        failing.device().run(large, {"input": X}, **ORT, batch_size=4)
    small = linear(tmp_path / "small.onnx", outputs=100)
    (output,) = failing.device().run(small, {"input": X}, **ORT, batch_size=4)
    assert output.shape == (23, 100)
    failing.assert_well()
    failing.stop()
