"""The balanced point of a front, and how far others are from the ideal."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike

from parefront.objectives.front import Floats, log_scaled, normalize, reference_box

SAME_DISTANCE = 1e-12
"""Distances to the ideal that differ by less are the same: mirrored points differ in last bits."""


def distance_to_ideal(
    values: ArrayLike,
    maximize: Sequence[bool],
    log: Sequence[bool],
    weights: Sequence[float] | None = None,
) -> Floats:
    """How far each point of a front is from the best value of every objective at once.

    With z the objectives after the logarithm where `log` says so, every objective is scaled over
    the front to `u = |z - ideal| / |nadir - ideal|` in [0, 1], 0 if all are equal, and the
    distance is the Euclidean length of `w u` (compromise programming: Yu 1973, Zeleny 1973).

    Args:
        values: `(n, m)` points of a front.
        maximize: `m` flags, true where larger is better.
        log: `m` flags, true for positive objectives in which ratios matter.
        weights: `m` weights, zero or more and at least one positive; all 1 by default. Only their
            proportions matter: the largest counts as 1.

    Returns:
        `(n,)` distances, smaller is better; infinite for a row that was not measured.

    Raises:
        ValueError: If the shapes do not fit, a weight is negative or infinite, none is positive, no
            row was measured, or as `log_scaled`.
    """
    points = log_scaled(values, log)
    weight = np.ones(points.shape[1]) if weights is None else np.asarray(weights, dtype=float)
    fits = weight.shape == (points.shape[1],) and np.isfinite(weight).all()
    if not fits or (weight < 0).any() or not (weight > 0).any():
        raise ValueError(
            f"expected {points.shape[1]} weights of zero or more, at least one of them positive, "
            f"got {weight.tolist()}"
        )
    ideal, nadir = reference_box(points, maximize)
    scaled = normalize(points, ideal, nadir, maximize) * (weight / weight.max())
    distance: Floats = np.sqrt((scaled**2).sum(axis=1))
    distance[~np.isfinite(points).all(axis=1)] = np.inf
    return distance


def knee(values: ArrayLike, maximize: Sequence[bool], log: Sequence[bool]) -> int:
    """The balanced point of a front: the nearest to its ideal, as `distance_to_ideal` has it.

    Args:
        values: `(n, m)` points of a front.
        maximize: `m` flags, true where larger is better.
        log: `m` flags, true for positive objectives in which ratios matter.

    Returns:
        The row of the knee; of equally near ones the first.

    Raises:
        ValueError: If the shapes do not fit, no row was measured, or as `log_scaled`.
    """
    distance = distance_to_ideal(values, maximize, log)
    return int(np.flatnonzero(distance <= distance.min() + SAME_DISTANCE)[0])
