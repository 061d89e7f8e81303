"""Which observations models are made from, when there are more than are needed."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import lru_cache

import moocore
import numpy as np
from numpy.typing import NDArray

from parefront.search.samplers.screening.history import History, Series

Floats = NDArray[np.float64]
Ints = NDArray[np.intp]

_TRAINED = 200
"""Complete observations that a model is made from at most."""
_FITTED = 80
"""Complete observations that hyperparameters are fitted to at most."""
_ASIDE = 0.3
"""Others there may be beyond, as a share."""
_EACH = 12
"""Up to so many observations, hyperparameters are fitted anew for each."""
_GROWTH = 1.15
"""Later only when there are so many times as many."""


def selected(history: History, series: Series, seed: int) -> Ints:
    """Positions in a series to train a model on, in order.

    Of the complete observations half are on the front or nearest to it, an eighth are the last, and
    the others are random. What room is left, and a little more, is for those of low fidelity or
    from elsewhere: half the last, half random.
    """
    complete = series.complete
    own = np.flatnonzero(complete >= 0)
    nearest = own[smallest(history.gaps()[complete[own]], _TRAINED // 2)]
    return _filled(complete, [nearest, own[-_TRAINED // 8 :]], _TRAINED, seed)


def fitted(history: History, series: Series, seed: int) -> Ints:
    """Positions in a series to fit hyperparameters to, in order.

    They are chosen from the first ones up to a milestone, so that they are the same until the next
    milestone, and for a search that is taken up there.
    """
    complete = series.complete[: milestone(len(series))]
    own = np.flatnonzero(complete >= 0)
    front = own[nondominated(history.values[complete[own]])]
    return _filled(complete, [front[-_FITTED // 2 :]], _FITTED, seed)


def milestone(count: int) -> int:
    """How many of so many observations hyperparameters depend on."""
    reached = min(count, _EACH)
    while (following := int(reached * _GROWTH) + 1) <= count and reached >= _EACH:
        reached = following
    return reached


def smallest(values: Floats, count: int) -> Ints:
    """Positions of the smallest of `(n,)` values, in order; of equal ones the first."""
    if count >= len(values):
        return np.argsort(values, kind="stable")
    # Sorting all of them would take most of the time.
    some = np.flatnonzero(values <= np.partition(values, count)[count])
    return some[np.argsort(values[some], kind="stable")[:count]]


def spread(rows: Floats, count: int) -> Ints:
    """Positions of so many of `(n, d)` rows that none is far from all of them, in order.

    The first, then the one farthest from those before, and so on: the largest distance that is left
    is at most twice the least that is possible (Gonzalez 1985).
    """
    if count >= len(rows):
        return np.arange(len(rows))
    squares = (rows**2).sum(axis=1)
    chosen, left = [0], np.full(len(rows), np.inf)
    for _ in range(count - 1):
        last = chosen[-1]
        np.minimum(left, squares + squares[last] - 2.0 * (rows @ rows[last]), out=left)
        left[last] = -np.inf
        chosen.append(int(left.argmax()))
    return np.sort(np.array(chosen, dtype=np.intp))


def nondominated(points: Floats) -> NDArray[np.bool_]:
    """Which points no other one dominates or, if earlier, equals; smaller is better."""
    if len(points) == 0:
        return np.zeros(0, dtype=bool)
    flags: NDArray[np.bool_] = moocore.is_nondominated(points, keep_weakly=False)
    return flags


def _filled(complete: Ints, first: Sequence[Ints], most: int, seed: int) -> Ints:
    """The first ones, and random ones up to so many; the same of one count and the next.

    Args:
        complete: `(n,)` numbers, -1 for what is not complete.
        first: Positions that are complete and wanted.
        most: How many complete ones there may be.
        seed: Decides which are random.
    """
    count, room = len(complete), most + int(_ASIDE * most)
    if count <= most:
        return np.arange(count)
    order = _order(seed, max(1024, 1 << (count - 1).bit_length()))
    order = order[order < count]
    chosen: dict[int, None] = {}
    _fill(chosen, most, *first, order[complete[order] >= 0])
    others, left = np.flatnonzero(complete < 0), room - len(chosen)
    _fill(chosen, room, others[-left // 2 :], order[complete[order] < 0])
    return np.sort(np.fromiter(chosen, dtype=np.intp))


@lru_cache(maxsize=8)
def _order(seed: int, count: int) -> Ints:
    """The numbers below `count` in a random order."""
    return np.random.default_rng([seed % 2**32, 1]).permutation(count)


def _fill(chosen: dict[int, None], most: int, *wanted: Iterable[int]) -> None:
    for positions in wanted:
        for position in positions:
            if len(chosen) >= most:
                return
            chosen[int(position)] = None
