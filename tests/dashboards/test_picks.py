"""Headline picks on hand-made fronts."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from parefront.dashboards.frame import front_of
from parefront.dashboards.picks import Pick, headline_picks, knee_trial, near_baseline
from parefront.objectives.measurement import Direction
from parefront.search.summary import Summary
from tests.dashboards import frames


def exact(*points: tuple[float, float, float]) -> pd.DataFrame:
    """Trials numbered from 0 with exact values (accuracy, ms, bytes), all within the bounds."""
    rows = []
    for trial, (accuracy, latency, size) in enumerate(points):
        values = {"accuracy": accuracy, "latency_ms": latency, "size_bytes": size}
        row: dict[str, object] = {
            f"{name}{end}": value for name, value in values.items() for end in ("", "_low", "_high")
        }
        row |= {"trial": trial, "state": "complete", "origin": "sampled", "feasible": True}
        row |= {"candidate": {} if trial == 0 else {"pruning": {"ratio": trial / 10}}}
        row |= {"speedup": points[0][1] / latency, "shrink": points[0][2] / size}
        rows.append(row)
    return frames.with_front(pd.DataFrame(rows, columns=frames.COLUMNS))


def picks(trials: pd.DataFrame, summary: Summary | None = None) -> dict[str, Pick]:
    return {pick.title: pick for pick in headline_picks(trials, summary or frames.summary())}


def test_each_pick_is_the_best_of_its_kind() -> None:
    trials = exact(
        (0.90, 10.0, 40e6),  # the baseline
        (0.895, 4.0, 30e6),  # fastest within a point
        (0.892, 8.0, 9e6),  # smallest within a point
        (0.86, 1.2, 4.1e6),  # knee: nearly as fast and small as the next, far more accurate
        (0.50, 1.0, 4e6),
    )
    found = picks(trials)
    assert {title: pick.trial for title, pick in found.items()} == {
        "Knee": 3,
        "Fastest": 1,
        "Smallest": 2,
    }
    assert found["Fastest"].note == "within one point of the baseline's accuracy"
    assert knee_trial(trials, frames.summary()) == 3


def test_a_drop_of_exactly_one_point_is_near() -> None:
    found = picks(exact((0.90, 10.0, 40e6), (0.89, 5.0, 20e6)))
    assert found["Fastest"].trial == found["Smallest"].trial == 1


def test_says_when_nothing_near_is_on_the_front() -> None:
    found = picks(exact((0.90, 10.0, 40e6), (0.80, 5.0, 20e6)))
    assert found["Fastest"] == Pick(
        "Fastest",
        None,
        "no candidate on the front is within one point of the baseline's accuracy",
    )


def test_says_when_nothing_near_is_faster() -> None:
    found = picks(exact((0.90, 10.0, 40e6), (0.90, 12.0, 20e6)))
    assert found["Fastest"].trial is None
    assert found["Fastest"].note == (
        "no candidate within one point of the baseline's accuracy has a better latency than it"
    )
    assert found["Smallest"].trial == 1


def test_without_a_baseline_there_is_only_the_knee() -> None:
    trials = exact((0.90, 10.0, 40e6), (0.89, 5.0, 20e6))
    assert picks(trials, frames.summary(baseline=None)).keys() == {"Knee"}
    assert picks(trials, frames.summary(baseline=99)).keys() == {"Knee"}


def test_without_a_front_there_are_no_picks() -> None:
    assert headline_picks(frames.empty(), frames.summary()) == []
    assert knee_trial(frames.empty(), frames.summary()) is None


def test_an_error_to_be_minimised_is_near_within_one_percent() -> None:
    accuracy, latency, size = frames.objectives(at_least=None, at_most_ms=None)
    error = replace(accuracy, direction=Direction.MINIMIZE, label="rmse")
    summary = frames.summary(objectives=(error, latency, size))
    trials = exact((2.00, 10.0, 40e6), (2.02, 5.0, 20e6), (2.03, 4.0, 10e6)).assign(on_front=True)
    found = picks(trials, summary)
    assert found["Fastest"] == Pick("Fastest", 1, "within 1 % of the baseline's rmse")
    assert front_of(trials, summary)["trial"].tolist() == [0, 1, 2]


@pytest.mark.parametrize(
    ("direction", "baseline", "slack"),
    [
        (Direction.MAXIMIZE, 0.9, 0.01),
        (Direction.MAXIMIZE, 90.0, 0.9),
        (Direction.MINIMIZE, 0.5, 0.005),
    ],
)
def test_how_near_is_near(direction: Direction, baseline: float, slack: float) -> None:
    metric = replace(frames.objectives()[0], direction=direction)
    assert near_baseline(metric, baseline)[0] == pytest.approx(slack)


def test_the_front_is_listed_best_accuracy_first() -> None:
    trials = frames.study(60)
    front = front_of(trials, frames.summary())
    assert set(front["trial"]) == set(trials.loc[trials["on_front"], "trial"])
    assert (np.diff(front["accuracy"].to_numpy(dtype=float)) <= 0).all()
