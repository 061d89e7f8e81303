"""Turns of the launches of one study, which share a lock."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from parefront.search.locks import Lock
from parefront.search.pipeline import Interrupted

_SHORT = 2.0
"""Seconds of waiting that are not worth a word."""
_PAUSES = (0.05, 0.5)
"""Seconds between asking, at first and when the wait is long."""


@contextmanager
def turn(lock: Lock, stopped: Callable[[], bool], phase: Callable[[str], None]) -> Iterator[None]:
    """Holds a lock that another launch may hold for long, as while it trains the baseline.

    Args:
        lock: The lock.
        stopped: Whether to give up waiting.
        phase: Told that this launch waits.

    Raises:
        Interrupted: If it was given up.
        StorageError: If whoever keeps the lock cannot be asked.
    """
    began, said = time.monotonic(), False
    try:
        while not lock.take():
            if stopped():
                raise Interrupted
            if not said and time.monotonic() - began > _SHORT:
                phase("waiting for another launch of this study")
                said = True
            time.sleep(_PAUSES[said])
        yield
    finally:
        lock.release()
