"""Devices on the Ray of the tests, and the processes that measure for them."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import psutil
import ray

from parefront.objectives.targets.target import Target
from parefront.search.engines.ray.devices import open_devices
from parefront.search.engines.ray.measuring import MeasuringDevice

WORKER = "parefront.objectives.targets.worker"


def opened(**options: Any) -> MeasuringDevice:
    device = open_devices({None: Target(**options)})[None]
    assert isinstance(device, MeasuringDevice)
    return device


def actor_of(device: MeasuringDevice) -> psutil.Process:
    """The process of a device's actor."""
    pid = ray.get(device.actor.__ray_call__.remote(lambda _: os.getpid()))
    return psutil.Process(pid)


def workers(actor: psutil.Process) -> list[psutil.Process]:
    """Measuring processes that an actor has started."""
    found = []
    for child in actor.children(recursive=True):
        try:
            if WORKER in child.cmdline() and child.status() != psutil.STATUS_ZOMBIE:
                found.append(child)
        except psutil.NoSuchProcess:
            continue
    return found


def measures(process: psutil.Process) -> bool:
    """Whether an actor has a measurement under way."""
    try:
        return "Measurer" in " ".join(process.cmdline()) and bool(workers(process))
    except psutil.NoSuchProcess:
        return False


def affinity() -> list[int]:
    """Cores on which any thread of this process may run."""
    tasks = Path("/proc/self/task").iterdir()
    return sorted(set().union(*(os.sched_getaffinity(int(task.name)) for task in tasks)))
