"""Which trials go on at a rung."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from itertools import combinations
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from parefront.errors import UsageError
from parefront.objectives.measurement import Direction
from parefront.search.rungs import MARGIN, EarlyStopping, Floats, RungRule, ahead, beaten, goes_on

DIRECTIONS = {
    "accuracy": Direction.MAXIMIZE,
    "latency": Direction.MINIMIZE,
    "size": Direction.MINIMIZE,
}
LOG = {"latency": True, "size": True}
GROWING = (False, False, True)
points = arrays(
    float, st.tuples(st.integers(1, 7), st.integers(2, 3)), elements=st.integers(0, 4).map(float)
)


def values(accuracy: float, latency: float = 1.0, size: float = 1000.0) -> dict[str, float]:
    return {"accuracy": accuracy, "latency": latency, "size": size}


def stopping(
    rivals: Sequence[Mapping[str, float]],
    rule: RungRule | None = None,
    directions: Mapping[str, Direction] = DIRECTIONS,
    log: Mapping[str, bool] = LOG,
) -> EarlyStopping:
    return EarlyStopping(rule or RungRule(), directions, log, lambda _: rivals)


# Rank and contribution


def volume(costs: Floats, corner: Floats) -> float:
    """Hypervolume by inclusion and exclusion."""
    total = 0.0
    for count in range(1, len(costs) + 1):
        for chosen in combinations(costs, count):
            sides = np.maximum(corner - np.max(chosen, axis=0), 0.0)
            total -= (-1) ** count * float(np.prod(sides))
    return total


def peeled_rank(costs: Floats, row: int) -> int:
    """How many fronts have to be taken away before a point is on one."""
    left = list(range(len(costs)))
    for rank in range(len(costs)):
        front = [
            i
            for i in left
            if not any((costs[j] <= costs[i]).all() and (costs[j] < costs[i]).any() for j in left)
        ]
        if row in front:
            return rank
        left = [i for i in left if i not in front]
    raise AssertionError


@given(points)
def test_ahead_is_by_rank_and_then_by_what_the_volume_of_the_rank_loses(costs: Floats) -> None:
    width = np.ptp(costs, axis=0)
    scaled = (costs - costs.min(axis=0)) / np.where(width > 0, width, 1.0)
    corner = np.full(costs.shape[1], MARGIN)
    ranks = [peeled_rank(costs, row) for row in range(len(costs))]

    def adds(row: int) -> float:
        peers = [i for i in range(len(costs)) if ranks[i] == ranks[row]]
        without = [i for i in peers if i != row]
        return round(volume(scaled[peers], corner) - volume(scaled[without], corner), 9)

    keys = [(ranks[row], -adds(row)) for row in range(len(costs))]
    for row in range(len(costs)):
        # Contributions that are equal but for rounding may count either way.
        less = sum(key < (keys[row][0], keys[row][1] - 1e-8) for key in keys)
        more = sum(key < (keys[row][0], keys[row][1] + 1e-8) for key in keys)
        assert less <= ahead(costs, row) <= more


def test_one_objective_is_an_order() -> None:
    costs = np.array([[3.0], [1.0], [2.0], [2.0]])
    assert [ahead(costs, row) for row in range(4)] == [3, 0, 1, 1]


@given(points, st.floats(0, 3))
def test_beaten_with_room_is_beaten_by_a_weak_dominator_of_the_better_point(
    costs: Floats, slack: float
) -> None:
    room = np.zeros(costs.shape[1])
    room[-1] = slack
    for row in range(len(costs)):
        better = [c - r for c, r in zip(costs[row], room, strict=True)]
        expected = any(
            all(c <= b for c, b in zip(costs[other], better, strict=True))
            for other in range(len(costs))
            if other != row
        )
        assert beaten(costs, row, room) == expected


# The rule


@given(points, st.floats(0, 1), st.integers(1, 8), st.floats(0.01, 2))
def test_who_goes_on(costs: Floats, keep: float, least: int, slack: float) -> None:
    rule = RungRule(keep=keep, least=least, slack=slack)
    growing = [False] * (costs.shape[1] - 1) + [True]
    for row in range(len(costs)):
        kept = goes_on(costs, row, growing, rule)
        if len(costs) < least or ahead(costs, row) < keep * len(costs):
            assert kept
        if peeled_rank(costs, row) == 0 and np.ptp(costs[:, -1]) > 0:
            # On the front of the rung as it is: equal points aside, nothing beats it.
            equal = (costs == costs[row]).all(axis=1).sum() > 1
            assert kept or equal
        # Whatever lets a trial go on, more patience does.
        patient = RungRule(keep=min(1.0, keep + 0.2), least=least + 1, slack=2 * slack)
        assert goes_on(costs, row, growing, patient) or not kept


@given(points.filter(lambda costs: len(costs) > 1))
def test_a_strict_rule_keeps_its_share_of_distinct_ranks(costs: Floats) -> None:
    # On a line every rank has one point, and without slack the rule is successive halving.
    line = np.arange(len(costs), dtype=float)[:, None] * np.ones(3)
    rule = RungRule(keep=0.5, least=1, slack=0.0)
    kept = [goes_on(line, row, GROWING, rule) for row in range(len(line))]
    assert kept == [row < len(line) / 2 for row in range(len(line))]


def test_accuracy_may_still_gain_what_the_slack_allows() -> None:
    # Best error 0, median 4: a slack of 0.5 is a gain of 2 at most.
    errors = [0.0, 2.0, 4.0, 6.0, 8.0]
    costs = np.array([[1.0, 1.0, error] for error in errors])
    strict, lenient = (RungRule(keep=0.0, least=1, slack=slack) for slack in (0.0, 0.5))
    assert [goes_on(costs, row, GROWING, strict) for row in range(5)] == [True] + [False] * 4
    almost = costs.copy()
    almost[1, 2] = 1.9
    assert not goes_on(costs, 1, GROWING, lenient)
    assert goes_on(almost, 1, GROWING, lenient)
    # The same differences in what training does not change leave no room.
    assert not goes_on(almost, 1, (False, False, False), lenient)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"shares": (0.5, 0.25)}, r"expected shares ascending in \(0, 1\), got \(0\.5, 0\.25\)"),
        ({"shares": (0.0,)}, "expected shares ascending"),
        ({"shares": (0.5, 1.0)}, "expected shares ascending"),
        ({"keep": 1.5}, r"expected keep within \[0, 1\], got 1\.5"),
        ({"keep": math.nan}, "expected keep within"),
        ({"least": 0}, "expected least to be 1 or more, got 0"),
        ({"slack": -0.1}, r"expected a finite slack of 0 or more, got -0\.1"),
        ({"slack": math.inf}, "expected a finite slack"),
    ],
)
def test_impossible_rules_are_refused(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        RungRule(**fields)


# Trials


def test_what_is_beaten_in_everything_is_stopped_and_what_beats_all_goes_on() -> None:
    others = [values(0.9 - 0.01 * i, 1 + 0.1 * i, 1000 + 10 * i) for i in range(8)]
    judge = stopping(others).judge
    worst, best = judge(0.25, values(0.5, 3.0, 2000)), judge(0.25, values(0.95, 0.5, 500))
    assert (worst.share, worst.rivals, worst.promoted) == (0.25, 8, False)
    assert worst.values == values(0.5, 3.0, 2000)
    assert best.promoted


def test_the_smallest_goes_on_however_little_it_has_learnt() -> None:
    others = [values(0.9 - 0.01 * i, 1 + 0.1 * i, 1000 + 10 * i) for i in range(20)]
    assert stopping(others).judge(0.25, values(0.1, 5.0, 999)).promoted


def test_nobody_is_stopped_before_enough_have_reached_the_rung() -> None:
    others = [values(0.9 + 0.01 * i) for i in range(5)]
    for count in range(6):
        judged = stopping(others[:count], RungRule(least=6)).judge(0.5, values(0.1, 9.0, 9000))
        assert judged.promoted == (count < 5)


def test_rivals_are_those_of_the_rung() -> None:
    at = {0.25: [values(0.9)] * 9, 0.5: []}
    rule = EarlyStopping(RungRule(), DIRECTIONS, LOG, lambda share: at[share])
    assert not rule.judge(0.25, values(0.1)).promoted
    assert rule.judge(0.5, values(0.1)).promoted


def test_ratios_count_where_the_scale_is_logarithmic() -> None:
    # One beats all, one is beaten by all, and three are between them, of one rank. Of these the
    # first has the second largest contribution on a logarithmic scale of latency, and the smallest
    # on a linear one.
    rule = RungRule(keep=0.6, least=1, slack=0.0)
    first = values(0.2, 1.0)
    others = [values(0.99, 0.5), values(0.01, 100.0), values(0.5, 10.0), values(0.9, 100.0)]
    assert stopping(others, rule).judge(0.5, first).promoted
    assert not stopping(others, rule, log={}).judge(0.5, first).promoted


def test_a_task_whose_metric_is_minimised() -> None:
    directions = DIRECTIONS | {"accuracy": Direction.MINIMIZE}
    others = [values(0.1 + 0.01 * i) for i in range(9)]
    judge = stopping(others, directions=directions).judge
    assert judge(0.25, values(0.05)).promoted
    assert not judge(0.25, values(0.9)).promoted


@pytest.mark.parametrize("odd", [values(math.nan), values(0.1, math.inf), values(0.1, 0.0)])
def test_what_cannot_be_compared_goes_on_and_is_no_rival(odd: dict[str, float]) -> None:
    others = [values(0.9)] * 9
    assert stopping(others).judge(0.25, odd).promoted
    judged = stopping([*others, odd]).judge(0.25, values(0.1, 2.0))
    assert judged.rivals == 9
    assert not judged.promoted


def test_only_the_objectives_that_are_compared_count() -> None:
    others: list[dict[str, float]] = [values(0.9) | {"energy": 5.0} for _ in range(9)]
    others.append({"accuracy": 0.9})  # not measured in everything
    judged = stopping(others).judge(0.25, values(0.1) | {"energy": 1.0})
    assert judged.rivals == 9
    assert not judged.promoted
    assert judged.values["energy"] == 1.0
    with pytest.raises(KeyError, match="latency"):
        stopping(others).judge(0.25, {"accuracy": 0.1, "size": 1.0})


@given(st.permutations(range(12)))
def test_the_order_of_the_rivals_does_not_matter(order: list[int]) -> None:
    rng = np.random.default_rng(0)
    others = [values(*row) for row in rng.uniform(0.1, 1, (12, 3))]
    mine = values(0.5, 0.5, 0.6)
    expected = stopping(others).judge(0.25, mine)
    assert stopping([others[i] for i in order]).judge(0.25, mine) == expected
