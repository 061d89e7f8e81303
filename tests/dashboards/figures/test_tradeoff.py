"""Two objectives against each other: data, then drawing."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from parefront.dashboards.figures import TradeoffData, draw_tradeoff, tradeoff_data
from parefront.dashboards.figures.style import FRONT_NAMES, MANY, diameters, wants_log
from parefront.dashboards.probability import ON_FRONT
from parefront.objectives.measurement import Direction
from tests.dashboards import frames

ACCURACY, LATENCY, SIZE = frames.objectives()


def data(trials: pd.DataFrame) -> TradeoffData:
    return tradeoff_data(trials, frames.summary(), LATENCY, ACCURACY, SIZE)


def test_every_measured_trial_is_a_point_of_one_kind() -> None:
    trials = frames.study(100)
    shown = data(trials)
    measured = trials[trials["accuracy"].notna()]
    assert shown.points["trial"].tolist() == measured["trial"].tolist()
    assert shown.points["x"].tolist() == measured["latency_ms"].tolist()
    assert shown.points["y_low"].tolist() == measured["accuracy_low"].tolist()
    by_kind = shown.points.groupby("kind")["trial"].apply(set)
    assert by_kind["certain"] | by_kind["front"] == set(trials.loc[trials["on_front"], "trial"])
    certain = trials["on_front"] & (trials["front_probability"] >= 0.95)
    assert by_kind["certain"] == set(trials.loc[certain, "trial"])
    likely = trials[~trials["on_front"] & (trials["front_probability"] >= 0.05)]
    assert by_kind["possible"] == set(likely["trial"])
    assert by_kind["outside"] == set(measured.loc[~measured["feasible"], "trial"])
    assert shown.points.loc[shown.points["baseline"], "trial"].tolist() == [0]
    assert shown.points["knee"].sum() == 1


def test_the_outline_rises_and_has_no_front_point_above_it() -> None:
    shown = data(frames.study(100))
    across, up = shown.outline.T
    assert (np.diff(across) > 0).all()
    assert (np.diff(up) > 0).all()
    front = shown.points[shown.points["kind"].isin(ON_FRONT)]
    for x, y in front[["x", "y"]].to_numpy(dtype=float):
        assert up[across <= x].max() >= y


def test_far_worse_points_do_not_squeeze_the_front() -> None:
    trials = frames.study(100, trouble=False)
    last = trials.index[-1]
    trials.loc[last, ["accuracy", "accuracy_low", "accuracy_high"]] = 0.1
    trials.loc[last, ["on_front", "feasible"]] = False
    shown = data(trials)
    assert shown.view is not None
    low, high = shown.view
    front = shown.points[shown.points["kind"].isin(ON_FRONT)]
    assert low < front["y_low"].min()
    assert front["y_high"].max() < high
    assert shown.hidden == (~shown.points["y"].between(low, high)).sum() >= 1
    figure = draw_tradeoff(shown, trials, frames.summary())
    assert tuple(figure.layout.yaxis.range) == shown.view


def test_shows_everything_when_nothing_is_far_off() -> None:
    trials = frames.study(100)
    front = trials[trials["on_front"]].reset_index(drop=True)
    assert data(front).view is None
    assert data(front).hidden == 0


def test_marker_areas_go_as_sizes() -> None:
    sizes = np.array([100.0, 25.0, np.nan, 0.001])
    assert diameters(sizes, smallest=6, largest=26).tolist() == [26.0, 13.0, 6.0, 6.0]
    assert diameters(np.array([np.nan])).tolist() == [6.0]


@pytest.mark.parametrize(
    ("values", "direction", "log"),
    [
        ([1.0, 11.0], Direction.MINIMIZE, True),
        ([1.0, 9.0, np.nan], Direction.MINIMIZE, False),
        ([0.0, 11.0], Direction.MINIMIZE, False),
        ([0.01, 0.9], Direction.MAXIMIZE, False),
        ([np.nan], Direction.MINIMIZE, False),
    ],
)
def test_an_axis_is_logarithmic_over_more_than_a_decade(
    values: list[float], direction: Direction, log: bool
) -> None:
    assert wants_log(np.array(values), replace(LATENCY, direction=direction)) is log


def test_draws_front_baseline_and_knee_with_intervals() -> None:
    trials = frames.study(100)
    shown = data(trials)
    figure = draw_tradeoff(shown, trials, frames.summary())
    traces = {trace.name: trace for trace in figure.data}
    assert traces.keys() == {
        *("outside bounds", "beaten", "edge of the front", "baseline", "knee"),
        *("front", "uncertain", "possible"),
    }
    for kind, name in FRONT_NAMES.items():
        points = shown.points[(shown.points["kind"] == kind) & ~shown.points["baseline"]]
        assert traces[name].x.tolist() == points["x"].tolist()
        if kind in ON_FRONT:
            drawn_low = traces[name].y - traces[name].error_y.arrayminus
            assert drawn_low == pytest.approx(points["y_low"].to_numpy(dtype=float))
    looks = [traces[name].marker for name in FRONT_NAMES.values()]
    assert len({(look.color, look.symbol) for look in looks}) == 3
    assert traces["baseline"].marker.symbol == "star"
    assert figure.layout.xaxis.type == "log"
    assert "0.5" in figure.layout.xaxis.ticktext
    assert figure.layout.xaxis.title.text == "latency (ms), lower is better"


def shown_as(trials: pd.DataFrame, kind: str) -> list[int]:
    points = data(trials).points
    return [int(each) for each in points.loc[points["kind"] == kind, "trial"]]


def test_hover_names_the_trial_its_ratios_and_its_configs() -> None:
    trials = frames.study(100)
    figure = draw_tradeoff(data(trials), trials, frames.summary())
    text = next(trace for trace in figure.data if trace.name == "baseline").hovertext[0]
    assert "trial 0" in text
    assert "1.00\u00d7 speed-up" in text
    assert "unchanged model" in text
    trace = next(trace for trace in figure.data if trace.name == "uncertain")
    assert any("quantization (mode static" in text for text in trace.hovertext)
    chances = dict(zip(trials["trial"], trials["front_probability"], strict=True))
    for text, trial in zip(trace.hovertext, shown_as(trials, "front"), strict=True):
        chance = float(chances[trial])
        assert f"on the front with a probability of {round(100 * chance)} %" in text


def test_sizes_on_an_axis_are_in_megabytes() -> None:
    trials = frames.study(100)
    shown = tradeoff_data(trials, frames.summary(), SIZE, ACCURACY)
    axis = draw_tradeoff(shown, trials, frames.summary()).layout.xaxis
    assert axis.title.text == "file size (MB), lower is better"
    assert axis.tickvals == tuple(float(text) * 1e6 for text in axis.ticktext)


def test_many_points_are_drawn_plainly_but_all() -> None:
    trials = frames.study(MANY * 2)
    shown = data(trials)
    figure = draw_tradeoff(shown, trials, frames.summary())
    others = next(trace for trace in figure.data if trace.name == "beaten")
    assert others.type == "scattergl"
    assert others.hovertext is None
    assert len(others.x) == (shown.points["kind"] == "other").sum() > MANY


@pytest.mark.parametrize("count", [0, 1, 2])
def test_tiny_studies(count: int) -> None:
    trials = frames.study(count) if count else frames.empty()
    figure = draw_tradeoff(data(trials), trials, frames.summary())
    assert sum(trace.mode == "markers" and trace.name != "knee" for trace in figure.data) == count
