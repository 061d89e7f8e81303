"""Counts, grouped reasons, and why there is no front."""

from __future__ import annotations

import pandas as pd
import pytest

from parefront.dashboards import outcomes
from parefront.dashboards.words import STATES
from parefront.search.records import Status
from tests.dashboards import frames


def with_states(*states: str, feasible: bool = False) -> pd.DataFrame:
    trials = frames.study(len(states), trouble=False)
    return trials.assign(state=list(states), feasible=feasible, on_front=False)


def test_reasons_that_differ_in_numbers_are_one_group() -> None:
    trials = with_states("failed", "failed", "complete", "failed", "failed")
    trials["reason"] = pd.Series(
        [
            "loss is not finite after step 70",
            "out of memory",
            None,
            "loss is not finite after step 1e3",
            "loss is not finite after step 8",
        ],
        dtype=object,
    )
    assert outcomes.reason_groups(trials, "failed") == [
        outcomes.ReasonGroup("loss is not finite after step 70", (0, 3, 4)),
        outcomes.ReasonGroup("out of memory", (1,)),
    ]
    assert outcomes.reason_groups(trials, "infeasible") == []


def test_digits_in_names_tell_reasons_apart() -> None:
    trials = with_states("failed", "failed")
    trials["reason"] = ["operator Conv2d", "operator Conv3d"]
    assert len(outcomes.reason_groups(trials, "failed")) == 2


def test_a_missing_reason_is_named() -> None:
    trials = with_states("failed", "failed")
    trials["reason"] = pd.Series([None, "  "], dtype=object)
    assert outcomes.reason_groups(trials, "failed") == [
        outcomes.ReasonGroup("no reason recorded", (0, 1))
    ]


def test_counts_every_trial_once() -> None:
    trials = frames.study(80)
    counts = outcomes.state_counts(trials)
    assert list(counts) == ["complete", "infeasible", "failed"]
    assert sum(counts.values()) == 80


@pytest.mark.parametrize(
    ("trials", "reason"),
    [
        (frames.empty(), "The study has no trials yet."),
        (with_states("failed", "failed"), "All 2 trials failed."),
        (with_states("running"), "No trial has finished yet."),
        (with_states("complete", "infeasible"), "No candidate met the bounds."),
        (
            with_states("infeasible", "failed"),
            "No candidate met the bounds: those that could be measured broke one before any "
            "training.",
        ),
        (
            with_states("complete", feasible=True),
            "No finished candidate has a value for every objective.",
        ),
        (frames.study(20), None),
    ],
)
def test_says_why_there_is_no_front(trials: pd.DataFrame, reason: str | None) -> None:
    assert outcomes.no_front_reason(trials) == reason


def test_the_nearest_break_the_bounds_least() -> None:
    summary = frames.summary(objectives=frames.objectives(at_least=0.9, at_most_ms=2.0))
    trials = frames.study(5, trouble=False)
    trials["accuracy"] = [0.90, 0.81, 0.50, float("nan"), float("nan")]
    trials["latency_ms"] = [3.0, 2.0, 1.0, 2.1, float("nan")]
    # Relative excess: 0.5, 0.1, 0.44, 0.05 with the accuracy unknown, nothing known.
    nearest = outcomes.nearest_to_bounds(trials, summary)
    assert nearest["trial"].tolist() == [3, 1, 2, 0]
    assert outcomes.nearest_to_bounds(trials, summary, count=1)["trial"].tolist() == [3]


def test_what_was_not_trained_for_another_reason_than_a_bound_is_not_near_them() -> None:
    summary = frames.summary(objectives=frames.objectives(at_least=0.9, at_most_ms=2.0))
    trials = with_states("complete", "gated", "early_stopped", "infeasible")
    trials["accuracy"] = [0.5, *[float("nan")] * 3]
    trials["latency_ms"] = [1.0, 1.0, 1.0, 3.0]
    assert outcomes.nearest_to_bounds(trials, summary)["trial"].tolist() == [0, 3]


def test_every_state_is_counted_in_the_order_of_a_trials_life() -> None:
    # What was stopped with the study reads as interrupted in a frame.
    states = [status.value for status in Status if status != Status.STOPPED]
    counts = outcomes.state_counts(with_states(*states, *states))
    assert counts == dict.fromkeys(STATES, 2)
    assert list(counts) == list(STATES)


def test_without_bounds_nothing_is_near_them() -> None:
    summary = frames.summary(objectives=frames.objectives(at_least=None, at_most_ms=None))
    assert len(outcomes.nearest_to_bounds(frames.study(5), summary)) == 0


def test_names_each_broken_bound_and_by_how_much() -> None:
    summary = frames.summary(objectives=frames.objectives(at_least=0.9, at_most_ms=2.0))
    row = {"accuracy": 0.81, "latency_ms": 3.0, "size_bytes": 1.0}
    assert outcomes.broken_bounds(row, summary) == [
        "accuracy 0.09000 (10 %) below the bound",
        "latency 1.00 ms (50 %) above the bound",
    ]
    inside = {"accuracy": float("nan"), "latency_ms": 2.0, "size_bytes": 1.0}
    assert outcomes.broken_bounds(inside, summary) == []
