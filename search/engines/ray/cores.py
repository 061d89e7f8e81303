"""Which cores of a machine train and which measure, so that neither takes from the other."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

_TASKS = Path("/proc/self/task")


@dataclass(frozen=True)
class Split:
    """The cores of a machine.

    Attributes:
        training: Cores that trials train on, at least one.
        measuring: Cores that artifacts run on, none where nothing is measured.
    """

    training: tuple[int, ...]
    measuring: tuple[int, ...]


def split(cores: Sequence[int], threads: int) -> Split:
    """Keeps the last cores for measuring, as many as a target has threads.

    Measurements run on the last cores that a process may use. One core is left for training
    whatever `threads` says; with too few cores, the two share.

    Args:
        cores: Cores there are, at least one.
        threads: Threads of what is measured on them; 0 if nothing is.

    Example:
        >>> split([0, 1, 2, 3], threads=1)
        Split(training=(0, 1, 2), measuring=(3,))
        >>> split([0], threads=1)
        Split(training=(0,), measuring=(0,))
    """
    ordered = sorted(cores)
    measuring = ordered[-threads:] if threads else []
    return Split(tuple(ordered[: max(1, len(ordered) - threads)]), tuple(measuring))


@cache
def own_cores() -> tuple[int, ...]:
    """The cores that this process was given, before it was first pinned to some of them."""
    return tuple(sorted(os.sched_getaffinity(0)))


def pin(cores: Sequence[int]) -> None:
    """Has all threads of this process, and what they start from now on, run on these cores."""
    own_cores()
    # The call moves a single thread, and a worker of Ray has threads before any of our code runs.
    for task in _TASKS.iterdir():
        try:
            os.sched_setaffinity(int(task.name), cores)
        except ProcessLookupError:  # it has just ended
            continue
