"""Orders in which the trials of a study are of use to another."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

import parefront as pf
from parefront.search.measures import measures
from parefront.search.study_file import StudyFile
from parefront.search.useful_orders import useful_orders
from tests.search.past_trials import candidate, entry, outcome


def by_hand(points: np.ndarray[Any, Any], first: int) -> list[int]:
    """Farthest-first order, one step at a time."""
    order = [first]
    while len(order) < len(points):
        rest = [i for i in range(len(points)) if i not in order]
        nearest: Callable[[int], float] = lambda i: min(  # noqa: E731
            float(np.linalg.norm(points[i] - points[j])) for j in order
        )
        order.append(max(rest, key=nearest))
    return order


def test_the_front_is_ordered_farthest_first() -> None:
    rng = np.random.default_rng(1)
    accuracy = np.sort(rng.random(12))
    size = np.exp(np.sort(rng.normal(size=12)) + 5)
    entries = [
        entry(number, candidate(0.5, "a"), outcome(a, s))
        for number, (a, s) in enumerate(zip(accuracy.tolist(), size.tolist(), strict=True))
    ]
    chosen = [m for m in measures(StudyFile.of({
        "study": {"name": "x", "task": "x"}, "objectives": {"accuracy": {}, "size": {}},
    }).objectives, []) if m.goal.optimize]  # fmt: skip
    front, near, latest, shuffled = useful_orders(entries, chosen, pf.metrics.accuracy.direction)
    numbers = [each.trial.number for each in front]
    scaled = np.column_stack([accuracy, np.log(size)])
    scaled = (scaled - scaled.min(axis=0)) / np.ptp(scaled, axis=0)
    scaled[:, 0] = 1 - scaled[:, 0]
    first = int(np.linalg.norm(scaled, axis=1).argmin())
    assert numbers == by_hand(scaled, first)
    assert [each.trial.number for each in latest] == list(range(11, -1, -1))
    assert sorted(each.trial.number for each in near) == list(range(12))
    assert sorted(each.trial.number for each in shuffled) == list(range(12))


def test_the_nearest_to_the_front_come_first() -> None:
    behind = {0: 0.0, 1: 0.3, 2: 0.1, 3: 0.0, 4: 0.2}
    entries = [
        entry(number, candidate(0.5), outcome(0.9 - 0.5 * (number == 3) - gap, 1000.0 * scale))
        for (number, gap), scale in zip(behind.items(), (4, 4, 4, 1, 4), strict=True)
    ]
    chosen = [m for m in measures({"accuracy": pf_goal(), "size": pf_goal()}, [])
              if m.goal.optimize]  # fmt: skip
    _, near, _, _ = useful_orders(entries, chosen, pf.metrics.accuracy.direction)
    assert [behind[each.trial.number] for each in near] == sorted(behind.values())


def pf_goal() -> Any:
    return StudyFile.of(
        {"study": {"name": "x", "task": "x"}, "objectives": {"size": {}}}
    ).objectives["size"]
