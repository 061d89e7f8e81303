"""The front's mathematics: dominance under noise, hypervolume and reference box.

Every function takes points as an `(n, m)` array, one row a candidate and one column an objective
in the unit it was measured in, and `maximize`, one flag an objective: true where larger values
are better. A row with a value that is NaN or infinite was not measured: it is never on the front,
dominates nothing and adds no volume.
"""

from __future__ import annotations

from collections.abc import Sequence

import moocore
import numpy as np
from numpy.typing import ArrayLike, NDArray

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]

_CHUNK_ELEMENTS = 4_000_000
"""Pairs compared at once: bounds the working memory of `dominated` to some tens of MB."""


def dominated(
    values: ArrayLike, low: ArrayLike, high: ArrayLike, maximize: Sequence[bool]
) -> Bools:
    """Which points leave the front because another one beats them beyond the noise.

    Point b is dominated if some point a is at least as good as b in every objective by the
    values, and better beyond both intervals (they do not even touch) in at least one. Where all
    intervals have zero width this is Pareto dominance.

    The relation is a part of Pareto dominance of the values, so it has no cycles: a set with a
    measured point has a front, and every Pareto-optimal point of the values is on it. It is not
    transitive, so what beats a point need not be on the front itself. Equal points keep each
    other company.

    Args:
        values: `(n, m)` estimates.
        low: `(n, m)` lower ends of the intervals, `low <= values`.
        high: `(n, m)` upper ends of the intervals, `values <= high`.
        maximize: `m` flags, true where larger is better.

    Returns:
        `(n,)` flags; the front is where they are false. Rows that were not measured, or have an
        interval with NaN, are true.

    Raises:
        ValueError: If the shapes differ, or a value is outside its interval.
    """
    costs, best, worst, known = as_costs(values, low, high, maximize)
    result: Bools = ~known
    points, best, worst = costs[known], best[known], worst[known]
    beaten = np.zeros(len(points), dtype=bool)
    step = max(1, _CHUNK_ELEMENTS // max(1, len(points)))
    for start in range(0, len(points), step):
        rows = slice(start, start + step)
        no_worse = np.ones((len(points[rows]), len(points)), dtype=bool)
        better = np.zeros_like(no_worse)
        for axis in range(points.shape[1]):
            no_worse &= points[:, axis] <= points[rows, axis, None]
            better |= worst[:, axis] < best[rows, axis, None]
        beaten[rows] = (no_worse & better).any(axis=1)
    result[known] = beaten
    return result


def as_costs(
    values: ArrayLike, low: ArrayLike, high: ArrayLike, maximize: Sequence[bool]
) -> tuple[Floats, Floats, Floats, Bools]:
    """Turns points and intervals so that smaller is better everywhere.

    Args:
        values: `(n, m)` estimates.
        low: `(n, m)` lower ends of the intervals, `low <= values`.
        high: `(n, m)` upper ends of the intervals, `values <= high`.
        maximize: `m` flags, true where larger is better.

    Returns:
        The values, the better and the worse ends of the intervals, each `(n, m)`, and `(n,)` flags
        of the rows that were measured: their values are finite and their intervals not NaN.

    Raises:
        ValueError: If the shapes differ, or a value is outside its interval.
    """
    points, sign = _points(values, maximize)
    lower, upper = np.asarray(low, dtype=float), np.asarray(high, dtype=float)
    if lower.shape != points.shape or upper.shape != points.shape:
        raise ValueError(
            f"expected intervals of shape {points.shape} like the values, "
            f"got {lower.shape} and {upper.shape}"
        )
    known: Bools = np.isfinite(points).all(axis=1) & ~np.isnan(lower + upper).any(axis=1)
    outside = known & ((lower > points) | (points > upper)).any(axis=1)
    if outside.any():
        raise ValueError(f"expected low <= value <= high, not so in row {outside.argmax()}")
    best = np.where(sign > 0, lower, -upper)
    worst = np.where(sign > 0, upper, -lower)
    return points * sign, best, worst, known


def dominates(
    values: ArrayLike,
    low: ArrayLike,
    high: ArrayLike,
    point: ArrayLike,
    maximize: Sequence[bool],
) -> bool:
    """Whether some of the points beats one more, whose values are exact; as `dominated`.

    Args:
        values: `(n, m)` estimates, all finite.
        low: `(n, m)` lower ends of the intervals.
        high: `(n, m)` upper ends of the intervals.
        point: `(m,)` values of the one.
        maximize: `m` flags, true where larger is better.

    Raises:
        ValueError: If the shapes of the values do not fit.
    """
    points, sign = _points(values, maximize)
    one = np.asarray(point, dtype=float) * sign
    worst = np.where(sign > 0, np.asarray(high, dtype=float), -np.asarray(low, dtype=float))
    return bool(((points * sign <= one).all(axis=1) & (worst < one).any(axis=1)).any())


def hypervolume(values: ArrayLike, reference: ArrayLike, maximize: Sequence[bool]) -> float:
    """Volume of what the points dominate, up to the reference point; larger is better.

    Args:
        values: `(n, m)` points; dominated ones and those no better than the reference add nothing.
        reference: `(m,)` point that is worse than the points of interest.
        maximize: `m` flags, true where larger is better.

    Returns:
        The volume, in the product of the units; 0 without points.

    Raises:
        ValueError: If the shapes do not fit, or the reference is not finite.
    """
    points, corner = _against(values, reference, maximize)
    return _volume(points[np.isfinite(points).all(axis=1)], corner)


def hypervolume_history(
    values: ArrayLike, reference: ArrayLike, maximize: Sequence[bool]
) -> Floats:
    """Hypervolume after the first point, the first two points, and so on.

    Args:
        values: `(n, m)` points in the order in which they were found.
        reference: `(m,)` point, as in `hypervolume`.
        maximize: `m` flags, true where larger is better.

    Returns:
        `(n,)` volumes that never fall.

    Raises:
        ValueError: As `hypervolume`.
    """
    points, corner = _against(values, reference, maximize)
    front = np.empty((0, points.shape[1]))
    history = np.zeros(len(points))
    volume = 0.0
    for index, point in enumerate(points):
        adds = np.isfinite(point).all() and not (front <= point).all(axis=1).any()
        if adds and (point < corner).all():
            front = np.vstack([front[~(point <= front).all(axis=1)], point])
            # Another order of summation may round to a smaller number.
            volume = max(volume, _volume(front, corner))
        history[index] = volume
    return history


def reference_box(values: ArrayLike, maximize: Sequence[bool]) -> tuple[Floats, Floats]:
    """The box spanned by points: the best and the worst value of each objective.

    Args:
        values: `(n, m)` points. Of a front's points the worst values are the nadir of the front.
        maximize: `m` flags, true where larger is better.

    Returns:
        Ideal and nadir, each `(m,)`.

    Raises:
        ValueError: If the shapes do not fit, or no row was measured.
    """
    points, sign = _points(values, maximize)
    known = points[np.isfinite(points).all(axis=1)]
    if len(known) == 0:
        raise ValueError(f"expected at least one row without NaN, got none of {len(points)}")
    costs = known * sign
    return costs.min(axis=0) * sign, costs.max(axis=0) * sign


def normalize(
    values: ArrayLike, ideal: ArrayLike, nadir: ArrayLike, maximize: Sequence[bool]
) -> Floats:
    """Scales each objective so that the ideal becomes 0 and the nadir 1; smaller is better.

    Args:
        values: `(n, m)` points.
        ideal: `(m,)` best values.
        nadir: `(m,)` worst values; an objective in which they equal the ideal keeps its unit, and
            is only shifted and turned.
        maximize: `m` flags, true where larger is better.

    Returns:
        `(n, m)` scaled points; NaN stays NaN.

    Raises:
        ValueError: If the shapes do not fit.
    """
    points, sign = _points(values, maximize)
    best, worst = np.asarray(ideal, dtype=float), np.asarray(nadir, dtype=float)
    if best.shape != sign.shape or worst.shape != sign.shape:
        raise ValueError(
            f"expected an ideal and a nadir of shape {sign.shape}, got {best.shape} "
            f"and {worst.shape}"
        )
    width = np.abs(worst - best)
    scaled: Floats = (points - best) * sign / np.where(width == 0.0, 1.0, width)
    return scaled


def log_scaled(values: ArrayLike, log: Sequence[bool]) -> Floats:
    """Takes the natural logarithm of some objectives, so that equal ratios weigh the same.

    Args:
        values: `(n, m)` points.
        log: `m` flags, true where the values are positive and ratios matter, such as latency
            and size.

    Returns:
        `(n, m)` points; NaN stays NaN.

    Raises:
        ValueError: If the shapes do not fit, or a value to take the logarithm of is not positive.
    """
    points, _ = _points(values, log)
    scaled = points.copy()
    for axis in np.flatnonzero(log):
        if (points[:, axis] <= 0).any():
            raise ValueError(
                f"expected positive values in column {axis} for a logarithmic scale, "
                f"got {np.nanmin(points[:, axis])}"
            )
        scaled[:, axis] = np.log(points[:, axis])
    return scaled


def _points(values: ArrayLike, flags: Sequence[bool]) -> tuple[Floats, Floats]:
    """The points as floats, and for each objective +1, or -1 where its flag is set."""
    points = np.asarray(values, dtype=float)
    if points.ndim != 2 or points.shape[1] != len(flags) or len(flags) == 0:
        raise ValueError(
            f"expected points of shape (n, {len(flags)}), one column for each of {len(flags)} "
            f"flags, got shape {points.shape}"
        )
    return points, np.where(np.asarray(flags, dtype=bool), -1.0, 1.0)


def _against(
    values: ArrayLike, reference: ArrayLike, maximize: Sequence[bool]
) -> tuple[Floats, Floats]:
    """Points and reference, turned so that smaller is better."""
    points, sign = _points(values, maximize)
    corner = np.asarray(reference, dtype=float)
    if corner.shape != sign.shape or not np.isfinite(corner).all():
        raise ValueError(
            f"expected a finite reference of shape {sign.shape}, got {corner.tolist()}"
        )
    return points * sign, corner * sign


def _volume(points: Floats, corner: Floats) -> float:
    return float(moocore.hypervolume(points, ref=corner)) if len(points) else 0.0
