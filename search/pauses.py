"""Pauses of a launch whose device is away."""

from __future__ import annotations

import time
from dataclasses import dataclass

from parefront.search.records import Outcome

_FIRST, _LONGEST = 5.0, 300.0
_DAY = 24 * 3600.0


@dataclass
class Pauses:
    """When the next trial may begin, after trials that were given back for want of their device.

    The pauses grow from seconds to minutes, and end with the first trial that fares otherwise.

    Attributes:
        longest: Seconds after which a device that stays away is not waited for any more.
        reason: Why the last trial was given back; `None` while all is well.
    """

    longest: float = _DAY
    reason: str | None = None
    _since: float = 0.0
    _until: float = 0.0
    _length: float = _FIRST

    @property
    def left(self) -> float:
        """Seconds until a trial may begin; 0 if one may."""
        return max(0.0, self._until - time.monotonic()) if self.reason is not None else 0.0

    @property
    def too_long(self) -> bool:
        """Whether the device has been away for longer than it is waited for."""
        return self.reason is not None and time.monotonic() - self._since > self.longest

    def note(self, outcome: Outcome) -> None:
        """Takes note of how a trial ended."""
        if not outcome.device_away:
            self.reason, self._length = None, _FIRST
            return
        now = time.monotonic()
        if self.reason is None:
            self._since = now
        elif now < self._until:  # another trial that was under way when the device went
            return
        self.reason = outcome.reason
        self._until = now + self._length
        self._length = min(2 * self._length, _LONGEST)
