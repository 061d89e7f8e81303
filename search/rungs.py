"""Early stopping: which trainings are not worth going on with, judged at rungs on their way.

The stopping form of asynchronous successive halving with several objectives (MO-ASHA: Schmucker,
Donini, Zafar, Salinas and Archambeau, "Multi-objective asynchronous successive halving", 2021): a
trial that reaches a rung is compared with all that have reached it so far, and nothing is waited
for. As there, the trials are ranked by their non-dominated rank; within a rank, by their
contribution to its hypervolume; and the best share of them goes on.

What differs is that latency and size do not change by training, and that accuracy in the middle of
it says only roughly what it will be. With three objectives most trials of a rung beat each other in
something, so that a share by rank and contribution alone stops many that would end on the front. A
trial outside the share is therefore stopped only if another would beat it even if its accuracy were
better by the room that the rest of the training may open.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

import moocore
import numpy as np
from numpy.typing import NDArray

from parefront.errors import UsageError
from parefront.objectives.front import log_scaled, normalize, reference_box
from parefront.objectives.measurement import Direction
from parefront.search.records import Rung

Floats = NDArray[np.float64]

ACCURACY = "accuracy"
"""The objective that training changes."""

MARGIN = 1.1
"""Reference of contributions, where 0 is the best and 1 the worst value at the rung."""


class EarlyStopped(Exception):  # noqa: N818 - not an error
    """Others were ahead of the trial at a rung; its training ends there."""


@dataclass(frozen=True)
class RungRule:
    """When a training is stopped.

    Attributes:
        shares: Shares of the training after which a trial is compared, ascending in (0, 1).
        keep: Share of the trials at a rung, in [0, 1], that goes on whatever beats them.
        least: No trial is stopped at a rung that fewer than so many have reached, itself included.
        slack: How much accuracy may still gain on others, relative to what separates the best from
            the median at the rung; 0 takes accuracy at a rung for final.

    Raises:
        UsageError: If a value is outside its range.

    Example:
        >>> RungRule(shares=(0.5,)).keep
        0.6
    """

    shares: tuple[float, ...] = (0.25, 0.5)
    keep: float = 0.6
    least: int = 6
    slack: float = 0.25

    def __post_init__(self) -> None:
        if any(not low < high for low, high in pairwise((0.0, *self.shares, 1.0))):
            raise UsageError(f"expected shares ascending in (0, 1), got {self.shares}")
        if not 0 <= self.keep <= 1:
            raise UsageError(f"expected keep within [0, 1], got {self.keep}")
        if self.least < 1:
            raise UsageError(f"expected least to be 1 or more, got {self.least}")
        if not 0 <= self.slack < math.inf:
            raise UsageError(f"expected a finite slack of 0 or more, got {self.slack}")


def ahead(costs: Floats, row: int) -> int:
    """How many points are ahead of one by rank and contribution.

    Args:
        costs: `(n, m)` points, all finite; smaller is better.
        row: The point.

    Returns:
        The number of points with a better non-dominated rank, or with the same and a larger
        contribution to the hypervolume of those with that rank. Every objective is scaled to its
        range at the rung, and volumes are up to `MARGIN` of it.
    """
    if costs.shape[1] == 1:
        return int((costs < costs[row]).sum())
    flags = [False] * costs.shape[1]
    scaled = normalize(costs, *reference_box(costs, flags), flags)
    ranks = moocore.pareto_rank(scaled)
    peers = np.flatnonzero(ranks == ranks[row])
    adds = moocore.hv_contributions(scaled[peers], ref=[MARGIN] * costs.shape[1])
    mine = adds[peers == row][0]
    return int((ranks < ranks[row]).sum() + (adds > mine).sum())


def beaten(costs: Floats, row: int, room: Floats) -> bool:
    """Whether another point is as good as one in every objective, wherever the one may get to.

    Args:
        costs: `(n, m)` points; smaller is better.
        row: The point.
        room: `(m,)` how far each of its values may still fall; 0 for one that is final.
    """
    others = np.delete(costs, row, axis=0)
    return bool((others <= costs[row] - room).all(axis=1).any())


def goes_on(costs: Floats, row: int, growing: Sequence[bool], rule: RungRule) -> bool:
    """Whether a trial goes on with its training.

    Args:
        costs: `(n, m)` what the trials that have reached the rung were worth there, all finite;
            smaller is better.
        row: The trial that is judged.
        growing: `m` flags, true for objectives that training still changes.
        rule: The rule.
    """
    if len(costs) < rule.least or ahead(costs, row) < rule.keep * len(costs):
        return True
    # Half of the trials are no better than the median, so a few that learnt nothing do not matter.
    spread = np.median(costs, axis=0) - costs.min(axis=0)
    return not beaten(costs, row, np.where(growing, rule.slack * spread, 0.0))


class EarlyStopping:
    """Judges trials at rungs.

    Args:
        rule: When a training is stopped.
        directions: Directions of the objectives that are compared, by name.
        log: Whether ratios of an objective's values matter rather than differences, by name;
            what is missing here does not.
        rivals: What other trials were worth at the rung of a share, by objective name, as far as
            they have reached it.
        growing: Names of the objectives that training still changes.
    """

    def __init__(
        self,
        rule: RungRule,
        directions: Mapping[str, Direction],
        log: Mapping[str, bool],
        rivals: Callable[[float], Sequence[Mapping[str, float]]],
        growing: Collection[str] = (ACCURACY,),
    ) -> None:
        self.rule = rule
        self._signs = {
            name: -1.0 if direction is Direction.MAXIMIZE else 1.0
            for name, direction in directions.items()
        }
        self._log = np.array([log.get(name, False) for name in directions], dtype=bool)
        self._rivals = rivals
        self._growing = [name in growing for name in directions]

    def judge(self, share: float, values: Mapping[str, float]) -> Rung:
        """Decides on a trial that has reached a rung.

        A trial with a value that is not finite, or not positive where ratios matter, cannot be
        compared: it goes on, and others do not see it. Neither do they see one without a value
        for every objective.

        Args:
            share: The rung.
            values: What the trial is worth there, by objective name, in the objectives' units.

        Returns:
            The record, with the decision.

        Raises:
            KeyError: If an objective is missing in `values`.
        """
        rivals = [other for other in self._rivals(share) if self._signs.keys() <= other.keys()]
        points = np.array(
            [[each[name] for name in self._signs] for each in (*rivals, values)], dtype=float
        )
        points[(points <= 0) & self._log] = np.nan
        *known, comparable = np.isfinite(points).all(axis=1)
        points = points[[*known, True]]
        promoted = not comparable or goes_on(
            log_scaled(points, self._log.tolist()) * list(self._signs.values()),
            len(points) - 1,
            self._growing,
            self.rule,
        )
        return Rung(share=share, values=dict(values), rivals=len(points) - 1, promoted=promoted)
