"""The processes that measure, as they are on this machine."""

from __future__ import annotations

import psutil

WORKER = "parefront.objectives.targets.worker"
"""What a process that measures runs."""


def workers_of(process: psutil.Process) -> list[psutil.Process]:
    """Measuring processes that a process has started, itself or by others."""
    found = []
    for child in process.children(recursive=True):
        try:
            if WORKER in child.cmdline() and child.status() != psutil.STATUS_ZOMBIE:
                found.append(child)
        except psutil.NoSuchProcess:
            continue
    return found
