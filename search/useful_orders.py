"""Orders in which the trials of a study are of use to another."""

from __future__ import annotations

from collections.abc import Sequence
from random import Random

import numpy as np
from numpy.typing import NDArray

from parefront.objectives.front import dominated, log_scaled, normalize, reference_box
from parefront.objectives.knee import knee
from parefront.objectives.measurement import Direction
from parefront.search.entry import Entry
from parefront.search.measures import Measure

_LARGEST_FRONT = 64
"""Points of a front that others are compared with to find the near ones."""

Floats = NDArray[np.float64]


def useful_orders(
    entries: Sequence[Entry], measures: Sequence[Measure], metric: Direction
) -> list[list[Entry]]:
    """Complete trials in the orders in which they are of use to another search.

    Args:
        entries: Complete trials in the order of their numbers.
        measures: Objectives that count, each measured in every one of the trials.
        metric: Direction of the task's metric.

    Returns:
        The front, its knee first and then the farthest from all before; those that keep every
        bound, the nearest to the front first; all, the latest first; and all in any order.
    """
    shuffled = list(entries)
    Random(len(entries)).shuffle(shuffled)
    latest = list(entries[::-1])
    feasible = [entry for entry in entries if entry.feasible]
    if not feasible or not measures:
        return [[], [], latest, shuffled]
    found = [
        [entry.outcome.measurements[m.name] for m in measures]
        for entry in feasible
        if entry.outcome is not None
    ]
    values, low, high = (
        np.array([[getattr(m, end) for m in row] for row in found])
        for end in ("value", "low", "high")
    )
    maximize = [m.direction(metric) == Direction.MAXIMIZE for m in measures]
    log = [m.objective.log for m in measures]
    on_front = np.flatnonzero(~dominated(values, low, high, maximize))
    points = log_scaled(values, log)
    scaled = normalize(points, *reference_box(points[on_front], maximize), maximize)
    first = knee(values[on_front], maximize, log)
    front = on_front[_spread(scaled[on_front], first)]
    near = np.argsort(_gaps(scaled, scaled[front[:_LARGEST_FRONT]]), kind="stable")
    return [[feasible[i] for i in front], [feasible[i] for i in near], latest, shuffled]


def _spread(points: Floats, first: int) -> NDArray[np.intp]:
    """An order of points: one, then each time the one that is farthest from all before it.

    Source: Gonzalez, Clustering to minimize the maximum intercluster distance, 1985.
    """
    order = [first]
    distance = np.full(len(points), np.inf)
    while len(order) < len(points):
        step = np.linalg.norm(points - points[order[-1]], axis=1)
        distance = np.minimum(distance, step)
        distance[order] = -1.0
        order.append(int(distance.argmax()))
    return np.array(order)


def _gaps(points: Floats, front: Floats) -> Floats:
    """How far all objectives of each point must fall for it to be on a front; `(n,)`."""
    gaps = np.full(len(points), np.inf)
    for point in front:
        gaps = np.minimum(gaps, (points - point).max(axis=1))
    return gaps
