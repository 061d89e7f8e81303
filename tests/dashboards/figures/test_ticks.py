"""Round marks for axes."""

from __future__ import annotations

import math
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from parefront.dashboards.figures.ticks import linear_ticks, log_ticks


@pytest.mark.parametrize(
    ("low", "high", "marks"),
    [
        (0.0, 1.0, [0.0, 0.2, 0.4, 0.6, 0.8, 1.0]),
        (0.873, 0.941, [0.86, 0.88, 0.9, 0.92, 0.94, 0.96]),
        (1.0, 8.0, [0.0, 2.0, 4.0, 6.0, 8.0]),
        (3.0, 3.0, [3.0]),
    ],
)
def test_linear_marks(low: float, high: float, marks: list[float]) -> None:
    assert linear_ticks(low, high) == marks


@pytest.mark.parametrize(
    ("low", "high", "marks"),
    [
        (0.53, 11.3, [0.5, 1.0, 2.0, 5.0, 10.0, 20.0]),
        (1.0, 10.0, [1.0, 2.0, 5.0, 10.0]),
        (3e-5, 9.0, [1e-5, 1e-4, 1e-3, 1e-2, 0.1, 1.0, 10.0]),
    ],
)
def test_log_marks(low: float, high: float, marks: list[float]) -> None:
    assert log_ticks(low, high) == marks


@given(st.floats(-1e6, 1e6), st.floats(1e-3, 1e6))
def test_linear_marks_cover_the_range_with_a_few_even_steps(low: float, width: float) -> None:
    high = low + width
    marks = linear_ticks(low, high)
    slack = 1e-8 * width + 1e-11 * abs(low)
    assert marks[0] <= low + slack
    assert marks[-1] >= high - slack
    assert 3 <= len(marks) <= 10
    steps = [after - before for before, after in pairwise(marks)]
    assert max(steps) == pytest.approx(min(steps), rel=1e-3)


@given(st.floats(1e-9, 1e9), st.floats(1.01, 1e8))
def test_log_marks_cover_the_range_and_are_round(low: float, ratio: float) -> None:
    high = low * ratio
    marks = log_ticks(low, high)
    assert marks[0] <= low
    assert marks[-1] >= high
    assert marks == sorted(set(marks))
    for mark in marks:
        leading = mark / 10 ** math.floor(math.log10(mark) + 1e-9)
        assert min(abs(leading - digit) for digit in (1, 2, 5)) < 1e-6
