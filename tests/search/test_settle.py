"""Which candidates are worth measuring again."""

from __future__ import annotations

import pandas as pd

from parefront.objectives.measurement import Direction
from parefront.search.settle import undecided
from parefront.search.summary import ObjectiveSummary

NOISY = frozenset({"latency"})
OBJECTIVES = (
    ObjectiveSummary(
        name="accuracy", column="accuracy", unit="", direction=Direction.MAXIMIZE, label="accuracy"
    ),
    ObjectiveSummary(
        name="latency",
        column="latency_ms",
        unit="ms",
        direction=Direction.MINIMIZE,
        label="latency",
    ),
)


def frame(*points: tuple[float, float, float]) -> pd.DataFrame:
    """Points of accuracy, latency, and the half-width of the latency's interval."""
    rows = [
        {
            "trial": 10 + index,
            "feasible": True,
            "accuracy": accuracy,
            "accuracy_low": accuracy - 0.01,
            "accuracy_high": accuracy + 0.01,
            "latency_ms": latency,
            "latency_ms_low": latency - half,
            "latency_ms_high": latency + half,
        }
        for index, (accuracy, latency, half) in enumerate(points)
    ]
    return pd.DataFrame(rows)


def test_two_that_only_noise_keeps_apart_are_both_measured_again() -> None:
    assert undecided(frame((0.9, 1.0, 0.2), (0.9, 1.1, 0.2)), OBJECTIVES, NOISY) == [11, 10]


def test_what_is_decided_is_left_alone() -> None:
    apart = frame((0.9, 1.0, 0.04), (0.9, 1.1, 0.04))
    trade = frame((0.9, 1.0, 0.2), (0.95, 1.1, 0.2))
    equal = frame((0.9, 1.0, 0.2), (0.9, 1.0, 0.2))
    for each in (apart, trade, equal):
        assert undecided(each, OBJECTIVES, NOISY) == []


def test_accuracy_is_not_measured_again() -> None:
    # Beaten in accuracy alone, which no second look at the same examples will change.
    assert undecided(frame((0.905, 1.0, 0.0), (0.9, 1.0, 0.0)), OBJECTIVES, NOISY) == []


def test_what_broke_a_bound_does_not_count() -> None:
    rows = frame((0.9, 1.0, 0.2), (0.9, 1.1, 0.2))
    rows.loc[0, "feasible"] = False
    assert undecided(rows, OBJECTIVES, NOISY) == []
    assert undecided(rows.iloc[:0], OBJECTIVES, NOISY) == []
    assert undecided(rows, (), NOISY) == []


def test_of_the_rivals_only_those_that_would_stay() -> None:
    rows = frame((0.9, 1.0, 0.2), (0.9, 1.1, 0.2), (0.9, 1.15, 0.2))
    assert undecided(rows, OBJECTIVES, NOISY) == [11, 12, 10]
