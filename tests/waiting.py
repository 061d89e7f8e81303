"""Waiting for what other threads and processes do."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

SECONDS = 120.0
"""Long enough for the busiest machine; reached only by what will not happen."""


def until(true: Callable[[], Any], seconds: float = SECONDS) -> Any:
    """The first true answer."""
    end = time.monotonic() + seconds
    while not (answer := true()):
        assert time.monotonic() < end, f"{true} did not come true"
        time.sleep(0.01)
    return answer
