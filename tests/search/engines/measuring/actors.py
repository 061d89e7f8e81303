"""Devices on the Ray of the tests, and the processes that measure for them."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import psutil
import pytest
import ray

from parefront.objectives.targets.target import Target
from parefront.search.engines.ray.devices import open_devices
from parefront.search.engines.ray.measuring import MeasuringDevice
from tests.workers import workers_of

MARKS = [
    pytest.mark.slow,
    pytest.mark.usefixtures("own_lock"),
    # Ray leaves open what its own processes read, and says so when it is collected.
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]
"""Of modules whose tests use the Ray of the tests."""


def opened(**options: Any) -> MeasuringDevice:
    device = open_devices({None: Target(**options)})[None]
    assert isinstance(device, MeasuringDevice)
    return device


def actor_of(device: MeasuringDevice) -> psutil.Process:
    """The process of a device's actor."""
    pid = ray.get(device.actor.__ray_call__.remote(lambda _: os.getpid()))
    return psutil.Process(pid)


def measures(process: psutil.Process) -> bool:
    """Whether an actor has a measurement under way."""
    try:
        return "Measurer" in " ".join(process.cmdline()) and bool(workers_of(process))
    except psutil.NoSuchProcess:
        return False


def affinity() -> list[int]:
    """Cores on which any thread of this process may run."""
    tasks = Path("/proc/self/task").iterdir()
    return sorted(set().union(*(os.sched_getaffinity(int(task.name)) for task in tasks)))
