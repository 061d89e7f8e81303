"""How the devices of a study are found on the nodes of a Ray, and what is said if they are not."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import parefront as pf
from parefront.errors import (
    AgentError,
    DeviceAwayError,
    EngineError,
    TokenError,
)
from parefront.objectives.targets.device import Device
from parefront.objectives.targets.fixed import FixedDevice
from parefront.objectives.targets.target import Target
from parefront.search.budget import Budget
from parefront.search.engines.inline import InlineEngine
from parefront.search.launch import Silent, Stop
from parefront.search.plan import Plan
from parefront.search.run import run
from tests.objectives.agent.models import ORT, X, weights
from tests.objectives.agent.process import AgentProcess
from tests.tiny import make

ray = pytest.importorskip("ray")

from parefront.search.engines.ray.devices import (  # noqa: E402
    open_devices,
    own_resources,
    own_split,
    training_cores,
)
from parefront.search.engines.ray.measuring import MeasuringDevice  # noqa: E402
from tests.search.engines.measuring.actors import MARKS, affinity  # noqa: E402

pytestmark = MARKS

BATCH = {"input": X[:1]}


def test_a_device_that_no_node_has_is_said_before_the_search(cluster: Path) -> None:
    with pytest.raises(
        EngineError,
        match=r"no node has the resource device:pi; start it with: ray start "
        r"""--address=[\d.:]+ --resources='{"device:pi": 1}'$""",
    ):
        open_devices({None: Target(), "pi": Target(patience=0)})


def test_a_node_with_another_version_is_refused(
    cluster: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("parefront.search.engines.ray.devices.VERSION", "0.0.1")
    with pytest.raises(EngineError, match=r"device:main has parefront .*, the launch 0\.0\.1;"):
        open_devices({None: Target()})


def test_an_actor_that_cannot_be_made_says_why(
    cluster: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Unmade:
        def __init__(self, target: Target) -> None:
            raise RuntimeError("no room on this node")

        def node(self) -> None: ...

    monkeypatch.setattr("parefront.search.engines.ray.devices.Measurer", Unmade)
    with pytest.raises(EngineError, match=r"measured on device:main: .*no room on this node"):
        open_devices({None: Target()})


def test_an_agent_is_asked_by_its_actor(cluster: Path, model: Path, tmp_path: Path) -> None:
    agent = AgentProcess(tmp_path / "agent")
    try:
        reached: dict[str, Any] = {"device": agent.url, "token_file": agent.token_file}
        found = open_devices({None: Target(), "pi": Target(**reached, patience=1)})
        device = found["pi"]
        assert isinstance(device, MeasuringDevice)
        assert device.threads == 0
        (output,) = device.run(model, {"input": X}, **ORT, batch_size=7)
        np.testing.assert_allclose(output, X @ weights(8), rtol=1e-4, atol=1e-5)  # type: ignore[arg-type]
        agent.assert_well()
        with pytest.raises(AgentError, match="expected at most"):
            device.fingerprint("onnxruntime", 4096)
        agent.kill()
        with pytest.raises(DeviceAwayError, match="the agent at .* did not answer for 1 s"):
            device.reference_ms(model, BATCH, **ORT)
        agent.start()
        assert device.reference_ms(model, BATCH, **ORT, runs=20, sessions=1) > 0
        wrong = tmp_path / "wrong"
        wrong.write_text("not-the-token-but-long-enough")
        wrong.chmod(0o600)
        (refused,) = open_devices({"pi": Target(**reached | {"token_file": wrong})}).values()
        with pytest.raises(TokenError):
            refused.fingerprint("onnxruntime", 1)
    finally:
        if agent.process.poll() is None:
            agent.stop()


def test_what_times_nothing_needs_no_actor(cluster: Path) -> None:
    targets: dict[str | None, Target] = {None: Target(protocol="fixed")}
    assert isinstance(open_devices(targets)[None], FixedDevice)
    assert own_resources(targets) == {}
    assert not own_split(targets).measuring


def test_who_trains_and_what_measures_use_different_cores(device: MeasuringDevice) -> None:
    def pinned(device: MeasuringDevice) -> tuple[list[int], list[int]]:
        from parefront.search.engines.ray.cores import own_cores, pin

        for _ in range(2):  # what a worker was given does not shrink
            pin(training_cores([device]))
        return list(own_cores()), affinity()

    cores, training = ray.get(ray.remote(num_cpus=1)(pinned).remote(device))
    assert cores == sorted(os.sched_getaffinity(0))
    (measuring_on,) = ray.get(device.actor.__ray_call__.remote(lambda _: affinity()))
    assert measuring_on == cores[-1]
    assert training == (cores[:-1] or cores)
    assert own_resources({None: Target(), "pi": Target()}) == {"device:main": 1, "device:pi": 1}
    assert own_split({None: Target()}).training == tuple(training)


def test_a_search_measures_with_actors(cluster: Path, tmp_path: Path) -> None:
    quick = {"runs": 20, "seconds": 0.2}
    study = pf.Study(
        make(),
        name="tiny",
        target=quick,
        space={"prune": {"ratio": [0.1, 0.6]}, "recover": {"epochs": 1}},
        settle=0.1,
        storage=f"sqlite:///{tmp_path}/studies.db",
    )
    plan = Plan(
        settings=study.settings,
        url=study.storage,
        task=make(),
        base=None,
        budget=Budget(trials=4),
    )

    class Apart(InlineEngine):
        def device(self, name: str | None, target: Target) -> Device:
            return open_devices({name: target})[name]

    stop = Stop()
    with Apart(plan, stop) as engine:
        run(plan, engine, Silent(), stop)
    assert study.frame()["state"].tolist() == ["complete"] * 4
    assert len(study.front()) >= 1


def test_the_process_on_the_node_of_a_device_does_not_import_torch() -> None:
    program = (
        "import sys, json\n"
        "import parefront.search.engines.ray.measurer\n"
        "print(json.dumps([name for name in ('torch', 'optuna', 'pandas', 'onnx') if name in "
        "sys.modules]))"
    )
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", program],
        capture_output=True,
        text=True,
        check=True,
    )
    assert json.loads(done.stdout) == []
