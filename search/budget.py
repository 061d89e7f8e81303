"""How much a search may spend, and how much it has spent."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from parefront.search.entry import Entry
from parefront.search.records import Status


def searched_seconds(entries: Sequence[Entry], now: datetime) -> float:
    """Seconds during which at least one trial ran; pauses between launches do not count.

    Args:
        entries: All trials of the study.
        now: End of the trials that are still running.
    """
    spans = sorted(
        (entry.trial.datetime_start, entry.trial.datetime_complete or now)
        for entry in entries
        if entry.trial.datetime_start is not None
    )
    total, reached = 0.0, None
    for start, end in spans:
        begin = start if reached is None else max(start, reached)
        total += max((end - begin).total_seconds(), 0.0)
        reached = end if reached is None else max(reached, end)
    return total


@dataclass(frozen=True)
class Budget:
    """What a study may spend in all.

    Attributes:
        trials: Trials that count, or `None` for no limit.
        seconds: Seconds of search, or `None` for no limit.
    """

    trials: int | None = None
    seconds: float | None = None

    def spent(self, entries: Sequence[Entry], now: datetime) -> str | None:
        """Why no further trial may begin, or `None` if one may.

        Trials under way count, whoever runs them. A trial that is likely to end after the time is
        over does not begin.
        """
        taken = sum(entry.counts or entry.status == Status.RUNNING for entry in entries)
        if self.trials is not None and taken >= self.trials:
            return f"{self.trials} trials are done"
        if self.seconds is not None:
            left = self.seconds - searched_seconds(entries, now)
            if left <= 0 or left < _typical(entries):
                return f"the time of {describe(self.seconds)} is spent"
        return None

    def trials_left(self, entries: Sequence[Entry], now: datetime) -> int | None:
        """About how many further trials the budget allows; `None` if nothing tells."""
        taken = sum(entry.counts or entry.status == Status.RUNNING for entry in entries)
        limits = [] if self.trials is None else [self.trials - taken]
        typical = _typical(entries)
        if self.seconds is not None and typical > 0:
            limits.append(int((self.seconds - searched_seconds(entries, now)) / typical))
        return max(0, min(limits)) if limits else None

    def __str__(self) -> str:
        parts = []
        if self.trials is not None:
            parts.append(f"{self.trials} trials")
        if self.seconds is not None:
            parts.append(describe(self.seconds))
        return " or ".join(parts) or "no limit"


def describe(seconds: float) -> str:
    """A duration in words.

    Example:
        >>> describe(5400)
        '1h 30m'
    """
    whole = round(seconds)
    parts = [(whole // 3600, "h"), (whole % 3600 // 60, "m"), (whole % 60, "s")]
    return " ".join(f"{number}{unit}" for number, unit in parts if number) or "0s"


def _typical(entries: Sequence[Entry]) -> float:
    """Median seconds of a trial that was measured; 0 while too few were to tell."""
    durations = [
        (entry.trial.datetime_complete - entry.trial.datetime_start).total_seconds()
        for entry in entries
        if entry.status == Status.COMPLETE
        and entry.trial.datetime_start is not None
        and entry.trial.datetime_complete is not None
    ]
    return statistics.median(durations) if len(durations) >= 5 else 0.0
