"""What a launch is told, and what it tells: a request to end, and its progress."""

from __future__ import annotations

import threading
from typing import Protocol

from parefront.search.records import Outcome
from parefront.spaces.space import Candidate


class Progress(Protocol):
    """Told what a launch does, for a display."""

    def phase(self, text: str) -> None:
        """The launch began something that takes a while, such as training the baseline."""
        ...

    def began(self, trial: int, candidate: Candidate) -> None:
        """A trial began."""
        ...

    def ended(self, trial: int, outcome: Outcome) -> None:
        """A trial ended, and its outcome is in the storage."""
        ...

    def outlook(self, share: float, trials: int) -> None:
        """Further trials are expected to add this share of the front's hypervolume."""
        ...


class Silent:
    """Shows nothing."""

    def phase(self, text: str) -> None:
        """Ignored."""

    def began(self, trial: int, candidate: Candidate) -> None:
        """Ignored."""

    def ended(self, trial: int, outcome: Outcome) -> None:
        """Ignored."""

    def outlook(self, share: float, trials: int) -> None:
        """Ignored."""


class Stop:
    """A request to end a launch, which may come from another thread or a signal handler."""

    def __init__(self) -> None:
        self._soon = threading.Event()
        self._now = threading.Event()

    def request(self, *, now: bool = False) -> None:
        """Ends the launch after the trial under way, or with `now` in the middle of it."""
        self._soon.set()
        if now:
            self._now.set()

    @property
    def requested(self) -> bool:
        """Whether the launch is to end."""
        return self._soon.is_set()

    @property
    def requested_now(self) -> bool:
        """Whether the trial under way is to be given up."""
        return self._now.is_set()
