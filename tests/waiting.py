"""Waiting for what other threads and processes do."""

from __future__ import annotations

import time
from collections.abc import Callable

SECONDS = 120.0
"""Long enough for the busiest machine; reached only by what will not happen."""


def until(true: Callable[[], object]) -> None:
    """Waits until something is true."""
    end = time.monotonic() + SECONDS
    while not true():
        assert time.monotonic() < end, f"{true} did not come true"
        time.sleep(0.01)
