"""Which trials of a long study a sampler is shown."""

from __future__ import annotations

from collections.abc import Sequence

import moocore
import numpy as np
from numpy.typing import NDArray
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState

from parefront.search.seeds import derive_seed

Floats = NDArray[np.float64]
Rows = NDArray[np.intp]

_MOST_THINNED = 1000
"""Points of a front among which those far apart are looked for; of more, every second and so on."""


class ChoiceOfTrials:
    """Chooses a bounded number of trials that tell the most.

    Half are the best: the front, then what would be the front without it, and so on, with points
    far apart where not all of one layer fit; then, where bounds are broken, the least. A quarter
    are the latest, and the rest are random, but the same again and again, so that what a sampler
    sees changes little from one trial to the next. The choice follows from the trials and the seed
    alone, whatever the order in which they were added.

    Args:
        directions: Directions of the objectives.
        seed: Seed of the random part.
    """

    def __init__(self, directions: Sequence[StudyDirection], seed: int) -> None:
        self._signs = np.array([-1.0 if d == StudyDirection.MAXIMIZE else 1.0 for d in directions])
        self._seed = seed
        self._count = 0
        self._trials: list[FrozenTrial] = []
        # One row a trial: its losses, then its number, its violation and its place in a lottery.
        self._table = np.empty((64, len(self._signs) + 3))

    def __len__(self) -> int:
        return self._count

    def add(self, trial: FrozenTrial) -> None:
        """Takes in a trial that is over.

        Args:
            trial: A complete trial, or one without values.
        """
        if self._count == len(self._table):
            self._table = np.concatenate([self._table, np.empty_like(self._table)])
        complete = trial.state == TrialState.COMPLETE
        losses = np.asarray(trial.values) * self._signs if complete else np.nan
        broken = sum(value for value in trial.constraints.values() if value > 0)
        row = self._table[self._count]
        row[:-3] = losses
        lot = derive_seed(self._seed, "shown", sorted(trial.params.items()))
        row[-3:] = trial.number, broken, lot
        self._trials.append(trial)
        self._count += 1

    def choose(self, most: int) -> list[FrozenTrial]:
        """The trials to show, in the order of their numbers.

        Args:
            most: How many they may be.
        """
        table = self._table[: self._count]
        order = np.argsort(table[:, -3], kind="stable")
        if self._count > most:
            order = order[self._chosen(table[order], most)]
        return [self._trials[row] for row in order]

    def _chosen(self, table: Floats, most: int) -> Rows:
        losses, broken, lot = table[:, :-3], table[:, -2], table[:, -1]
        best = _best(losses, broken, most // 2)
        taken = np.zeros(len(table), dtype=bool)
        taken[best] = True
        taken[np.flatnonzero(~taken)[len(table) - len(best) - most // 4 :]] = True
        rest = np.flatnonzero(~taken)
        wanted = most - int(taken.sum())
        taken[rest[np.argsort(lot[rest], kind="stable")[:wanted]]] = True
        return np.flatnonzero(taken)


def _best(losses: Floats, broken: Floats, wanted: int) -> Rows:
    """Rows of the best: layer by layer, then those that break bounds, the least first."""
    left = np.flatnonzero(np.isfinite(losses).all(axis=1) & (broken <= 0))
    layers: list[Rows] = []
    while wanted > 0 and len(left) > 0:
        on = moocore.is_nondominated(losses[left], keep_weakly=True)
        layer = left[on]
        if len(layer) > wanted:
            layer = layer[_far_apart(losses[layer], wanted)]
        layers.append(layer)
        wanted -= len(layer)
        left = left[~on]
    outside = np.flatnonzero(broken > 0)
    layers.append(outside[np.argsort(broken[outside], kind="stable")[:wanted]])
    return np.concatenate(layers)


def _far_apart(losses: Floats, wanted: int) -> Rows:
    """Rows of points that cover a front evenly.

    The best of each objective, then the farthest from those before (Gonzalez 1985).
    """
    width = np.maximum(np.ptp(losses, axis=0), np.finfo(float).tiny)
    scaled = (losses - losses.min(axis=0)) / width
    stride = -(-len(scaled) // _MOST_THINNED)
    ends = np.unique(scaled.argmin(axis=0))[:wanted]
    among = np.union1d(np.lexsort(scaled.T[::-1])[::stride], ends)
    points = scaled[among]
    distance = np.full(len(points), np.inf)
    chosen: list[int] = []
    for position in np.searchsorted(among, ends):
        chosen.append(int(position))
        distance = np.minimum(distance, ((points - points[position]) ** 2).sum(axis=1))
    while len(chosen) < wanted:
        distance[chosen] = -1.0
        position = int(distance.argmax())
        chosen.append(position)
        distance = np.minimum(distance, ((points - points[position]) ** 2).sum(axis=1))
    return among[chosen]
