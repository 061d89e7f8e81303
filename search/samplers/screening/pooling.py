"""Means over parameters that are alike, such as the layers of a network."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

ALIKE = 3
"""So many parameters with the same distribution are taken to mean something alike."""
_SPREAD = 0.25
"""Standard deviation of a mean, so that it spans about 1 like other columns."""


class Pooling:
    """Adds columns that are means of others.

    What a choice does in one layer, it mostly does in the next. How often it is made over all
    layers, or how large a number is on average, is learnt from fewer values than what it does in
    each. This is a hierarchical prior: effects of single layers scatter around a common one.

    Args:
        alike: For each new column, the positions of those that it is the mean of.
        sample: `(n, d)` rows that show how far means spread.
    """

    def __init__(self, alike: Sequence[Sequence[int]], sample: Floats) -> None:
        self._alike = [np.asarray(positions, dtype=np.intp) for positions in alike]
        means = self._means(sample)
        self._centre = means.mean(axis=0)
        self._spread = np.maximum(means.std(axis=0), 1e-9) / _SPREAD

    def added(self, rows: Floats) -> Floats:
        """Rows with the new columns after the others, `(k, d + p)`."""
        return np.hstack([rows, 0.5 + (self._means(rows) - self._centre) / self._spread])

    def _means(self, rows: Floats) -> Floats:
        means = [rows[:, positions].mean(axis=1) for positions in self._alike]
        return np.array(means).reshape(len(self._alike), len(rows)).T
