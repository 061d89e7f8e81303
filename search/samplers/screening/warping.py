"""Makes values look normal, so that a Gaussian process fits them.

Accuracies crowd near their best and trail off far towards the worst, latencies do the opposite.
The power transform of Yeo and Johnson (2000) straightens both, reaches beyond the values seen, and
needs to know nothing of what the values are.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

_POWERS = np.linspace(-2.0, 4.0, 61)
_PRIOR = 1.0
"""Spread of the power around 1, which changes nothing, before the data speak."""
_FARTHEST = 1e6
"""Nothing is this many spreads away from the rest; stands for the infinite."""


@dataclass(frozen=True)
class Warp:
    """A monotone map from values to numbers of mean 0 and variance 1.

    Attributes:
        centre: Mean of the values.
        spread: Their standard deviation.
        power: Power of the transform; 1 changes nothing.
        shift: Mean after the transform.
        scale: Standard deviation after the transform.
    """

    centre: float
    spread: float
    power: float
    shift: float
    scale: float

    @classmethod
    def of(cls, values: Floats, power: float | None = None) -> Warp:
        """The map for values.

        Args:
            values: `(n,)` finite values, at least one.
            power: Power of the transform; by default the one that makes the values most nearly
                normal, by likelihood with a mild prior.
        """
        centre = float(values.mean())
        # Values that differ by rounding alone are equal.
        spread = max(float(values.std()), 1e-12 * abs(centre), 1e-300)
        standard = (values - centre) / spread
        if len(values) < 3 or float(values.std()) < spread:
            return cls(centre, spread, 1.0, 0.0, 1.0)
        powers = _POWERS if power is None else np.array([power])
        turned = _power(standard[None, :], powers[:, None])
        variance = np.maximum(turned.var(axis=1), 1e-12)
        likelihood = (
            -0.5 * len(values) * np.log(variance)
            + (powers - 1.0) * _log_slope(standard)
            - 0.5 * ((powers - 1.0) / _PRIOR) ** 2
        )
        best = int(likelihood.argmax())
        shift, scale = float(turned[best].mean()), float(np.sqrt(variance[best]))
        return cls(centre, spread, float(powers[best]), shift, scale)

    def log_slope(self, values: Floats) -> float:
        """Sum over values of the logarithm of the map's slope, relative to that of power 1.

        What has to be added to a log likelihood of standard numbers to compare powers.
        """
        standard = (values - self.centre) / self.spread
        return (self.power - 1.0) * _log_slope(standard) - len(values) * float(np.log(self.scale))

    def forward(self, values: Floats) -> Floats:
        """Values to standard numbers; same shape."""
        standard = (values - self.centre) / self.spread
        return (_power(standard, np.float64(self.power)) - self.shift) / self.scale

    def backward(self, standard: Floats) -> Floats:
        """Standard numbers to values; same shape.

        Numbers beyond the range of the transform become values far away, not infinite.
        """
        turned = standard * self.scale + self.shift
        return _unpower(turned, self.power) * self.spread + self.centre


def _log_slope(standard: Floats) -> float:
    return float((np.sign(standard) * np.log1p(np.abs(standard))).sum())


def _power(x: Floats, power: Floats | np.float64) -> Floats:
    positive = np.log1p(np.maximum(x, 0.0))
    negative = np.log1p(np.maximum(-x, 0.0))
    other = 2.0 - power
    with np.errstate(divide="ignore", invalid="ignore"):
        up = np.where(np.abs(power) < 1e-9, positive, np.expm1(power * positive) / power)
        down = np.where(np.abs(other) < 1e-9, negative, np.expm1(other * negative) / other)
    return up - down


def _unpower(y: Floats, power: float) -> Floats:
    other = 2.0 - power
    up, down = np.maximum(y, 0.0), np.maximum(-y, 0.0)
    return _unroot(up, power) - _unroot(down, other)


def _unroot(y: Floats, power: float) -> Floats:
    """Solves `((x + 1)^power - 1) / power = y` for x >= 0."""
    most = np.log1p(_FARTHEST)
    if abs(power) < 1e-9:
        return np.expm1(np.minimum(y, most))
    base = np.maximum(1.0 + power * y, 1e-300)
    return np.expm1(np.minimum(np.log(base) / power, most))
