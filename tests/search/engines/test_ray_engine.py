"""What the engine `ray` does before its first trial, without Ray."""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from torch import nn

from parefront.errors import EngineError
from parefront.objectives.measurement import Direction
from parefront.objectives.targets.target import Target
from parefront.search import attended as attended_module
from parefront.search.attended import attended
from parefront.search.budget import Budget
from parefront.search.desk import Desk
from parefront.search.launch import Silent, Stop
from parefront.search.opened import OpenedStudy
from parefront.search.pipeline import Interrupted
from parefront.search.plan import Plan
from parefront.search.run import driven
from parefront.search.storage import home_of, without_secrets
from parefront.search.study_file import StudyFile
from parefront.search.study_record import StudyRecord

pytest.importorskip("ray")

from ray._private import ray_constants

from parefront.search.engines.ray import devices
from parefront.search.engines.ray.cluster import Cluster
from parefront.search.engines.ray.engine import RayEngine
from parefront.search.engines.ray.job import Job


class Counting(Stop):
    """Counts signs of life; it is requested after some."""

    def __init__(self, after: int) -> None:
        super().__init__()
        self.signs = 0
        self._after = after

    def attend(self) -> None:
        self.signs += 1

    @property
    def requested(self) -> bool:
        self.attend()
        return self.signs > self._after


def plan(folder: Path, engine: dict[str, Any], **study: Any) -> Plan:
    content = {
        "study": {"name": "x", "task": "t.py:task"} | study,
        "engine": {"name": "ray"} | engine,
    }
    url = f"sqlite:///{folder}/s.db"
    return Plan(settings=StudyFile.of(content), url=url, task=None, base=folder, budget=Budget())


@pytest.fixture
def empty(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """A cluster without a node, and what was done with it."""
    did: list[str] = []
    monkeypatch.setattr(Cluster, "open", lambda self: did.append("open"))
    monkeypatch.setattr(Cluster, "close", lambda self: did.append("close"))
    monkeypatch.setattr(devices, "_actor", lambda name, target: None)
    monkeypatch.setattr(devices, "_there", lambda resource: False)
    monkeypatch.setattr(devices, "_POLL", 0.0)
    return did


@pytest.mark.parametrize("engine", [{"workers": 2}, {}, {"address": "auto"}])
def test_what_no_node_can_have_is_said(
    tmp_path: Path, empty: list[str], engine: dict[str, Any]
) -> None:
    given = plan(tmp_path, engine | {"resources": {"big": 1.0}})
    with pytest.raises(EngineError, match="a trial needs CPU 1, big 1, and no node"):
        RayEngine(given, Stop()).__enter__()
    assert empty == ["open", "close"]


def test_a_launch_is_stopped_while_it_waits_for_a_device(tmp_path: Path, empty: list[str]) -> None:
    stop = Counting(after=3)
    given = plan(tmp_path, {"workers": 2, "address": "auto"})
    assert driven(given, Silent(), stop) == Desk.was_stopped
    assert stop.signs == 4
    assert empty == ["open", "close"]


def test_waiting_for_an_actor_gives_signs_of_life(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(devices, "_there", lambda resource: True)
    monkeypatch.setattr("ray.wait", lambda asked, timeout: ([], asked))

    class Actor:
        node = type("Method", (), {"remote": staticmethod(lambda: None)})

    monkeypatch.setattr(devices, "_actor", lambda name, target: Actor)
    stop = Counting(after=3)
    with pytest.raises(Interrupted):
        devices.open_devices({None: Target()}, stop)
    assert stop.signs == 4
    monkeypatch.setattr(devices, "_START_SECONDS", 0.0)
    with pytest.raises(EngineError, match="starts no process that measures"):
        devices.open_devices({None: Target(patience=0)})


def test_what_cannot_be_asked_is_attended(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(attended_module, "_EVERY", 0.001)
    stop = Counting(after=0)
    with attended(stop):
        while stop.signs < 3:
            time.sleep(0.001)


def test_a_cluster_that_is_over_leaves_rays_own_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(**options: object) -> None:
        assert not ray_constants.ENABLE_RAY_CLUSTER
        raise RuntimeError("of the test")

    monkeypatch.setattr(ray_constants, "ENABLE_RAY_CLUSTER", True)
    monkeypatch.setattr("ray.init", fail)
    with pytest.raises(EngineError, match="cannot be started here: of the test") as failed:
        Cluster(None, 1).open()
    assert ray_constants.ENABLE_RAY_CLUSTER
    assert not failed.value.again


@pytest.mark.parametrize(
    ("url", "kept"),
    [
        ("postgresql://me:secret@db:5/x?password=secret", "postgresql://db:5/x"),
        ("grpc://proxy:13000", "grpc://proxy:13000"),
        ("sqlite:///here/s.db", "sqlite:///here/s.db"),
        ("sqlite:////there/a b/s.db", "sqlite:////there/a b/s.db"),
    ],
)
def test_a_storage_without_secrets_has_the_same_home(url: str, kept: str) -> None:
    assert without_secrets(url) == kept
    assert home_of(kept) == home_of(url)


def test_a_worker_is_told_no_password(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    earlier = "old@postgresql://me:secret@db/x"
    given = replace(
        plan(tmp_path, {}, warm_start=[earlier]), url="postgresql://me:secret@db/studies"
    )
    record = StudyRecord(
        id="x", settings=given.settings, task_base=None, data_digest="", metric="accuracy",
        metric_direction=Direction.MAXIMIZE, left_out={}, channel_multiple=1, saturates=False,
        created_with="",
    )  # fmt: skip
    found = SimpleNamespace(record=record, baseline=object())
    monkeypatch.setattr(OpenedStudy, "find", lambda name, url: found)
    builder = SimpleNamespace(module=nn.Linear(1, 1), space=None, key="", cache=None)
    pipeline: Any = SimpleNamespace(builder=builder)
    packed = Job.of(given, pipeline, {}, None).packed()
    assert b"secret" not in packed
    told = Job.unpacked(packed)
    assert told.plan.url == "postgresql://db/studies"
    assert told.plan.settings.engine == given.settings.engine
