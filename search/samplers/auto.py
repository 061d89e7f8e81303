"""Picks a sampler by the size of the space, the budget and the cost of a trial."""

from __future__ import annotations

import math
from dataclasses import dataclass

_MANY_OBJECTIVES = 6
"""Most objectives for screening. Its exact hypervolumes grow exponentially: a proposal takes some
0.04 s with 3 objectives, 0.1 s with 6 and 1 s with 8 (`benchmarks.growth`)."""


@dataclass(frozen=True, kw_only=True)
class Situation:
    """What a sampler is picked by.

    Attributes:
        candidates: How many candidates the space has, infinite with a continuous parameter.
        parameters: How many parameters it has.
        objectives: How many objectives there are.
        trials: Trials in all, `None` without such a limit.
        seconds: Time in all, `None` without such a limit.
        trial_seconds: What a trial costs, `None` while it is not known.
    """

    candidates: float
    parameters: int
    objectives: int
    trials: int | None = None
    seconds: float | None = None
    trial_seconds: float | None = None

    @property
    def affordable(self) -> float:
        """How many trials the budget allows; infinite where nothing is known to limit them."""
        limits = [math.inf if self.trials is None else float(self.trials)]
        if self.seconds is not None and self.trial_seconds:
            limits.append(float(self.seconds // self.trial_seconds))
        return min(limits)


@dataclass(frozen=True)
class Choice:
    """A sampler that was picked.

    Attributes:
        name: Name of the sampler, as a study file has it.
        reason: Why, with the numbers it rests on; it follows the word "because".
    """

    name: str
    reason: str


def choose(situation: Situation) -> Choice:
    """Picks a sampler.

    What only a limit of time bounds, with trials of unknown cost, does not count as small enough to
    search through.

    Example:
        >>> choose(Situation(candidates=48, parameters=3, objectives=3, trials=200)).name
        'random'
    """
    candidates, objectives = situation.candidates, situation.objectives
    affordable = situation.affordable
    if candidates <= affordable and math.isfinite(affordable):
        return Choice(
            "random",
            f"the space has {_count(candidates)} and the budget allows {affordable:,.0f} trials: "
            "without repetition they try all of it",
        )
    if objectives > _MANY_OBJECTIVES:
        return Choice(
            "nsga3",
            f"there are {objectives} objectives: screening computes hypervolumes, which takes too "
            f"long with more than {_MANY_OBJECTIVES}",
        )
    cost = situation.trial_seconds
    takes = "trials train, as far as is known" if cost is None else f"a trial takes {cost:.2g} s"
    return Choice(
        "screening",
        f"{takes}, the space has {_count(candidates)} of {situation.parameters} parameters and "
        f"there are {objectives} objectives: it pays to look at many before trying one",
    )


def _count(candidates: float) -> str:
    if math.isinf(candidates):
        return "infinitely many candidates"
    return "1 candidate" if candidates == 1 else f"{_rounded(candidates)} candidates"


def _rounded(number: float) -> str:
    return f"{number:,.0f}" if number < 1e6 else f"{number:.1e}"
