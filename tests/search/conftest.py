"""What several tests of the search use."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from parefront.spaces.distillation import recovery


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
