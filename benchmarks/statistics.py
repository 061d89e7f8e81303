"""Intervals for what benchmarks print."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray


def half_interval(values: NDArray[np.float64]) -> float:
    """Half the width of the 95 % interval of a mean, by Student's distribution.

    Args:
        values: `(n,)` values; of one value the interval is not known, and NaN.
    """
    free = len(values) - 1
    if free < 1:
        return math.nan
    z = 1.959964
    # Expansion of the quantile in 1 / free (Abramowitz and Stegun 26.7.5).
    terms = (
        (z**3 + z) / 4,
        (5 * z**5 + 16 * z**3 + 3 * z) / 96,
        (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / 384,
        (79 * z**9 + 776 * z**7 + 1482 * z**5 - 1920 * z**3 - 945 * z) / 92160,
    )
    quantile = z + sum(term / free**power for power, term in enumerate(terms, start=1))
    return float(quantile * values.std(ddof=1) / math.sqrt(len(values)))
