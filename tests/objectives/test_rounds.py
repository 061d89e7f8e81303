"""Joining rounds of several processes: coverage of repeats, calm and disturbed, enough and not."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from parefront.objectives.targets.device import Effort
from parefront.objectives.targets.rounds import (
    BETWEEN_E_FOLD,
    BETWEEN_EQUALS,
    DISTURBED,
    MAX_ROUNDS,
    WALL_FACTOR,
    Rounds,
    joined,
    student,
)
from parefront.objectives.targets.timing import Round


def found(ratio: float, *, stolen: float = 0.0, clock: str = "cpu", p50: float = 1.0) -> Round:
    percentiles = {"p50": p50, "p90": 2 * p50, "p99": 3 * p50}
    return Round(ratio, percentiles, percentiles, 20, 200, clock, stolen)


def half_width(ratios: list[float], clock: str = "cpu") -> float:
    timing = joined([found(ratio, clock=clock) for ratio in ratios])
    low, high = (
        math.log(timing.ratio / timing.ratio_low),
        math.log(timing.ratio_high / timing.ratio),
    )
    assert low == pytest.approx(high)
    return high


def test_quantiles_of_student() -> None:
    # Tables of the 97.5 % quantile, such as NIST/SEMATECH e-Handbook 1.3.6.7.2.
    table = {4: 2.776, 5: 2.571, 7: 2.365, 10: 2.228, 20: 2.086, 60: 2.000, 100: 1.984}
    for freedom, quantile in table.items():
        assert student(freedom) == pytest.approx(quantile, rel=5e-3)


def test_the_value_is_the_geometric_mean_without_the_extremes() -> None:
    assert joined([found(0.5), found(2.0)]).ratio == pytest.approx(1.0)
    ratios = [0.01, 0.5, 1.0, 2.0, 50.0]
    assert joined([found(ratio) for ratio in ratios]).ratio == pytest.approx(1.0)


def test_sums_and_medians_of_the_rounds() -> None:
    timing = joined([found(1.0, p50=value) for value in (1.0, 2.0, 9.0)], disturbed=4)
    assert (timing.blocks, timing.runs, timing.rounds, timing.disturbed) == (60, 600, 3, 4)
    assert timing.candidate_ms == {"p50": 2.0, "p90": 4.0, "p99": 6.0}


def test_one_round_is_as_sure_as_expected() -> None:
    for ratio in (0.1, 1.0, 4.0):
        for clock, factor in (("cpu", 1.0), ("wall", WALL_FACTOR)):
            expected = factor * math.hypot(BETWEEN_EQUALS, BETWEEN_E_FOLD * math.log(ratio))
            assert half_width([ratio], clock) == pytest.approx(student(4) * expected * math.sqrt(2))


def test_more_rounds_and_less_spread_are_surer() -> None:
    widths = [half_width([1.0] * count) for count in (1, 2, 5, 10, 40)]
    assert widths == sorted(widths, reverse=True)
    assert widths[-1] < 0.003
    assert half_width([0.9, 1.0, 1.1, 1.2]) > half_width([0.99, 1.0, 1.01, 1.02])


@pytest.mark.parametrize(("spread", "rounds"), [(0.01, 4), (0.02, 8), (0.03, 6), (0.02, 1)])
@pytest.mark.parametrize("truth", [0.2, 1.0])
def test_the_interval_holds_the_next_repeat(spread: float, rounds: int, truth: float) -> None:
    rng = np.random.default_rng(0)

    def repeat() -> list[Round]:
        return [found(truth * math.exp(rng.normal(0, spread))) for _ in range(rounds)]

    held = []
    for _ in range(300):
        first, second = joined(repeat()), joined(repeat())
        held.append(first.ratio_low <= second.ratio <= first.ratio_high)
    assert np.mean(held) >= 0.9


@given(st.lists(st.floats(1e-3, 1e3), min_size=1, max_size=30), st.sampled_from(["cpu", "wall"]))
def test_the_interval_holds_the_value_which_is_among_the_rounds(
    ratios: list[float], clock: str
) -> None:
    timing = joined([found(ratio, clock=clock) for ratio in ratios])
    assert timing.ratio_low < timing.ratio < timing.ratio_high
    assert min(ratios) * (1 - 1e-9) <= timing.ratio <= max(ratios) * (1 + 1e-9)


def count(effort: Effort, ratios: list[float], seconds: float = 1.0, stolen: float = 0.0) -> int:
    """How many rounds are made of a machine that gives these ratios in turn."""
    rounds, made = Rounds(effort), 0
    while not rounds.enough:
        rounds.add(found(ratios[made % len(ratios)], stolen=stolen), seconds)
        made += 1
    return made


def test_rounds_go_on_until_they_are_precise() -> None:
    ratios = [0.99, 1.01]
    made = count(Effort(precision=0.02, seconds=1e9), ratios)
    assert 2 < made < MAX_ROUNDS
    listed = [ratios[index % 2] for index in range(made)]
    assert half_width(listed) <= 0.02 < half_width(listed[:-1])


def test_rounds_end_when_the_next_would_take_too_long() -> None:
    assert count(Effort(precision=1e-9, seconds=5.0), [1.0]) == 5
    assert count(Effort(precision=1e-9, seconds=5.5), [1.0]) == 5
    assert count(Effort(precision=1e-9, seconds=0.1), [1.0]) == 1
    assert count(Effort(precision=1e-9, seconds=1e9), [0.5, 2.0]) == MAX_ROUNDS


def test_a_disturbed_round_is_repeated_and_said() -> None:
    rounds = Rounds(Effort(precision=0.2, seconds=100.0))
    rounds.add(found(7.0, stolen=DISTURBED * 1.01), 1.0)
    before = rounds.enough
    rounds.add(found(1.0, stolen=DISTURBED), 1.0)
    assert (before, rounds.enough) == (False, True)
    timing = rounds.timing()
    assert timing.ratio == pytest.approx(1.0)
    assert (timing.rounds, timing.disturbed) == (1, 1)


def test_where_all_rounds_are_disturbed_they_all_count() -> None:
    rounds = Rounds(Effort(precision=0.2, seconds=3.0))
    while not rounds.enough:
        rounds.add(found(2.0, stolen=0.9), 1.0)
    timing = rounds.timing()
    assert timing.ratio == pytest.approx(2.0)
    assert (timing.rounds, timing.disturbed) == (3, 0)
