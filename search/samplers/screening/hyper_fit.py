"""Fits the hyperparameters of a Gaussian process.

Length scales, variances and noise maximise the marginal likelihood times a mild prior whose length
scales grow with the number of groups (Hvarfner et al. 2024).
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from parefront.search.samplers.screening.gaussian_process import (
    JITTER,
    MEAN_VARIANCE,
    cholesky,
    matern,
    trends_of,
)
from parefront.search.samplers.screening.hyper import Columns, Hyper

Floats = NDArray[np.float64]

_BOUND = 7.0
"""Logarithms stay within this distance of their prior."""


def fit(inputs: Floats, columns: Columns, targets: Floats, steps: int = 20) -> tuple[Hyper, float]:
    """Hyperparameters that maximise the posterior, by quasi-Newton steps.

    Args:
        inputs: `(n, d)` inputs, of the order of 1.
        columns: What the columns mean.
        targets: `(n,)` values of mean 0 and variance 1.
        steps: At most so many evaluations of the likelihood.

    Returns:
        The hyperparameters, and the logarithm of their posterior up to a constant.
    """
    posterior = Posterior(inputs, columns, targets)
    best, loss = _minimize(posterior.loss, Hyper.prior(columns).vector(), steps)
    return Hyper.of_vector(best), -loss


class Posterior:
    """The posterior of hyperparameters, given data.

    Args:
        inputs: `(n, d)` inputs.
        columns: What the columns mean.
        targets: `(n,)` values.
    """

    def __init__(self, inputs: Floats, columns: Columns, targets: Floats) -> None:
        count = columns.count + columns.context
        squares = [_squares(inputs[:, columns.groups == group]).ravel() for group in range(count)]
        self._squares = np.array(squares).reshape(count, len(inputs) ** 2)
        self._trends = [each @ each.T for each in trends_of(inputs, columns)]
        shift = inputs[:, columns.width :]
        self._shift = MEAN_VARIANCE * (1.0 + shift @ shift.T)
        self._own = columns.count
        self._context = bool(shift.any())
        self._targets = targets
        prior = Hyper.prior(columns)
        self._prior, self._spread = prior.vector(), prior.spreads()

    def loss(self, vector: Floats) -> tuple[float, Floats]:
        """Negative log posterior and its gradient."""
        n, own, targets = len(self._targets), self._own, self._targets
        weights = np.exp(-2.0 * vector[:-4])
        scale, linear, quadratic, noise = np.exp(vector[-4:]).tolist()
        kernel, slope = matern((weights @ self._squares).reshape(n, n))
        kernel *= scale
        first, second = linear * self._trends[0], quadratic * self._trends[1]
        alike: Floats | float = 1.0
        alike_slope = np.zeros(0)
        if self._context:
            alike, alike_slope = matern((weights[own:] @ self._squares[own:]).reshape(n, n))
            alike_slope *= first + second
            first, second = alike * first, alike * second
        matrix = kernel + first + second + self._shift
        matrix[np.diag_indices(n)] += noise + JITTER
        lower = cholesky(matrix)
        inverse_lower = np.linalg.inv(lower)
        inverse = inverse_lower.T @ inverse_lower
        alpha = inverse @ targets
        away = (vector - self._prior) / self._spread
        loss = 0.5 * float(targets @ alpha) + float(np.log(np.diag(lower)).sum())
        loss += 0.5 * float((away**2).sum())
        pull = np.outer(alpha, alpha) - inverse
        gradient = away / self._spread
        gradient[:-4] -= 0.5 * scale * weights * (self._squares @ (pull * slope).ravel())
        if self._context:
            more = self._squares[own:] @ (pull * alike_slope).ravel()
            gradient[own:-4] -= 0.5 * weights[own:] * more
        gradient[-4] -= 0.5 * float((pull * kernel).sum())
        gradient[-3] -= 0.5 * float((pull * first).sum())
        gradient[-2] -= 0.5 * float((pull * second).sum())
        gradient[-1] -= 0.5 * noise * float(np.trace(pull))
        return loss, gradient


def _squares(columns: Floats) -> Floats:
    difference = columns[:, None, :] - columns[None, :, :]
    squares: Floats = np.einsum("ijk,ijk->ij", difference, difference)
    return squares


def _minimize(
    function: Callable[[Floats], tuple[float, Floats]], start: Floats, steps: int
) -> tuple[Floats, float]:
    """BFGS with backtracking, within a box around the start."""
    low, high = start - _BOUND, start + _BOUND
    point = start
    value, gradient = function(point)
    inverse = np.eye(len(start)) / max(1.0, float(np.abs(gradient).max()))
    used = 1
    while used < steps:
        direction = -inverse @ gradient
        slope = float(direction @ gradient)
        if slope >= 0.0:
            inverse = np.eye(len(start)) / max(1.0, float(np.abs(gradient).max()))
            direction = -inverse @ gradient
            slope = float(direction @ gradient)
        length = min(1.0, 2.0 / max(1e-12, float(np.abs(direction).max())))
        improved = False
        while used < steps:
            there = np.clip(point + length * direction, low, high)
            used += 1
            new_value, new_gradient = function(there)
            if new_value <= value + 1e-4 * length * slope:
                improved = True
                break
            length *= 0.4
        if not improved:
            break
        step, change = there - point, new_gradient - gradient
        decrease = value - new_value
        point, value, gradient = there, new_value, new_gradient
        curvature = float(step @ change)
        if curvature > 1e-12:
            if used <= 3:
                inverse = np.eye(len(start)) * curvature / float(change @ change)
            moved = inverse @ change
            inverse += (
                (1.0 + float(change @ moved) / curvature) * np.outer(step, step)
                - np.outer(moved, step)
                - np.outer(step, moved)
            ) / curvature
        if decrease < 1e-3:
            break
    return point, value
