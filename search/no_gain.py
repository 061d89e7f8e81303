"""Ends a search when the rest of its budget is expected to add too little."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime

from parefront.search.budget import Budget
from parefront.search.entry import Entry

UNLIMITED = 50
"""Further trials that are looked at when there is no other limit, and at most."""


@dataclass(frozen=True)
class NoGain:
    """The rule `no_gain` of a study.

    Attributes:
        rest: Hypervolume that so many further trials are expected to add, as a share of the
            front's; `None` while too little is known.
        budget: What the study may spend.
        least: The share below which it ends.
        told: Told each estimate, and for how many trials it is.
    """

    rest: Callable[[int], float | None]
    budget: Budget
    least: float
    told: Callable[[float, int], None]

    def __call__(self, entries: Sequence[Entry]) -> str | None:
        """Why to end, or `None` to go on."""
        left = self.budget.trials_left(entries, datetime.now())
        trials = UNLIMITED if left is None else max(1, min(left, UNLIMITED))
        expected = self.rest(trials)
        if expected is None:
            return None
        self.told(expected, trials)
        if expected >= self.least:
            return None
        return (
            f"{trials} further trials are expected to add {expected:.2%} to the hypervolume, less "
            f"than no_gain = {self.least:g}"
        )
