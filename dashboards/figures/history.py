"""How the front grew: hypervolume over time."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from parefront.dashboards.figures.style import FRONT, base_figure
from parefront.dashboards.frame import Floats, flags, log_flags, points
from parefront.objectives.front import (
    hypervolume_history,
    log_scaled,
    normalize,
    reference_box,
)
from parefront.search.summary import Summary

MARGIN = 1.1
"""Reference point, where 0 is the ideal and 1 the nadir: the extreme points count as well."""

_UNITS = ((7200.0, "hours", 3600.0), (120.0, "minutes", 60.0), (0.0, "seconds", 1.0))


@dataclass(frozen=True)
class HistoryData:
    """What the figure shows.

    Attributes:
        points: One row a finished trial in the order in which they finished, with columns
            `trial`, `x` and `share`, the hypervolume so far in [0, 1].
        x_title: What `x` is, with its unit.
    """

    points: pd.DataFrame
    x_title: str


def history_data(trials: pd.DataFrame, summary: Summary) -> HistoryData | None:
    """Hypervolume after each finished trial, of the trials that met the bounds.

    Objectives compared by ratio are on a logarithmic scale; each is scaled so that over the final
    front and the baseline its best value is 0 and its worst 1. The volume is the share of the box
    between the ideal and `MARGIN`.

    Returns:
        `None` if there is no front yet.
    """
    front = flags(trials, "on_front")
    if not front.any() or len(summary.objectives) == 0:
        return None
    ended = ~trials["state"].isin(["running", "interrupted"]).to_numpy()
    timed = bool(trials["finished"][ended].notna().all() and trials["started"].notna().any())
    order = np.lexsort(
        (trials["trial"], pd.to_datetime(trials["finished"]) if timed else trials["trial"])
    )
    order = order[ended[order]]
    objectives = [each for each in summary.objectives if each.optimized]
    maximize = [objective.maximize for objective in objectives]
    values = points(trials, objectives)
    values = log_scaled(values, log_flags(values, objectives))
    corners = front | (trials["trial"] == summary.baseline).to_numpy()
    scaled = normalize(values, *reference_box(values[corners], maximize), maximize)
    scaled[~flags(trials, "feasible")] = np.nan
    volume = hypervolume_history(
        scaled[order], [MARGIN] * len(objectives), [False] * len(objectives)
    )
    x, x_title = _times(trials.iloc[order], trials) if timed else _counts(len(order))
    table = {
        "trial": trials["trial"].to_numpy(dtype=int)[order],
        "x": x,
        "share": volume / MARGIN ** len(objectives),
    }
    return HistoryData(pd.DataFrame(table), x_title)


def _times(ended: pd.DataFrame, trials: pd.DataFrame) -> tuple[Floats, str]:
    since = pd.to_datetime(ended["finished"]) - pd.to_datetime(trials["started"]).min()
    seconds = since.dt.total_seconds().to_numpy().astype(np.float64)
    unit, factor = next((name, size) for least, name, size in _UNITS if seconds[-1] >= least)
    return seconds / factor, f"{unit} since the first trial started"


def _counts(count: int) -> tuple[Floats, str]:
    return np.arange(1, count + 1, dtype=float), "finished trials"


def draw_history(data: HistoryData) -> go.Figure:
    """Draws the hypervolume over time."""
    figure = base_figure(470)
    figure.add_scatter(
        x=data.points["x"],
        y=data.points["share"],
        customdata=data.points["trial"],
        mode="lines",
        line={"color": FRONT, "width": 2, "shape": "hv"},
        fill="tozeroy",
        fillcolor="rgba(43,125,224,0.10)",
        hovertemplate="after trial %{customdata}<br>%{y:.1%} of the box<extra></extra>",
        showlegend=False,
    )
    figure.update_xaxes(title={"text": data.x_title}, rangemode="tozero")
    figure.update_yaxes(
        title={"text": "hypervolume, share of the box"}, tickformat=".0%", rangemode="tozero"
    )
    return figure
