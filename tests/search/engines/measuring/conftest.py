"""A Ray with a device, in the process of the tests."""

from __future__ import annotations

import os
import secrets
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.objectives.agent.models import linear

if TYPE_CHECKING:
    from parefront.search.engines.ray.measuring import MeasuringDevice


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A Ray of its own, whose workers have folders and a measuring lock of their own."""
    ray = pytest.importorskip("ray")
    home = tmp_path_factory.mktemp("cluster")
    folder = tempfile.mkdtemp(prefix="pf-")  # sockets need a short path
    kept = {name: os.environ.get(name) for name in ("TMPDIR", "XDG_CACHE_HOME")}
    os.environ |= {"TMPDIR": str(home), "XDG_CACHE_HOME": str(home), "RAY_USAGE_STATS_ENABLED": "0"}
    os.environ.setdefault("RAY_AUTH_TOKEN", secrets.token_hex(32))  # read once in a process
    ray.init(
        num_cpus=1,
        resources={"device:main": 1},
        include_dashboard=False,
        log_to_driver=False,
        logging_level="error",
        _temp_dir=folder,
    )
    for name, value in kept.items():
        os.environ.pop(name) if value is None else os.environ.update({name: value})
    yield home
    ray.shutdown()
    shutil.rmtree(folder)


@pytest.fixture
def own_lock(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Measurements of other processes on this machine do not hold up the tests."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))


@pytest.fixture(scope="module")
def device(cluster: Path) -> MeasuringDevice:
    from tests.search.engines.measuring.actors import opened

    return opened()


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return linear(tmp_path / "model.onnx")
