"""The 3-D scatter, the progress of the search and the parallel coordinates."""

from __future__ import annotations

import json
import math
from typing import Any

import numpy as np
import pandas as pd
import plotly.graph_objects as go
import pytest

from parefront.dashboards.figures import (
    draw_history,
    draw_parallel,
    draw_scatter3d,
    draw_tradeoff,
    history_data,
    parallel_data,
    scatter3d_data,
    tradeoff_data,
)
from parefront.dashboards.figures.history import MARGIN
from parefront.dashboards.figures.parallel import OFF, parameter_columns, parameter_dimension
from parefront.dashboards.figures.style import MANY
from parefront.dashboards.probability import ON_FRONT
from parefront.objectives.front import hypervolume
from tests.dashboards import frames

ACCURACY, LATENCY, SIZE = frames.objectives()
AXES = (LATENCY, SIZE, ACCURACY)


class TestScatter3d:
    def test_shows_front_baseline_and_what_is_near_them(self) -> None:
        trials = frames.study(100)
        data = scatter3d_data(trials, frames.summary(), AXES)
        front = set(data.points.loc[data.points["kind"].isin(ON_FRONT), "trial"])
        assert front == set(trials.loc[trials["on_front"], "trial"]) - {0}
        assert data.points.loc[data.points["kind"] == "baseline", "trial"].tolist() == [0]
        measured = int(trials["accuracy"].notna().sum())
        assert len(data.points) + data.left_out == measured
        assert data.log == (True, True, False)
        figure = draw_scatter3d(data, trials, frames.summary())
        assert sum(len(trace.x) for trace in figure.data) == len(data.points)
        assert figure.layout.scene.yaxis.title.text == "file size (MB)"

    def test_thins_out_very_many_but_never_the_front(self) -> None:
        trials = frames.study(MANY * 2, trouble=False)
        data = scatter3d_data(trials, frames.summary(), AXES)
        assert (data.points["kind"] == "other").sum() <= MANY
        assert data.left_out == len(trials) - len(data.points) > 0
        on_front = data.points["kind"].isin([*ON_FRONT, "baseline"]).sum()
        assert on_front == (trials["on_front"] | (trials["trial"] == 0)).sum()

    @pytest.mark.parametrize("count", [0, 1])
    def test_tiny_studies(self, count: int) -> None:
        trials = frames.study(count) if count else frames.empty()
        data = scatter3d_data(trials, frames.summary(), AXES)
        assert len(draw_scatter3d(data, trials, frames.summary()).data) == count


class TestHistory:
    def test_ends_at_the_hypervolume_of_all_feasible_trials(self) -> None:
        trials = frames.study(60)
        data = history_data(trials, frames.summary())
        assert data is not None
        feasible = trials[trials["feasible"]]
        values = np.column_stack(
            [
                feasible["accuracy"],
                np.log(feasible["latency_ms"]),
                np.log(feasible["size_bytes"]),
            ]
        )
        corners = values[feasible["on_front"].to_numpy(dtype=bool)]
        baseline = trials.iloc[0]
        low_end = [
            baseline["accuracy"],
            math.log(baseline["latency_ms"]),
            math.log(baseline["size_bytes"]),
        ]
        corners = np.vstack([corners, low_end])
        best = np.array([corners[:, 0].max(), corners[:, 1].min(), corners[:, 2].min()])
        worst = np.array([corners[:, 0].min(), corners[:, 1].max(), corners[:, 2].max()])
        reference = best + MARGIN * (worst - best)
        box = float(np.prod(np.abs(reference - best)))
        expected = hypervolume(values, reference, [True, False, False]) / box
        assert data.points["share"].iloc[-1] == pytest.approx(expected)
        assert (np.diff(data.points["share"]) >= 0).all()
        assert data.points["share"].between(0, 1).all()

    def test_runs_in_the_order_of_finishing_over_time(self) -> None:
        trials = frames.study(30, trouble=False)
        start = pd.Timestamp("2026-01-01")
        seconds = [10.0 * (30 - trial) for trial in range(30)]
        trials["started"] = start
        trials["finished"] = [start + pd.Timedelta(seconds=each) for each in seconds]
        data = history_data(trials, frames.summary())
        assert data is not None
        assert data.points["trial"].tolist() == list(range(29, -1, -1))
        assert data.x_title == "minutes since the first trial started"
        assert data.points["x"].iloc[-1] == pytest.approx(5.0)

    def test_counts_trials_where_times_are_missing(self) -> None:
        trials = frames.study(30, trouble=False)
        trials.loc[3, "finished"] = pd.NaT
        data = history_data(trials, frames.summary())
        assert data is not None
        assert data.x_title == "finished trials"
        assert data.points["x"].tolist() == list(range(1, 31))

    def test_leaves_out_what_is_not_finished(self) -> None:
        trials = frames.study(30, trouble=False)
        unfinished = trials.index[~trials["on_front"]][:2]
        trials.loc[unfinished, "state"] = ["running", "interrupted"]
        data = history_data(trials, frames.summary())
        assert data is not None
        assert len(data.points) == 28
        assert not set(data.points["trial"]) & set(unfinished)

    def test_candidates_outside_the_bounds_win_nothing(self) -> None:
        trials = frames.study(30, trouble=False)
        data = history_data(trials, frames.summary())
        worse = trials.copy()
        outside = ~worse["feasible"] & (worse["trial"] != 0)
        worse.loc[outside, ["accuracy", "latency_ms", "size_bytes"]] = [1.0, 0.001, 1.0]
        assert outside.any()
        again = history_data(worse, frames.summary())
        assert data is not None
        assert again is not None
        assert again.points["share"].tolist() == data.points["share"].tolist()

    def test_without_a_front_there_is_nothing_to_draw(self) -> None:
        assert history_data(frames.empty(), frames.summary()) is None
        assert history_data(frames.study(9).assign(on_front=False), frames.summary()) is None

    def test_draws_steps(self) -> None:
        data = history_data(frames.study(30), frames.summary())
        assert data is not None
        (line,) = draw_history(data).data
        assert line.line.shape == "hv"
        assert len(line.x) == len(data.points)


class TestParallel:
    def test_conditional_parameters_are_missing_not_zero(self) -> None:
        candidates: list[dict[str, dict[str, Any]]] = [
            {},
            {"pruning": {"ratio": 0.5, "iterative": False, "steps": None}},
            {"pruning": {"ratio": 0.2, "iterative": True, "steps": 3}, "sharing": {}},
        ]
        assert parameter_columns(candidates) == {
            "pruning.ratio": [None, 0.5, 0.2],
            "pruning.iterative": [None, False, True],
            "pruning.steps": [None, None, 3],
            "sharing": [False, False, True],
        }

    def test_numbers_are_to_scale_with_the_missing_below(self) -> None:
        dimension = parameter_dimension("pruning.ratio", [0.1, None, 0.5, 0.3])
        assert dimension.label == ("pruning", "ratio")
        assert dimension.values[[0, 2, 3]].tolist() == [0.1, 0.5, 0.3]
        assert dimension.values[1] == dimension.ticks[0][0] < 0.1
        assert dimension.ticks[0][1] == OFF
        assert [text for _, text in dimension.ticks[1:]] == ["0.1", "0.2", "0.3", "0.4", "0.5"]

    def test_wide_positive_numbers_are_on_a_log_scale(self) -> None:
        dimension = parameter_dimension("x.learning_rate", [1e-4, 1e-3, 1e-2])
        assert dimension.values == pytest.approx([-4, -3, -2])
        assert (-3.0, "0.001") in dimension.ticks

    def test_whole_numbers_have_whole_ticks(self) -> None:
        dimension = parameter_dimension("x.steps", [2, 3, 4])
        assert [text for _, text in dimension.ticks] == ["2", "3", "4"]

    def test_booleans_and_names_take_even_steps(self) -> None:
        flag = parameter_dimension("x.flag", [True, False, True])
        assert flag.values.tolist() == [1.0, 0.0, 1.0]
        assert [text for _, text in flag.ticks] == ["no", "yes"]
        name = parameter_dimension("x.mode", ["static", None, "dynamic"])
        assert [text for _, text in name.ticks] == [OFF, "dynamic", "static"]
        assert name.values.tolist() == [2.0, 0.0, 1.0]

    def test_few_distinct_numbers_are_named_in_order(self) -> None:
        bits = parameter_dimension("x.bits", [8, 16, 8])
        assert bits.ticks == ((0.0, "8"), (1.0, "16"))
        assert bits.values.tolist() == [0.0, 1.0, 0.0]

    def test_shows_what_differs_then_the_objectives(self) -> None:
        trials = frames.study(100)
        data = parallel_data(trials, frames.summary())
        assert data is not None
        labels = [dimension.label for dimension in data.dimensions]
        assert labels[-3:] == [("accuracy",), ("latency",), ("file size",)]
        assert ("pruning", "ratio") in labels
        assert len(data.trials) == trials["accuracy"].notna().sum()
        for dimension in data.dimensions:
            low, high = dimension.range
            assert low <= dimension.values.min()
            assert dimension.values.max() <= high
        (lines,) = draw_parallel(data).data
        assert len(lines.dimensions) == len(data.dimensions)
        assert not lines.line.reversescale

    def test_thins_out_very_many_but_never_the_front(self) -> None:
        trials = frames.study(2000)
        data = parallel_data(trials, frames.summary())
        assert data is not None
        assert set(trials.loc[trials["on_front"], "trial"]) <= set(data.trials)
        assert len(data.trials) + data.left_out == trials["accuracy"].notna().sum()
        assert data.left_out > 0

    def test_nothing_to_compare(self) -> None:
        same = frames.study(5, trouble=False)
        alike = [{"quantization": {"mode": "static"}}] * 5
        same["candidate"] = pd.Series(alike, dtype=object)
        assert parallel_data(same, frames.summary()) is None
        assert parallel_data(frames.study(1), frames.summary()) is None
        assert parallel_data(frames.empty(), frames.summary()) is None


def markup(figure: go.Figure) -> list[str]:
    """Every text of a figure that Plotly reads as HTML."""

    def texts(node: Any, key: str) -> list[str]:
        if isinstance(node, dict):
            return [text for name, value in node.items() for text in texts(value, name)]
        if isinstance(node, list):
            # Plotly draws the tick texts of parallel coordinates as they are.
            return [text for value in node for text in texts(value, key) if key != "ticktext"]
        return [node] if isinstance(node, str) else []

    return texts(json.loads(figure.to_json()), "")


def test_no_text_from_outside_is_markup() -> None:
    hostile = '<a href="http://evil.example">x</a><img src="http://evil.example/y">'
    trials = frames.hostile_study(hostile)
    summary = frames.summary(
        study=hostile,
        objectives=tuple(type(each)(**{**vars(each), "label": hostile}) for each in AXES),
    )
    latency, size, accuracy = summary.objectives
    parallel, history = parallel_data(trials, summary), history_data(trials, summary)
    assert parallel is not None
    assert history is not None
    flat = tradeoff_data(trials, summary, latency, accuracy, size)
    cube = scatter3d_data(trials, summary, (latency, size, accuracy))
    figures = [
        draw_parallel(parallel),
        draw_history(history),
        draw_tradeoff(flat, trials, summary),
        draw_scatter3d(cube, trials, summary),
    ]
    found = [text for figure in figures for text in markup(figure)]
    assert any("&lt;a href" in text for text in found)
    assert not [text for text in found if "<a" in text or "<img" in text]
