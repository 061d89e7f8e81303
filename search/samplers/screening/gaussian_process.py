"""Gaussian-process regression in numpy.

The kernel is Matern 5/2 with one length scale a group of columns, plus a linear and a quadratic
trend: what parameters do on their own is learnt from few values, what they do together from more.
Trends of different contexts are correlated by a Matern kernel of the context, and each context may
be shifted as a whole. The prior mean is constant and unknown.
"""

from __future__ import annotations

import copy
import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from parefront.search.samplers.screening.hyper import Columns, Hyper

Floats = NDArray[np.float64]

JITTER = 1e-8
"""What is added to the diagonal in any case."""
MEAN_VARIANCE = 1.0
"""Variance of the unknown mean, and of a shift by context, of values that have variance 1."""


def trends_of(inputs: Floats, columns: Columns) -> tuple[Floats, Floats]:
    """Inputs whose products are the linear and the quadratic kernel, each `(n, width)`."""
    share = 1.0 / max(1, columns.count)
    centred = inputs[:, : columns.width] - 0.5
    # Over [0, 1] both have mean 0 and, summed over the columns, a variance of about 1.
    curved = centred**2 - 1.0 / 12.0
    curved *= math.sqrt(180.0 * share) * columns.curved[: columns.width]
    return centred * math.sqrt(12.0 * share), curved


def matern(squares: Floats) -> tuple[Floats, Floats]:
    """The Matern 5/2 kernel, and minus its slope by half the squared distance; for that square."""
    root = np.sqrt(5.0 * squares)
    decay = np.exp(-root)
    root += 1.0
    root *= decay
    return root + (5.0 / 3.0) * squares * decay, (5.0 / 3.0) * root


def cholesky(matrix: Floats) -> Floats:
    """The lower factor; with a little more on the diagonal where rounding makes it necessary.

    Raises:
        ValueError: If the matrix is far from positive definite.
    """
    extra = 0.0
    for _ in range(8):
        try:
            lower = np.linalg.cholesky(matrix + np.diag(np.full(len(matrix), extra)))
        except np.linalg.LinAlgError:
            extra = max(10.0 * extra, 1e-7 * float(np.trace(matrix)) / len(matrix))
        else:
            return np.asarray(lower, dtype=np.float64)
    raise ValueError(f"expected a positive definite matrix, got one of trace {np.trace(matrix)}")


@dataclass(frozen=True, eq=False)
class _Prepared:
    """Inputs, made ready for the kernel.

    Attributes:
        scaled: Over their length scales.
        trends: Whose products are both trends.
        context: The context, over its length scales.
        shift: The context itself.
    """

    scaled: Floats
    trends: Floats
    context: Floats
    shift: Floats

    def beside(self, more: _Prepared) -> _Prepared:
        """These inputs and more."""
        return _Prepared(
            np.vstack([self.scaled, more.scaled]),
            np.vstack([self.trends, more.trends]),
            np.vstack([self.context, more.context]),
            np.vstack([self.shift, more.shift]),
        )


class GaussianProcess:
    """The posterior given data.

    Args:
        inputs: `(n, d)` inputs.
        columns: What the columns mean.
        targets: `(n,)` values, of the order of 1.
        hyper: Hyperparameters.
    """

    def __init__(self, inputs: Floats, columns: Columns, targets: Floats, hyper: Hyper) -> None:
        self._columns = columns
        self._weights = np.exp(-hyper.lengths)[columns.groups]
        self._scale = math.exp(hyper.scale)
        self._trend = math.exp(0.5 * hyper.linear), math.exp(0.5 * hyper.quadratic)
        self.noise = math.exp(hyper.noise)
        """Variance of the noise."""
        self._inputs, self._targets = self._prepared(inputs), targets
        matrix = self._kernel(self._inputs, self._inputs)
        matrix[np.diag_indices(len(matrix))] += self.noise + JITTER
        self._inverse_lower = np.linalg.inv(cholesky(matrix))
        self._alpha = self._inverse_lower.T @ (self._inverse_lower @ targets)

    def predict(self, inputs: Floats) -> tuple[Floats, Floats]:
        """Mean and standard deviation of the function, without noise, at `(k, d)` inputs."""
        prepared = self._prepared(inputs)
        cross = self._kernel(prepared, self._inputs)
        mean = cross @ self._alpha
        half = cross @ self._inverse_lower.T
        prior = self._scale + MEAN_VARIANCE + (prepared.trends**2).sum(axis=1)
        prior += MEAN_VARIANCE * (prepared.shift**2).sum(axis=1)
        variance = prior - np.einsum("ij,ij->i", half, half)
        return mean, np.sqrt(np.maximum(variance, 1e-12))

    def joined(self, inputs: Floats, targets: Floats) -> GaussianProcess:
        """The posterior given further data too.

        The factor of the data so far is kept, so that `k` further values cost `k n^2` instead of
        `(n + k)^3`.

        Args:
            inputs: `(k, d)` inputs.
            targets: `(k,)` values.
        """
        more = self._prepared(inputs)
        half = self._kernel(more, self._inputs) @ self._inverse_lower.T
        matrix = self._kernel(more, more) - half @ half.T
        matrix[np.diag_indices(len(matrix))] += self.noise + JITTER
        last = np.linalg.inv(cholesky(matrix))
        joined = copy.copy(self)
        joined._inputs = self._inputs.beside(more)
        joined._targets = np.concatenate([self._targets, targets])
        joined._inverse_lower = np.block(
            [
                [self._inverse_lower, np.zeros((len(half.T), len(half)))],
                [-last @ half @ self._inverse_lower, last],
            ]
        )
        joined._alpha = joined._inverse_lower.T @ (joined._inverse_lower @ joined._targets)
        return joined

    def mean(self, inputs: Floats) -> Floats:
        """Mean of the function at `(k, d)` inputs, `(k,)`."""
        mean: Floats = self._kernel(self._prepared(inputs), self._inputs) @ self._alpha
        return mean

    def left_out(self) -> Floats:
        """How far each value is from what the others predict, in predicted standard deviations."""
        diagonal = np.einsum("ji,ji->i", self._inverse_lower, self._inverse_lower)
        errors: Floats = self._alpha / np.sqrt(diagonal)
        return errors

    def _prepared(self, inputs: Floats) -> _Prepared:
        linear, quadratic = trends_of(inputs, self._columns)
        trends = np.hstack([self._trend[0] * linear, self._trend[1] * quadratic])
        scaled, width = inputs * self._weights, self._columns.width
        return _Prepared(scaled, trends, scaled[:, width:], inputs[:, width:])

    def _kernel(self, left: _Prepared, right: _Prepared) -> Floats:
        kernel, _ = matern(_squares(left.scaled, right.scaled))
        trend = left.trends @ right.trends.T
        kernel *= self._scale
        if left.context.any() or right.context.any():
            trend *= matern(_squares(left.context, right.context))[0]
            kernel += MEAN_VARIANCE * (left.shift @ right.shift.T)
        kernel += trend
        kernel += MEAN_VARIANCE
        return kernel


def _squares(a: Floats, b: Floats) -> Floats:
    """Squared distances between rows, `(n, k)`."""
    squares: Floats = (a**2).sum(axis=1)[:, None] + (b**2).sum(axis=1)[None, :] - 2.0 * (a @ b.T)
    return np.maximum(squares, 0.0)
