"""Two objectives against each other, with the front."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from parefront.dashboards.figures.style import (
    BASELINE,
    FRONT,
    FRONT_NAMES,
    KNEE,
    MANY,
    OTHER,
    UNSURE,
    axis,
    base_figure,
    diameters,
    front_view,
    hover_texts,
    wants_log,
)
from parefront.dashboards.frame import Floats, flags, numbers
from parefront.dashboards.picks import knee_trial
from parefront.dashboards.probability import ON_FRONT, kinds
from parefront.objectives.front import dominated
from parefront.search.summary import ObjectiveSummary, Summary

_STAR = 17.0
"""Diameter of the baseline's star: an area would not compare with the circles."""


@dataclass(frozen=True)
class TradeoffData:
    """What the figure shows.

    Attributes:
        x: Objective on the horizontal axis.
        y: Objective on the vertical axis.
        size: Objective that markers grow with, `None` for markers of one size.
        points: One row a measured trial with columns `trial`, `x`, `x_low`, `x_high`, `y`,
            `y_low`, `y_high`, `kind` (see `parefront.dashboards.probability.kinds`), `baseline`
            and `knee` (booleans) and `diameter` in pixels.
        outline: `(k, 2)` corners of the front's edge in these two objectives, ascending in x.
        log_x: Whether the horizontal axis is logarithmic.
        log_y: Whether the vertical axis is logarithmic.
        view: Part of the vertical axis to show at first, `None` for all of it.
        hidden: How many points are outside that part.
    """

    x: ObjectiveSummary
    y: ObjectiveSummary
    size: ObjectiveSummary | None
    points: pd.DataFrame
    outline: Floats
    log_x: bool
    log_y: bool
    view: tuple[float, float] | None
    hidden: int


def tradeoff_data(
    trials: pd.DataFrame,
    summary: Summary,
    x: ObjectiveSummary,
    y: ObjectiveSummary,
    size: ObjectiveSummary | None = None,
) -> TradeoffData:
    """Data of two objectives against each other; trials without both values are left out."""
    columns = {"trial": trials["trial"].to_numpy(dtype=int)}
    for key, objective in (("x", x), ("y", y)):
        columns[key] = numbers(trials, objective.column)
        columns[f"{key}_low"] = numbers(trials, f"{objective.column}_low")
        columns[f"{key}_high"] = numbers(trials, f"{objective.column}_high")
    points = pd.DataFrame(columns)
    points["kind"] = kinds(trials).to_numpy()
    points["baseline"] = points["trial"] == (-1 if summary.baseline is None else summary.baseline)
    points["knee"] = points["trial"] == knee_trial(trials, summary)
    sizes = np.full(len(trials), np.nan) if size is None else numbers(trials, size.column)
    points["diameter"] = diameters(sizes) if size is not None else 10.0
    points = points[np.isfinite(points["x"]) & np.isfinite(points["y"])].reset_index(drop=True)
    log_y = wants_log(points["y"].to_numpy(dtype=float), y)
    view = None if log_y else _view(points, y)
    return TradeoffData(
        x=x,
        y=y,
        size=size,
        points=points,
        outline=front_outline(points[points["kind"].isin(ON_FRONT)], x, y),
        log_x=wants_log(points["x"].to_numpy(dtype=float), x),
        log_y=log_y,
        view=view,
        hidden=0 if view is None else int((~points["y"].between(*view)).sum()),
    )


def _view(points: pd.DataFrame, y: ObjectiveSummary) -> tuple[float, float] | None:
    values, low, high = (numbers(points, key) for key in ("y", "y_low", "y_high"))
    kept = points["kind"].isin(ON_FRONT).to_numpy(dtype=bool) | flags(points, "baseline")
    return front_view(values, low, high, kept, maximize=y.maximize)


def front_outline(points: pd.DataFrame, x: ObjectiveSummary, y: ObjectiveSummary) -> Floats:
    """The points no other beats in these two objectives alone, by the values.

    A front of three objectives is no line when two of them are drawn; this is its edge.

    Returns:
        `(k, 2)` points, ascending in x.
    """
    values = points[["x", "y"]].to_numpy(dtype=float)
    beaten = dominated(values, values, values, [x.maximize, y.maximize])
    return np.unique(values[~beaten], axis=0)


def draw_tradeoff(data: TradeoffData, trials: pd.DataFrame, summary: Summary) -> go.Figure:
    """Draws two objectives against each other.

    Args:
        data: What to show.
        trials: The trials frame the data came from, for the texts under the pointer.
        summary: The study.
    """
    figure = base_figure(470)
    points = data.points
    plain = points[~points["baseline"]]
    for kind, name, symbol in (
        ("outside", "outside bounds", "circle-open"),
        ("other", "beaten", "circle"),
    ):
        _add_others(figure, plain[plain["kind"] == kind], name, symbol, trials, summary)
    if len(data.outline):
        # The best y that is to be had at x or better, so the line turns at right angles.
        figure.add_scatter(
            x=data.outline[:, 0],
            y=data.outline[:, 1],
            mode="lines",
            line={"color": FRONT, "width": 1.5, "shape": "vh" if data.x.maximize else "hv"},
            name="edge of the front",
            hoverinfo="skip",
            showlegend=False,
        )
    for kind, marker in (
        ("possible", {"color": FRONT, "symbol": "circle-open"}),
        ("front", {"color": UNSURE, "symbol": "circle"}),
        ("certain", {"color": FRONT, "symbol": "circle"}),
    ):
        of_kind = plain[plain["kind"] == kind]
        _add_measured(figure, of_kind, FRONT_NAMES[kind], marker, trials, summary)
    star = {"color": BASELINE, "symbol": "star"}
    baseline = points[points["baseline"]].assign(diameter=_STAR)
    _add_measured(figure, baseline, "baseline", star, trials, summary)
    _add_knee(figure, points[points["knee"]])
    figure.update_xaxes(**axis(data.x, points["x"].to_numpy(dtype=float), log=data.log_x))
    figure.update_yaxes(**axis(data.y, points["y"].to_numpy(dtype=float), log=data.log_y))
    if data.view is not None:
        figure.update_yaxes(range=data.view)
    return figure


def _add_others(
    figure: go.Figure,
    points: pd.DataFrame,
    name: str,
    symbol: str,
    trials: pd.DataFrame,
    summary: Summary,
) -> None:
    """Adds points that are not on the front, with full hover texts while they are few."""
    if len(points) == 0:
        return
    few = len(points) <= MANY
    add = figure.add_scatter if few else figure.add_scattergl
    add(
        x=points["x"],
        y=points["y"],
        mode="markers",
        name=name,
        marker={
            "color": OTHER,
            "opacity": 0.5 if few else 0.3,
            "size": points["diameter"] * (1.0 if few else 0.5),
            "symbol": symbol,
            "line": {"width": 1.2 if symbol.endswith("open") else 0},
        },
        customdata=points["trial"],
        hovertext=_texts(points, trials, summary) if few else None,
        hovertemplate="%{hovertext}<extra></extra>"
        if few
        else "<b>trial %{customdata}</b><br>%{x}, %{y}<extra></extra>",
    )


def _add_measured(
    figure: go.Figure,
    points: pd.DataFrame,
    name: str,
    marker: dict[str, str],
    trials: pd.DataFrame,
    summary: Summary,
) -> None:
    """Adds points that matter, those of the front and the baseline with their intervals."""
    if len(points) == 0:
        return
    bars = {
        f"error_{key}": {
            "type": "data",
            "symmetric": False,
            "array": points[f"{key}_high"] - points[key],
            "arrayminus": points[key] - points[f"{key}_low"],
            "color": FRONT if marker["color"] == UNSURE else marker["color"],
            "thickness": 1,
            "width": 0,
        }
        for key in ("x", "y")
        if name != FRONT_NAMES["possible"]
    }
    figure.add_scatter(
        x=points["x"],
        y=points["y"],
        mode="markers",
        name=name,
        marker={
            **marker,
            "size": points["diameter"],
            "opacity": 0.85,
            "line": _edge(marker),
        },
        hovertext=_texts(points, trials, summary),
        hovertemplate="%{hovertext}<extra></extra>",
        **bars,
    )


def _edge(marker: dict[str, str]) -> dict[str, Any]:
    if marker["symbol"].endswith("open"):
        return {"width": 1.4}
    color = FRONT if marker["color"] == UNSURE else "rgba(255,255,255,0.8)"
    return {"width": 1, "color": color}


def _add_knee(figure: go.Figure, points: pd.DataFrame) -> None:
    if len(points) == 0:
        return
    figure.add_scatter(
        x=points["x"],
        y=points["y"],
        mode="markers",
        name="knee",
        marker={
            "symbol": "circle-open",
            "color": KNEE,
            "size": points["diameter"] + 9,
            "line": {"width": 2.5},
        },
        hoverinfo="skip",
    )


def _texts(points: pd.DataFrame, trials: pd.DataFrame, summary: Summary) -> list[str]:
    order = pd.Index(trials["trial"]).get_indexer(points["trial"])
    return hover_texts(trials.iloc[order], summary)
