"""The box that objectives are scaled to, and the points up to which volume counts."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

_MARGIN = 0.1
"""How far a reference point lies beyond the worst values, as a share of their range."""
_STEPS = 10.0
"""Differences that mean something which a range has at least: noise must not look like a choice."""
_FARTHEST = 2.0
"""How far it may lie where something worse than all values is expected, in the same unit."""


@dataclass(frozen=True, eq=False)
class Frame:
    """The scale of a study's objectives; smaller is better throughout.

    Gains depend on where the reference point is, and how the result will be judged is not known.
    So there are two: beyond the worst values seen anywhere, which favours the ends of the front,
    and beyond the worst on the front, which favours its middle.

    Attributes:
        low: `(m,)` best values.
        width: `(m,)` differences to the worst.
        far: `(m,)` reference point beyond all values, scaled.
        near: `(m,)` reference point beyond the front, scaled.
    """

    low: Floats
    width: Floats
    far: Floats
    near: Floats

    @classmethod
    def of(cls, seen: Floats, front: Floats, resolution: Floats | float = 0.0) -> Frame:
        """The frame of values.

        Args:
            seen: `(n, m)` values; NaN where one is not known.
            front: `(k, m)` those on the front, if any.
            resolution: `(m,)` the least differences that mean something.
        """
        least = _STEPS * np.asarray(resolution)
        known = np.isfinite(seen)
        low = np.where(known, seen, np.inf).min(axis=0, initial=np.inf)
        high = np.where(known, seen, -np.inf).max(axis=0, initial=-np.inf)
        low, high = np.where(low <= high, low, 0.0), np.where(low <= high, high, 0.0)
        width = np.maximum(high - low, least)
        width = np.where(width > 0.0, width, 1.0)
        far = np.full(len(low), 1.0 + _MARGIN)
        if len(front) == 0:
            return cls(low, width, far, far.copy())
        span = np.maximum(np.ptp(front, axis=0), least)
        near = (front.max(axis=0) + _MARGIN * span - low) / width
        return cls(low, width, far, np.where(span > 0.0, near, far))

    def scaled(self, values: Floats, objective: int) -> Floats:
        """Values of one objective, scaled so that the best is 0 and the worst 1; same shape."""
        scaled: Floats = (values - self.low[objective]) / self.width[objective]
        return scaled

    def stretch(self, objective: int, expected: Floats) -> None:
        """Moves the far reference to where candidates are expected that are worse than any seen.

        The smallest model is on the front however bad it is; it must be worth something.

        Args:
            objective: The objective.
            expected: `(n,)` expected values, scaled.
        """
        worst = min(float(expected.max()), _FARTHEST)
        self.far[objective] = max(self.far[objective], worst + _MARGIN)
