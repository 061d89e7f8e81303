"""A value and its interval from one figure of each of several processes."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from parefront.objectives.measurement import Measurement
from parefront.objectives.targets.rounds import EXPECTATION_WEIGHT, student


def of_processes(
    figures: Sequence[float],
    *,
    unit: str,
    expected: float,
    protocol: str,
    details: Mapping[str, Any],
) -> Measurement:
    """The median, with an interval for a repeat in as many processes.

    With s the standard deviation of the logarithms, pooled with the expected one, and n figures,
    the half-width in logarithms is `t s sqrt(pi / n)`: the errors of two medians of normal
    figures, by Student's t. A single figure comes from a device without noise and is exact.

    Args:
        figures: Positive figures in `unit`, one a process.
        unit: Unit of the figures.
        expected: Spread that is expected before any is seen, as a standard deviation of
            logarithms.
        protocol: How it was measured, in a word or two.
        details: Facts to keep beside the value.
    """
    logs = np.log(figures)
    centre = float(np.median(logs))
    half = 0.0
    if len(logs) > 1:
        freedom = EXPECTATION_WEIGHT + len(logs) - 1
        squares = EXPECTATION_WEIGHT * expected**2 + float(((logs - centre) ** 2).sum())
        half = student(freedom) * math.sqrt(squares / freedom) * math.sqrt(math.pi / len(logs))
    value = float(np.median(figures)) if half == 0.0 else math.exp(centre)
    return Measurement(
        value=value,
        low=value * math.exp(-half),
        high=value * math.exp(half),
        unit=unit,
        samples=len(figures),
        protocol=protocol,
        details=details,
    )
