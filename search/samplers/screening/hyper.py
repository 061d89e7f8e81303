"""Hyperparameters of a Gaussian process, and what the columns of its inputs mean."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Ints = NDArray[np.intp]
Bools = NDArray[np.bool_]

_TREND = math.log(0.3)
_NOISE = math.log(1e-3)
_APART = math.log(2.0)
"""Length scale of a column of context: of what two sources that differ say, most is the same."""
_LENGTH_SPREAD = 1.0
_SCALE_SPREAD = 0.7
_TREND_SPREAD = 1.5
_NOISE_SPREAD = 1.5


@dataclass(frozen=True, eq=False)
class Columns:
    """What the columns of inputs mean.

    The last ones may be context: where and how well a value was seen, 0 for what is predicted.
    Values of different contexts are alike as far as the data say, and may be shifted.

    Attributes:
        groups: `(d,)` numbers from 0 of the groups; columns of a group share a length scale.
        curved: `(d,)` flags: columns in [0, 1] that a parabola may fit. Of a column with two
            values it would be a line, and of one without a range it would run away.
        context: How many of the last columns are context, each a group of its own.
    """

    groups: Ints
    curved: Bools
    context: int = 0

    @property
    def width(self) -> int:
        """How many columns come before the context."""
        return len(self.groups) - self.context

    @property
    def count(self) -> int:
        """How many groups come before the context."""
        return int(self.groups[: self.width].max()) + 1 if self.width else 0


@dataclass(frozen=True, eq=False)
class Hyper:
    """Hyperparameters, as natural logarithms.

    Attributes:
        lengths: `(g,)` length scales of the groups, those of the context last.
        scale: Variance of the Matern part.
        linear: Variance of the linear part.
        quadratic: Variance of the quadratic part.
        noise: Variance of the noise.
    """

    lengths: Floats
    scale: float
    linear: float
    quadratic: float
    noise: float

    @classmethod
    def prior(cls, columns: Columns) -> Hyper:
        """The most likely hyperparameters before any data."""
        lengths = np.full(columns.count + columns.context, _APART)
        lengths[: columns.count] = 0.5 * math.log(max(columns.count, 1))
        return cls(lengths, 0.0, _TREND, _TREND, _NOISE)

    def vector(self) -> Floats:
        """All of them, `(g + 4,)`."""
        rest = [self.scale, self.linear, self.quadratic, self.noise]
        return np.concatenate([self.lengths, rest])

    def spreads(self) -> Floats:
        """Standard deviations of their prior, `(g + 4,)`."""
        rest = [_SCALE_SPREAD, _TREND_SPREAD, _TREND_SPREAD, _NOISE_SPREAD]
        return np.concatenate([np.full(len(self.lengths), _LENGTH_SPREAD), rest])

    @classmethod
    def of_vector(cls, vector: Floats) -> Hyper:
        """The inverse of `vector`."""
        return cls(vector[:-4].copy(), *vector[-4:].tolist())
