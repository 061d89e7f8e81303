"""What the benchmark makes of timings, by closed form."""

from __future__ import annotations

from dataclasses import replace

import pytest

pytest.importorskip("ray")

from benchmarks.latency_beside_training import agreement, spearman
from parefront.objectives.targets.device import Timing

ALONE = [Timing(r, 0.99 * r, 1.01 * r, {}, {}, 1, 1, "cpu", 1, 0) for r in (0.1, 0.2, 0.5, 1.0)]


def slower(timings: list[Timing], by: float) -> list[Timing]:
    return [
        replace(t, ratio=by * t.ratio, ratio_low=by * t.ratio_low, ratio_high=by * t.ratio_high)
        for t in timings
    ]


def test_differences_are_relative_and_those_alone_are_the_control() -> None:
    found = agreement(ALONE, slower(ALONE, 1.05), slower(ALONE, 0.99), steps=7)
    assert found.rank_correlation == found.control_rank_correlation == pytest.approx(1)
    for value in (found.worst_difference, found.median_difference, found.shift, found.shift_low):
        assert value == pytest.approx(0.05)
    assert found.control_worst_difference == pytest.approx(0.01)
    assert (found.within, found.candidates, found.training_steps) == (0, 4, 7)
    assert agreement(ALONE, ALONE, ALONE, 0).within == 1


def test_spearman_is_of_ranks() -> None:
    assert spearman([1, 2, 3, 4], [1, 8, 27, 64]) == pytest.approx(1)
    assert spearman([1, 2, 3, 4], [4, 3, 2, 1]) == pytest.approx(-1)
    # 1 - 6 * sum of squared differences of ranks / (n * (n^2 - 1))
    assert spearman([1, 2, 3, 4], [1, 3, 2, 4]) == pytest.approx(1 - 6 * 2 / 60)
