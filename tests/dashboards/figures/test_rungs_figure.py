"""Accuracy in the middle of training."""

from __future__ import annotations

import math
from typing import Any

import pandas as pd
import pytest

from parefront.dashboards.figures import RungsData, draw_rungs, rungs_data
from parefront.dashboards.report import report_html
from tests.dashboards import frames


def rung(share: float, accuracy: float, *, promoted: bool = True) -> dict[str, Any]:
    values = {"accuracy": accuracy, "latency": 2.0, "size": 1e6}
    return {"share": share, "values": values, "rivals": 7, "promoted": promoted}


def study(*rungs: list[dict[str, Any]]) -> pd.DataFrame:
    """Trials of which the second is on the front and the third was stopped."""
    trials = frames.study(len(rungs), trouble=False)
    trials["rungs"] = pd.Series(list(rungs), dtype=object)
    trials["on_front"] = [row == 1 for row in range(len(rungs))]
    trials["state"] = ["early_stopped" if row == 2 else "complete" for row in range(len(rungs))]
    trials["accuracy"] = [math.nan if row == 2 else 0.9 + row / 100 for row in range(len(rungs))]
    return trials


def data_of(trials: pd.DataFrame) -> RungsData:
    data = rungs_data(trials, frames.summary())
    assert data is not None
    return data


STUDY = study(
    [],
    [rung(0.25, 0.5), rung(0.5, 0.7)],
    [rung(0.25, 0.3, promoted=False)],
    [rung(0.25, 0.4), rung(0.5, 0.6)],
)


def test_a_line_goes_through_the_rungs_to_the_measured_end() -> None:
    points = data_of(STUDY).points
    assert list(points.itertuples(index=False, name=None)) == [
        (1, 0.25, 0.5, "front"),
        (1, 0.5, 0.7, "front"),
        (1, 1.0, 0.91, "front"),
        (2, 0.25, 0.3, "stopped"),
        (3, 0.25, 0.4, "through"),
        (3, 0.5, 0.6, "through"),
        (3, 1.0, 0.93, "through"),
    ]


def test_each_kind_has_its_colour_and_lines_do_not_run_into_each_other() -> None:
    trials = pd.concat([STUDY, STUDY.assign(trial=STUDY["trial"] + 4)], ignore_index=True)
    figure = draw_rungs(data_of(trials))
    assert [trace.name for trace in figure.data] == [
        "stopped",
        "went on",
        "on the front",
    ]
    stopped, through, front = figure.data
    assert stopped.line.color != through.line.color == front.line.color
    assert pd.Series(front.x).isna().tolist() == [False, False, False, True] * 2
    assert pd.Series(stopped.x).isna().tolist() == [False, True] * 2
    assert front.customdata.tolist() == [1] * 4 + [5] * 4


def test_a_value_that_was_not_computed_is_left_out() -> None:
    trials = study([], [rung(0.25, math.nan), {**rung(0.5, 0.7), "values": {}}])
    assert data_of(trials).points["share"].tolist() == [1.0]


def test_very_many_are_thinned_out_but_never_the_front() -> None:
    trials = study(*[[rung(0.5, 0.5)]] * 1000).assign(on_front=lambda t: t["trial"] % 5 == 0)
    data = data_of(trials)
    assert data.points["trial"].nunique() + data.left_out == 1000
    assert data.points["trial"].nunique() == 400
    assert set(range(0, 1000, 5)) <= set(data.points["trial"])


@pytest.mark.parametrize(
    "trials",
    [frames.empty(), frames.study(5), study([], [], []), frames.study(3).assign(rungs=math.nan)],
)
def test_without_rungs_there_is_no_figure(trials: pd.DataFrame) -> None:
    assert rungs_data(trials, frames.summary()) is None
    assert "figure-rungs" not in report_html(trials, frames.summary())


def test_the_report_shows_the_lines_and_why_trainings_ended() -> None:
    trials = STUDY.assign(state=["complete", "complete", "early_stopped", "gated"])
    trials["reason"] = pd.Series([None, None, "behind after 25 %", "no room"], dtype=object)
    html = report_html(trials, frames.summary())
    for text in (
        'id="figure-rungs"',
        "accuracy during training",
        "stopped in training",
        "could not have reached the front",
        "behind after 25 %",
        "no room",
    ):
        assert text in html
