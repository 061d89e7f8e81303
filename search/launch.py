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
    """A request to end a launch, which may come from another thread or a signal handler.

    Whatever works on a launch asks between short steps whether to end, and so shows that it goes
    on to whoever watches it; what takes longer calls `attend` meanwhile.
    """

    def __init__(self) -> None:
        self._soon = threading.Event()
        self._now = threading.Event()

    def request(self, *, now: bool = False) -> None:
        """Ends the launch after the trial under way, or with `now` in the middle of it."""
        self._soon.set()
        if now:
            self._now.set()

    def attend(self) -> None:
        """Shows that the launch goes on; nobody watches one that is told with this very object."""

    def wait(self, seconds: float) -> bool:
        """Waits for the request to end for some seconds; whether it came."""
        return self._soon.wait(seconds)

    @property
    def requested(self) -> bool:
        """Whether the launch is to end."""
        return self._soon.is_set()

    @property
    def requested_now(self) -> bool:
        """Whether the trial under way is to be given up."""
        return self._now.is_set()
