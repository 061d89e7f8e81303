"""How much hypervolume a candidate is expected to add, when some of its objectives are known.

The region that the front leaves free is cut into boxes. What a point adds is the sum over the
boxes of the product over the objectives of how much of the box's side the point covers. A known
objective covers a known length; of an objective with a predictive distribution the expected length
is needed, and with independent predictions the expectation of the product is the product of the
expectations. So the expected gain is exact up to quadrature, for any number of known and unknown
objectives (Emmerich et al. 2011; Yang et al. 2019; Daulton et al. 2023 for known ones). Smaller is
better throughout.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from parefront.search.samplers.screening.boxes import FreeRegion

Floats = NDArray[np.float64]

_ELEMENTS = 4_000_000
"""Numbers in memory at once."""


def _quadrature() -> tuple[Floats, Floats]:
    """Nodes and weights for a standard normal; a fine grid, since what is integrated has kinks."""
    nodes = np.linspace(-4.0, 4.0, 33)
    weights = np.exp(-0.5 * nodes**2)
    return nodes, weights / weights.sum()


NODES, WEIGHTS = _quadrature()


class Known:
    """An objective whose value is known for each candidate.

    Args:
        values: `(n,)` values.
    """

    def __init__(self, values: Floats) -> None:
        self._values = values

    def below(self, edges: Floats) -> Floats:
        """Length from the value up to each edge, `(n, e)`; 0 for edges that are better."""
        return np.maximum(edges[None, :] - self._values[:, None], 0.0)


class Predicted:
    """An objective with a predictive distribution for each candidate.

    Args:
        nodes: `(n, q)` values at the quadrature nodes `NODES`.
    """

    def __init__(self, nodes: Floats) -> None:
        self._nodes = nodes

    def below(self, edges: Floats) -> Floats:
        """Expected length from the value up to each edge, `(n, e)`."""
        count, nodes = self._nodes.shape
        lengths = np.empty((count, len(edges)))
        step = max(1, _ELEMENTS // max(1, len(edges) * nodes))
        for start in range(0, count, step):
            rows = slice(start, start + step)
            gap = edges[None, :, None] - self._nodes[rows, None, :]
            lengths[rows] = np.maximum(gap, 0.0, out=gap) @ WEIGHTS
        return lengths


def expected_gains(
    region: FreeRegion, references: Sequence[Floats], objectives: Sequence[Known | Predicted]
) -> Floats:
    """Expected gain in hypervolume of each candidate alone, up to each of some references.

    Args:
        region: What the front leaves free.
        references: `r` points, each `(m,)`, up to which volume counts.
        objectives: What is known or predicted of each of `m` objectives, for `n` candidates.

    Returns:
        `(r, n)` gains, never negative.
    """
    boxes = [region.boxes(reference) for reference in references]
    lower, upper = (np.concatenate(corners) for corners in zip(*boxes, strict=True))
    ends = np.cumsum([len(low) for low, _ in boxes])[:-1]
    sides = []
    for axis, objective in enumerate(objectives):
        # What is covered up to an edge is needed once, however many boxes have it.
        edges, where = np.unique(
            np.concatenate([lower[:, axis], upper[:, axis]]), return_inverse=True
        )
        finite = np.isfinite(edges)
        below = objective.below(np.where(finite, edges, 0.0))
        below[:, ~finite] = 0.0
        sides.append((below, where[: len(lower)], where[len(lower) :]))
    count = len(sides[0][0])
    total = np.zeros((len(references), count))
    step = max(1, _ELEMENTS // max(1, len(lower)))
    for start in range(0, count, step):
        rows = slice(start, start + step)
        product: Floats = np.ones((1, 1))
        for below, low, high in sides:
            product = product * (below[rows][:, high] - below[rows][:, low])
        for index, part in enumerate(np.split(product, ends, axis=1)):
            total[index, rows] = part.sum(axis=1)
    return total
