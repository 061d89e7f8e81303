"""The region that no point of a front dominates, as boxes that do not overlap.

The algorithm keeps the local upper bounds of the front, each with the points that define it
(Klamroth, Lacour, Vanderpooten 2015), from which the boxes are read off (Lacour, Klamroth,
Fonseca 2017). Smaller is better throughout.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]


class FreeRegion:
    """The region that no inserted point dominates.

    Points may share coordinates: the algorithm runs on the order of the coordinates, in which a
    later point counts as larger, and at worst makes boxes without volume.

    Args:
        points: `(n, m)` points, none of which dominates another.
    """

    def __init__(self, points: Floats) -> None:
        count, axes = points.shape
        # Positions 1 to n are the points; 0 stands for the ideal, n + 1 for the reference.
        order = np.argsort(points, axis=0, kind="stable")
        ranks = np.empty((count, axes), dtype=np.int64)
        np.put_along_axis(ranks, order, np.arange(1, count + 1)[:, None], axis=0)
        self._sorted = np.take_along_axis(points, order, axis=0)
        upper = np.full((1, axes), count + 1)
        defining = np.zeros((1, axes, axes), dtype=np.int64)
        defining[0, np.arange(axes), np.arange(axes)] = count + 1
        # Points in the order of their first coordinate meet fewer bounds.
        for point in ranks[order[:, 0]] if axes else ranks:
            upper, defining = _inserted(upper, defining, point)
        self._upper = upper
        lower = np.zeros_like(upper)
        for axis in range(axes - 1):
            lower[:, axis] = defining[:, axis + 1 :, axis].max(axis=1)
        self._lower = lower

    def boxes(self, reference: Floats) -> tuple[Floats, Floats]:
        """The boxes up to a reference point.

        Args:
            reference: `(m,)` point.

        Returns:
            Lower and upper corners, each `(b, m)`; lower coordinates may be minus infinity.
        """
        axes = len(reference)
        low, high = np.full((1, axes), -np.inf), np.full((1, axes), np.inf)
        edges = np.vstack([low, self._sorted, high])
        columns = np.arange(axes)
        lower, upper = edges[self._lower, columns], edges[self._upper, columns]
        upper = np.minimum(upper, reference)
        solid = (lower < upper).all(axis=1)
        return lower[solid], upper[solid]


def _inserted(
    upper: NDArray[np.int64], defining: NDArray[np.int64], point: NDArray[np.int64]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """The local upper bounds with one more point, all coordinates of an axis being different."""
    axes = len(point)
    hit = (point < upper).all(axis=1)
    if not hit.any():
        return upper, defining
    bounds, points = upper[hit], defining[hit]
    uppers, definings = [upper[~hit]], [defining[~hit]]
    for axis in range(axes):
        others = [k for k in range(axes) if k != axis]
        # Coordinate `axis` of the points that define the bound along the other axes.
        most = points[:, others, axis].max(axis=1) if others else np.zeros(len(points))
        kept = point[axis] > most
        bound, by = bounds[kept], points[kept]
        bound[:, axis] = point[axis]
        by[:, axis, :] = point
        uppers.append(bound)
        definings.append(by)
    return np.concatenate(uppers), np.concatenate(definings)
