"""What a measuring process may take, so that a hostile or broken model ends itself alone."""

from __future__ import annotations

import contextlib
import os
import resource
import signal
from dataclasses import dataclass
from pathlib import Path

_PR_SET_NO_NEW_PRIVS = 38
_LIBRARIES = 2 << 30
"""Address space beside the memory: code and mapped files, which take no memory of their own."""


@dataclass(frozen=True)
class Limits:
    """What a measuring process may take.

    Attributes:
        memory_bytes: Memory it may write to.
        file_bytes: Length of any file it writes.
    """

    memory_bytes: int
    file_bytes: int


def half_of_memory() -> int:
    """Bytes of half the memory built into this machine."""
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 2


def confine(limits: Limits, seconds: int) -> None:
    """Limits this process for the rest of its life.

    An allocation beyond the memory fails in it, and when the whole machine runs out of memory,
    it is this process that the kernel ends. It leaves no core dump and gains no privileges.

    Args:
        limits: What it may take.
        seconds: Wall-clock time after which the kernel kills it, even if nobody else does.
    """
    import ctypes

    _lower(resource.RLIMIT_CORE, 0)
    _lower(resource.RLIMIT_FSIZE, limits.file_bytes)
    _lower(resource.RLIMIT_DATA, limits.memory_bytes)
    # Shared memory is no data to the kernel, but it is address space.
    _lower(resource.RLIMIT_AS, limits.memory_bytes + _LIBRARIES)
    # Not RLIMIT_CPU: under it Linux reads the CPU time of a process from a sum that is brought up
    # to date only at ticks, too coarse to time by. On pinned cores, wall-clock time bounds both.
    signal.alarm(seconds)
    ctypes.CDLL(None).prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
    with contextlib.suppress(OSError):  # /proc may be hidden
        Path("/proc/self/oom_score_adj").write_text("1000")


def _lower(kind: int, limit: int) -> None:
    """Sets a limit, or keeps the lower one there is."""
    hard = resource.getrlimit(kind)[1]
    low = limit if hard == resource.RLIM_INFINITY else min(limit, hard)
    resource.setrlimit(kind, (low, low))
