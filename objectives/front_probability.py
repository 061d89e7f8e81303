"""How sure it is that a point is on the front, and what measuring it again would settle.

An interval is read as a normal distribution that is split at the value: half of the probability is
on each side of it, and the ends are its 2.5 % and 97.5 % quantiles, so a lopsided interval stays
lopsided. A side without width is exact.

All values are taken to be independent of each other. Accuracies of two candidates are not: they
come from the same examples, on which the candidates mostly agree, so their difference is known
better than the two intervals say. Taking them as independent errs to the cautious side: it leaves
more questions open than there are.

Points as in `parefront.objectives.front`: `(n, m)` arrays and `m` flags `maximize`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from statistics import NormalDist

import moocore
import numpy as np
from numpy.typing import ArrayLike, NDArray

from parefront.objectives.front import Bools, Floats, as_costs

CERTAIN, POSSIBLE = 0.95, 0.05
"""Probabilities from which a point is certain to be on the front, or may be on it."""

_END = NormalDist().inv_cdf(0.975)
"""Standard deviations from the value to the end of a 95 % interval."""
_PARTS = 8
"""Equal parts of what a value may turn out to be, to see what knowing it would settle."""
_CLEAR = 2.5
"""Times its expected size by chance that an effect must have to count."""


def probability_on_front(
    values: ArrayLike,
    low: ArrayLike,
    high: ArrayLike,
    maximize: Sequence[bool],
    *,
    samples: int = 1024,
    seed: int = 0,
) -> Floats:
    """Probability that nothing dominates a point, given how well everything was measured.

    The share of `samples` draws of all points in which a point is Pareto-optimal. Each value takes
    the `samples` equally likely quantiles of its distribution once, in random order (a centred
    Latin hypercube: Patterson 1954; McKay, Beckman and Conover 1979), so the standard error is
    at most about `sqrt(p (1 - p) / samples)`: 0.016 at one half and 0.007 at 0.95. The draws of a
    row depend on the seed and its position alone. So a further row changes no draw of another one,
    and raises no other's probability.

    Args:
        values: `(n, m)` estimates.
        low: `(n, m)` lower ends of the 95 % intervals, `low <= values`.
        high: `(n, m)` upper ends of the 95 % intervals, `values <= high`.
        maximize: `m` flags, true where larger is better.
        samples: How often all points are drawn.
        seed: Seed of the draws.

    Returns:
        `(n,)` probabilities. Without noise they are 1 on the Pareto front and 0 off it; rows that
        were not measured, or whose interval is not finite, have 0.

    Raises:
        ValueError: If the shapes differ, a value is outside its interval, or there are no samples.
    """
    drawn = _Drawn.of(values, low, high, maximize, samples, seed)
    result = np.zeros(drawn.rows)
    result[drawn.of_row] = drawn.optimal.mean(axis=0)
    return result


def settling_gain(
    values: ArrayLike,
    low: ArrayLike,
    high: ArrayLike,
    maximize: Sequence[bool],
    noisy: Sequence[bool],
    *,
    samples: int = 2048,
    seed: int = 0,
) -> Floats:
    """How much of the front would be settled by knowing a point's noisy objectives exactly.

    With p the probability of being on the front, `p (1 - p)` says how open the question is for one
    point. Knowing a value makes that smaller, on average by the variance of p over what the value
    may turn out to be (a first-order index of sensitivity, estimated from the draws as in Plischke,
    Borgonovo and Smith 2013). It is summed over the noisy objectives and over all points whose
    place is open: the point's own, and those of the points it may beat.

    Args:
        values: `(n, m)` estimates.
        low: `(n, m)` lower ends of the 95 % intervals, `low <= values`.
        high: `(n, m)` upper ends of the 95 % intervals, `values <= high`.
        maximize: `m` flags, true where larger is better.
        noisy: `m` flags, true for objectives whose intervals shrink when measured again.
        samples: How often all points are drawn, a multiple of 8.
        seed: Seed of the draws.

    Returns:
        `(n,)` expected falls of the sum of `p (1 - p)`, larger is better. It is 0 where nothing is
        open, and where the effect on each point, a standard deviation of its probability, is too
        small to tell from chance: below 0.05 with 2,048 samples.

    Raises:
        ValueError: As `probability_on_front`, if there is not one flag an objective, or the number
            of samples is not a multiple of 8.
    """
    if len(noisy) != len(maximize):
        raise ValueError(f"expected {len(maximize)} flags for noise, got {len(noisy)}")
    if samples % _PARTS:
        raise ValueError(f"expected a multiple of {_PARTS} samples, got {samples}")
    drawn = _Drawn.of(values, low, high, maximize, samples, seed)
    probability = drawn.optimal.mean(axis=0)
    open_ = (probability >= POSSIBLE) & (probability <= CERTAIN)
    optimal = drawn.optimal[:, open_].astype(np.float32)
    chance = (probability * (1 - probability))[open_] * (_PARTS - 1) / samples
    result = np.zeros(drawn.rows)
    # A point that is surely beaten decides nothing: what beats it beats whatever it beats.
    for index in np.flatnonzero(probability >= POSSIBLE):
        for axis in np.flatnonzero(noisy):
            along = drawn.points[:, index, axis]
            if along.min() < along.max():
                part = np.argsort(np.argsort(along)) * _PARTS // samples
                counts = (np.arange(_PARTS)[:, None] == part).astype(np.float32) @ optimal
                effect = (counts * (_PARTS / samples)).var(axis=0)
                settled = np.where(effect > _CLEAR * chance, effect - chance, 0.0).sum()
                result[drawn.of_row[index]] += settled
    return result


@dataclass(frozen=True)
class _Drawn:
    """Draws of the points that may be on the front; smaller is better.

    Attributes:
        points: `(s, k, m)` values.
        optimal: `(s, k)` flags of what is Pareto-optimal in each draw.
        of_row: `(k,)` rows that the points had.
        rows: How many rows there were.
    """

    points: Floats
    optimal: Bools
    of_row: NDArray[np.intp]
    rows: int

    @classmethod
    def of(
        cls,
        values: ArrayLike,
        low: ArrayLike,
        high: ArrayLike,
        maximize: Sequence[bool],
        samples: int,
        seed: int,
    ) -> _Drawn:
        """Draws the points; leaves out those that are beaten in every draw."""
        if samples < 1:
            raise ValueError(f"expected at least one sample, got {samples}")
        costs, best, worst, known = as_costs(values, low, high, maximize)
        known &= np.isfinite(best).all(axis=1) & np.isfinite(worst).all(axis=1)
        kept = np.flatnonzero(known)
        costs = costs[kept]
        down, up = (costs - best[kept]) / _END, (worst[kept] - costs) / _END
        quantiles = _quantiles(samples)
        least, most = costs + quantiles[0] * down, costs + quantiles[-1] * up
        beaten = np.zeros(len(kept), dtype=bool)
        if len(kept):
            # Whatever beats a point in every draw is beaten so by one of these, or is one of them.
            for corner in most[moocore.is_nondominated(most)]:
                beaten |= (corner <= least).all(axis=1) & (corner < least).any(axis=1)
        costs, down, up, kept = costs[~beaten], down[~beaten], up[~beaten], kept[~beaten]
        points = np.repeat(costs[None], samples, axis=0)
        for axis in np.flatnonzero((down + up).any(axis=0)):
            for index, row in enumerate(kept):
                order = np.random.default_rng((seed, int(axis), int(row))).permutation(samples)
                width = np.where(order < samples / 2, down[index, axis], up[index, axis])
                points[:, index, axis] += quantiles[order] * width
        optimal = np.empty(points.shape[:2], dtype=bool)
        for index, draw in enumerate(points):
            optimal[index] = moocore.is_nondominated(draw, keep_weakly=True)
        return cls(points, optimal, kept, len(known))


@cache
def _quantiles(count: int) -> Floats:
    """The middles of `count` equally likely parts of the standard normal distribution."""
    normal = NormalDist()
    found = np.array([normal.inv_cdf((index + 0.5) / count) for index in range(count)])
    found.flags.writeable = False
    return found
