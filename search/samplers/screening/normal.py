"""Probabilities and quantiles of the normal and Student's distribution."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]


def probability_below(limit: float, mean: Floats, deviation: Floats) -> Floats:
    """Probability that normal numbers are at most a limit, elementwise."""
    z = (mean - limit) / deviation * math.sqrt(0.5)
    return 0.5 * np.array([math.erfc(each) for each in z.tolist()])


def student_quantile(z: float, freedom: float) -> float:
    """The number that Student's t is below as often as a standard normal one is below `z`.

    By its expansion in the inverse degrees of freedom (Abramowitz and Stegun 26.7.5), which is
    within 3 % for 4 degrees and more and up to 3 deviations.

    Args:
        z: Deviations of a normal number.
        freedom: Degrees of freedom.
    """
    terms = (
        (z**3 + z) / 4,
        (5 * z**5 + 16 * z**3 + 3 * z) / 96,
        (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / 384,
        (79 * z**9 + 776 * z**7 + 1482 * z**5 - 1920 * z**3 - 945 * z) / 92160,
    )
    return z + sum(term / freedom**power for power, term in enumerate(terms, start=1))
