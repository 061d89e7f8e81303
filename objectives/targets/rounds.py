"""Joining rounds of timing, each from a fresh process, into one value with an interval.

One process does not see all the noise: the layout of its memory stays the same in it, and the
state of the machine nearly so. Several processes do, and their spread says how far the value can
be trusted.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np

from parefront.objectives.targets.device import Effort, Timing
from parefront.objectives.targets.timing import Round

DISTURBED = 0.1
"""A round in which other work had the cores for more than this share is repeated."""
MAX_ROUNDS = 50

BETWEEN_EQUALS = 0.02
BETWEEN_E_FOLD = 0.025
"""Spread of rounds that is expected before any is seen, as a standard deviation of logarithms.

In fresh processes on two shared cores, ratios near 1 spread by 2 %, near 0.2 and 5 by 3 to 5 %,
near 0.085 by 5 to 7 % and near 0.03 by 9 to 10 %, for a small and a large model feel the state of
the machine differently. The two figures are the spread at a ratio of 1 and its growth with each
factor of e.
"""
WALL_FACTOR = 2.0
"""How much larger that spread is in wall time, which other processes disturb."""
EXPECTATION_WEIGHT = 4
"""Degrees of freedom that the expected spread counts for beside the spread that is seen."""

_Z = 1.959963984540054


def joined(rounds: Sequence[Round], disturbed: int = 0) -> Timing:
    """One timing from rounds.

    The value is the mean of the rounds' logarithmic ratios, without the lowest and the highest
    from five rounds on. The interval is for a repeat: a second measurement with as many rounds
    falls inside in 95 % of cases. With s the standard deviation of the logarithms, pooled with the
    expected one, and k rounds, its half-width is `t s sqrt(2 / k)`: the errors of both
    measurements, by Student's t.

    Args:
        rounds: At least one round.
        disturbed: How many rounds were thrown away.
    """
    logs = np.sort(np.log([found.ratio for found in rounds]))
    kept = logs[1:-1] if len(logs) >= 5 else logs
    centre = float(kept.mean())
    expected = math.hypot(BETWEEN_EQUALS, BETWEEN_E_FOLD * centre)
    expected *= WALL_FACTOR if rounds[0].clock == "wall" else 1.0
    freedom = EXPECTATION_WEIGHT + len(logs) - 1
    squares = EXPECTATION_WEIGHT * expected**2 + float(((logs - centre) ** 2).sum())
    half = student(freedom) * math.sqrt(squares / freedom) * math.sqrt(2 / len(logs))
    return Timing(
        ratio=math.exp(centre),
        ratio_low=math.exp(centre - half),
        ratio_high=math.exp(centre + half),
        candidate_ms=_percentiles([found.candidate_ms for found in rounds]),
        baseline_ms=_percentiles([found.baseline_ms for found in rounds]),
        blocks=sum(found.blocks for found in rounds),
        runs=sum(found.runs for found in rounds),
        clock=rounds[0].clock,
        rounds=len(rounds),
        disturbed=disturbed,
    )


class Rounds:
    """Collects rounds until they say enough, or their time is spent.

    A disturbed round does not count. Where all are disturbed, the value is taken from them all
    the same: CPU time hardly feels it, and the spread of the rounds widens the interval.

    Args:
        effort: What the timing may cost.
    """

    def __init__(self, effort: Effort) -> None:
        self._effort = effort
        self._calm: list[Round] = []
        self._disturbed: list[Round] = []
        self._seconds = 0.0

    def add(self, found: Round, seconds: float) -> None:
        """Takes a round.

        Args:
            found: What its process found.
            seconds: What it cost.
        """
        (self._disturbed if found.stolen > DISTURBED else self._calm).append(found)
        self._seconds += seconds

    @property
    def enough(self) -> bool:
        """Whether no further round is worth its time."""
        count = len(self._calm) + len(self._disturbed)
        if count == 0:
            return False
        spent = self._seconds * (count + 1) / count > self._effort.seconds
        if spent or count >= MAX_ROUNDS:
            return True
        return bool(self._calm) and _half_width(joined(self._calm)) <= self._effort.precision

    def timing(self) -> Timing:
        """The timing of the rounds so far, at least one."""
        if self._calm:
            return joined(self._calm, len(self._disturbed))
        return joined(self._disturbed)


def student(freedom: int) -> float:
    """The 97.5 % quantile of Student's t.

    The expansion in the inverse of the degrees of freedom (Abramowitz and Stegun 1964, 26.7.5) is
    exact to 0.5 % from 4 degrees on.

    Args:
        freedom: Degrees of freedom, at least 4.
    """
    z, n = _Z, freedom
    return (
        z
        + (z**3 + z) / (4 * n)
        + (5 * z**5 + 16 * z**3 + 3 * z) / (96 * n**2)
        + (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / (384 * n**3)
        + (79 * z**9 + 776 * z**7 + 1482 * z**5 - 1920 * z**3 - 945 * z) / (92160 * n**4)
    )


def _half_width(timing: Timing) -> float:
    return math.log(timing.ratio_high / timing.ratio_low) / 2


def _percentiles(rounds: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """The median round of each percentile."""
    return {name: float(np.median([each[name] for each in rounds])) for name in rounds[0]}
