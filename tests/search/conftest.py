"""What several tests of the search use."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from uuid import uuid4

import fsspec
import pytest

from parefront.spaces.distillation import recovery

UNSET = ("AWS_PROFILE", "AWS_SESSION_TOKEN", "AWS_ENDPOINT_URL", "AWS_DEFAULT_REGION", "AWS_REGION")


@pytest.fixture(scope="session")
def s3_server() -> Iterator[str]:
    """A server of S3 on a port of its own."""
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()


@pytest.fixture
def bucket(s3_server: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The URL of a new bucket, which is found the way that a user's is: by the environment."""
    for key in (*(key for key in os.environ if key.startswith("FSSPEC_")), *UNSET):
        monkeypatch.delenv(key, raising=False)
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", s3_server)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "somebody")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "geheim-1234")
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    kind = fsspec.get_filesystem_class("s3")
    kind.clear_instance_cache()  # connections know where they were opened to
    name = f"bucket-{uuid4().hex}"
    fsspec.filesystem("s3").mkdir(name)
    yield f"s3://{name}"
    kind.clear_instance_cache()


@pytest.fixture
def trainings(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Notes every recovery training that really runs."""
    made: list[str] = []
    real = recovery.RecoveryTraining.apply

    def noted(self: Any, model: Any, config: Any, context: Any) -> Any:
        made.append("recover")
        return real(self, model, config, context)

    monkeypatch.setattr(recovery.RecoveryTraining, "apply", noted)
    return made


def free_port() -> int:
    """A port of this machine that nobody listens at."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@pytest.fixture(params=["sqlite", "postgresql", "grpc"])
def any_storage(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """URL of an empty storage of each kind."""
    file = f"sqlite:///{tmp_path}/studies.db"
    if request.param == "sqlite":
        yield file
    elif request.param == "postgresql":
        yield request.getfixturevalue("postgres")
    else:
        pytest.importorskip("grpc", reason="needs gRPC")
        from parefront.search.serve_storage import served

        with served(file, "127.0.0.1", free_port()) as url:
            yield url
