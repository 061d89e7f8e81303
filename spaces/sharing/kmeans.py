"""k-means of numbers, on a line."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

_MOST_STEPS = 100


def kmeans(values: NDArray[np.floating[Any]], count: int) -> NDArray[np.float64]:
    """Centres that leave a small sum of squared distances to the nearest.

    Lloyd's algorithm from centres that are evenly spaced, which keeps the few large values apart
    that matter most (Han, Mao, Dally, "Deep Compression", 2016, section 3.2). Each step is exact,
    by sums over the sorted values.

    Args:
        values: `(n,)` numbers, finite.
        count: Most centres.

    Returns:
        At most `count` different centres, ascending.
    """
    ordered = np.sort(np.asarray(values, dtype=np.float64))
    different = np.unique(ordered)
    if len(different) <= count:
        return different
    sums = np.concatenate([[0.0], np.cumsum(ordered)])
    centres = np.linspace(ordered[0], ordered[-1], count)
    for _ in range(_MOST_STEPS):
        ends = np.searchsorted(ordered, (centres[:-1] + centres[1:]) / 2)
        bounds = np.concatenate([[0], ends, [len(ordered)]])
        sizes = np.diff(bounds)
        means = np.diff(sums[bounds]) / np.maximum(sizes, 1)
        moved = np.sort(np.where(sizes > 0, means, centres))
        if np.array_equal(moved, centres):
            break
        centres = moved
    return np.unique(centres)
