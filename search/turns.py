"""Turns of the launches of one study, which share a lock."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from filelock import FileLock, Timeout

from parefront.search.pipeline import Interrupted

_SHORT = 2.0
"""Seconds of waiting that are not worth a word."""


@contextmanager
def turn(
    lock: FileLock, stopped: Callable[[], bool], phase: Callable[[str], None]
) -> Iterator[None]:
    """Holds a lock that another launch may hold for long, as while it trains the baseline.

    Args:
        lock: The lock.
        stopped: Whether to give up waiting.
        phase: Told that this launch waits.

    Raises:
        Interrupted: If it was given up.
    """
    try:
        lock.acquire(timeout=_SHORT, cancel_check=stopped)
    except Timeout:
        try:
            if not stopped():
                phase("waiting for another launch of this study")
            lock.acquire(cancel_check=stopped)
        except Timeout:
            raise Interrupted from None
    try:
        yield
    finally:
        lock.release()
