"""The devices of a search on Ray: an actor for each target, where its device is."""

from __future__ import annotations

import json
import time
from collections.abc import Iterable, Mapping
from typing import Any

import ray
from ray.exceptions import RayError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from parefront.errors import EngineError
from parefront.objectives.targets.agent.protocol import VERSION
from parefront.objectives.targets.device import Device
from parefront.objectives.targets.target import Target
from parefront.search.engines.ray.cores import Split, own_cores, split
from parefront.search.engines.ray.measurer import Measurer
from parefront.search.engines.ray.measuring import MeasuringDevice, reason
from parefront.search.launch import Stop
from parefront.search.pipeline import Interrupted

_MAIN = "main"
_SHARE = 0.001
"""What an actor takes of its device's resource: other launches measure there too, in turn."""
_POLL = 0.5
_START_SECONDS = 60.0
"""Seconds that the process of an actor may take to start."""


def resource_of(name: str | None) -> str:
    """The Ray resource of the nodes that measure for a target, `None` for the main one."""
    return f"device:{name or _MAIN}"


def own_resources(targets: Mapping[str | None, Target]) -> dict[str, float]:
    """What a Ray that is started for a search on this machine alone has to declare."""
    return {resource_of(name): 1.0 for name, target in targets.items() if _timed_here(target)}


def own_split(targets: Mapping[str | None, Target]) -> Split:
    """The cores of this machine, if all that is not an agent's is measured here.

    As many as train are the CPUs that a Ray started here is told of.
    """
    threads = [target.threads for target in targets.values() if _timed_here(target)]
    return split(own_cores(), max(threads, default=0))


def training_cores(devices: Iterable[Device]) -> tuple[int, ...]:
    """The cores of this node that a worker may train on: all that no device measures on."""
    here = str(ray.get_runtime_context().get_node_id())
    mine = [each for each in devices if isinstance(each, MeasuringDevice) and each.node == here]
    return split(own_cores(), max((each.threads for each in mine), default=0)).training


def open_devices(
    targets: Mapping[str | None, Target], stop: Stop | None = None
) -> dict[str | None, Device]:
    """Starts an actor for each target that is measured; Ray is connected.

    One runs on a node that has the target's resource; an agent's anywhere such a node is not.
    They end with this process.

    Args:
        targets: The targets by name, the main one under `None`.
        stop: A request to end, which ends the waiting for nodes too.

    Raises:
        Interrupted: If a stop is requested.
        EngineError: If no node has the resource of a target, and none comes for as long as the
            target's patience lasts; or if nothing can be measured there.
    """
    actors = {
        name: _actor(name, target)
        for name, target in targets.items()
        if target.protocol != "fixed"  # nothing is timed, so nothing is apart
    }
    return {
        name: _device(name, target, actors[name], stop or Stop())
        if name in actors
        else target.open()
        for name, target in targets.items()
    }


def _there(resource: str) -> bool:
    """Whether a node of the cluster has a resource."""
    resources: Any = ray.cluster_resources()  # type: ignore[no-untyped-call]
    return bool(resources.get(resource))


def _timed_here(target: Target) -> bool:
    return target.protocol == "timed" and target.device is None


def _actor(name: str | None, target: Target) -> Any:  # noqa: ANN401 (Ray's handle)
    resource = resource_of(name)
    options: dict[str, Any] = {  # not all of them are known to Ray's own types
        "num_cpus": 0,
        "max_restarts": -1,
        "max_task_retries": 0,
        "max_concurrency": 1,
        "concurrency_groups": {"files": 1},
    }
    kind: Any = ray.remote(**options)(Measurer)
    if target.device is not None and not _there(resource):
        # Here, where the token of the agent is.
        node = ray.get_runtime_context().get_node_id()
        here = NodeAffinitySchedulingStrategy(node, soft=False)
        return kind.options(scheduling_strategy=here).remote(target)
    return kind.options(resources={resource: _SHARE}).remote(target)


def _device(
    name: str | None,
    target: Target,
    actor: Any,  # noqa: ANN401 (Ray's handle)
    stop: Stop,
) -> MeasuringDevice:
    resource = resource_of(name)
    end = time.monotonic() + target.patience
    # The actor is asked for already, so that a cluster that grows by itself grows.
    while target.device is None and not _there(resource):
        if time.monotonic() >= end:
            address = ray.get_runtime_context().gcs_address
            raise EngineError(
                f"no node has the resource {resource}; start it with: ray start "
                f"--address={address} --resources='{json.dumps({resource: 1})}'"
            )
        if stop.requested:
            raise Interrupted
        time.sleep(_POLL)
    try:
        asked, end = actor.node.remote(), time.monotonic() + max(_START_SECONDS, target.patience)
        while not ray.wait([asked], timeout=_POLL)[0]:
            if stop.requested:
                raise Interrupted
            if time.monotonic() >= end:
                raise EngineError(f"the node with {resource} starts no process that measures")
        node, version = ray.get(asked)
    except RayError as error:
        raise EngineError(f"nothing can be measured on {resource}: {reason(error)}") from error
    if version != VERSION:
        raise EngineError(
            f"the node with {resource} has parefront {version}, the launch {VERSION}; install the "
            "same on both: a measurement means the same only where it is made in the same way"
        )
    threads = target.threads if target.device is None else 0
    return MeasuringDevice(name or _MAIN, actor, target.patience, node, threads)
