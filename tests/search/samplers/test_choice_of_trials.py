"""Which trials of a long study are shown to a sampler."""

from __future__ import annotations

import random
from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from optuna.distributions import IntDistribution
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState, create_trial

from parefront.search.samplers.choice_of_trials import ChoiceOfTrials

MIN, MAX = StudyDirection.MINIMIZE, StudyDirection.MAXIMIZE

points = st.lists(st.tuples(*[st.integers(min_value=0, max_value=9)] * 2), min_size=1, max_size=60)


def trial(
    number: int,
    values: Sequence[float] | None,
    violation: float = 0.0,
) -> FrozenTrial:
    made = create_trial(
        state=TrialState.PRUNED if values is None else TrialState.COMPLETE,
        values=values,
        params={"x": number},
        distributions={"x": IntDistribution(0, 1 << 20)},
        constraints={"size": violation, "latency": -1.0},
    )
    made.number = number
    return made


def chosen(
    trials: Sequence[FrozenTrial],
    most: int,
    *,
    directions: Sequence[StudyDirection] = (MIN, MIN),
    seed: int = 0,
) -> list[int]:
    choice = ChoiceOfTrials(directions, seed)
    for each in trials:
        choice.add(each)
    assert len(choice) == len(trials)
    return [each.number for each in choice.choose(most)]


def rank(values: Sequence[Sequence[float]]) -> list[int]:
    """Layer of each point, found by comparing all with all."""
    left = set(range(len(values)))
    ranks = [0] * len(values)
    layer = 0
    while left:
        on = {
            i
            for i in left
            if not any(
                all(a <= b for a, b in zip(values[j], values[i], strict=True))
                and tuple(values[j]) != tuple(values[i])
                for j in left
            )
        }
        for i in on:
            ranks[i] = layer
        left -= on
        layer += 1
    return ranks


def test_all_are_shown_while_there_are_few() -> None:
    trials = [trial(number, [number, -number]) for number in (4, 0, 2)]
    assert chosen(trials, 3) == [0, 2, 4]


def test_nothing_is_shown_where_nothing_may_be() -> None:
    assert chosen([trial(number, [1.0, 2.0]) for number in range(5)], 0) == []


@settings(max_examples=60, deadline=None)
@given(points, st.integers(min_value=1, max_value=40), st.integers(0, 3))
def test_as_many_as_may_be_the_latest_among_them(
    values: list[tuple[int, int]], most: int, seed: int
) -> None:
    trials = [trial(number, list(point)) for number, point in enumerate(values)]
    numbers = chosen(trials, most, seed=seed)
    assert len(numbers) == min(most, len(trials))
    assert numbers == sorted(set(numbers))
    latest = range(len(trials) - min(most // 4, len(trials)), len(trials))
    assert set(latest) <= set(numbers)


@settings(max_examples=60, deadline=None)
@given(points, st.integers(min_value=1, max_value=20))
def test_the_best_layers_come_first(values: list[tuple[int, int]], most: int) -> None:
    # Behind the trials with values there are enough without, so that those are the latest.
    count = len(values)
    trials = [trial(number, list(point)) for number, point in enumerate(values)]
    trials += [trial(count + number, None) for number in range(count + most)]
    numbers = set(chosen(trials, most))
    ranks = rank(values)
    wanted = min(most // 2, count)
    worst = sorted(ranks)[wanted - 1] if wanted else -1
    assert {number for number in range(count) if ranks[number] < worst} <= numbers
    assert sum(ranks[number] <= worst for number in numbers if number < count) >= wanted


@settings(max_examples=30, deadline=None)
@given(points, st.integers(min_value=1, max_value=20), st.randoms(use_true_random=False))
def test_the_order_in_which_they_were_told_does_not_matter(
    values: list[tuple[int, int]], most: int, shuffler: random.Random
) -> None:
    trials = [trial(number, list(point), number % 3 - 1.0) for number, point in enumerate(values)]
    expected = chosen(trials, most)
    shuffler.shuffle(trials)
    assert chosen(trials, most) == expected


def test_larger_is_better_where_the_direction_says_so() -> None:
    trials = [trial(number, [number, 0.0]) for number in range(40)]
    trials += [trial(40 + number, None) for number in range(40)]
    best = set(range(20, 40))
    assert best <= set(chosen(trials, 40, directions=(MAX, MIN)))
    assert not best <= set(chosen(trials, 40, directions=(MIN, MIN)))


def test_a_large_front_is_thinned_evenly_and_keeps_its_ends() -> None:
    angles = np.linspace(0.0, np.pi / 2, 2001)
    rows = np.column_stack([np.cos(angles), np.sin(angles)])
    trials = [trial(number, row.tolist()) for number, row in enumerate(-rows)]
    trials += [trial(len(rows) + number, None) for number in range(3000)]
    numbers = [number for number in chosen(trials, 100) if number < len(rows)]
    shown = np.sort(angles[numbers])
    assert (shown[0], shown[-1]) == (angles[0], angles[-1])
    # 50 even points leave gaps of 1 / 49 of the arc; the random ones beside them only fill in.
    assert np.diff(shown).max() < 2.1 * (np.pi / 2) / 49


def test_where_bounds_are_broken_the_least_comes_first() -> None:
    trials = [trial(number, [0.0, 0.0], violation=1.0 + number) for number in range(20)]
    trials += [trial(20 + number, None, violation=0.5 + number) for number in range(20)]
    trials += [trial(40 + number, None) for number in range(60)]
    numbers = chosen(trials, 16)
    broken = sorted(
        [(1.0 + number, number) for number in range(20)]
        + [(0.5 + number, 20 + number) for number in range(20)]
    )
    assert {number for _, number in broken[:8]} <= set(numbers)


def test_what_keeps_the_bounds_comes_before_what_does_not() -> None:
    trials = [trial(number, [0.0, 0.0], violation=1.0) for number in range(20)]
    trials += [trial(20 + number, [9.0, number]) for number in range(4)]
    trials += [trial(24 + number, None) for number in range(60)]
    assert {20, 21, 22, 23} <= set(chosen(trials, 8))


def test_the_random_part_changes_little_with_one_more_trial() -> None:
    trials = [trial(number, None) for number in range(500)]
    before, after = chosen(trials, 100), chosen([*trials, trial(500, None)], 100)
    # One more is the latest, one less is; at most one more of the random ones gives way to it.
    assert len(set(before) - set(after)) <= 2
    assert set(chosen(trials, 100, seed=1)) != set(before)


@pytest.mark.parametrize("value", [float("inf"), float("-inf")])
def test_a_value_that_is_not_finite_is_never_the_best(value: float) -> None:
    trials = [trial(0, [value, 0.0])]
    trials += [trial(number, [float(number), -float(number)]) for number in range(1, 30)]
    trials += [trial(30 + number, None) for number in range(2000)]
    assert 0 not in chosen(trials, 40)
