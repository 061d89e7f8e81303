"""Accuracy in the middle of training, and which trainings were stopped."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from parefront.dashboards.figures.style import FRONT, OTHER, axis, base_figure
from parefront.dashboards.frame import ACCURACY, evenly, objective_of
from parefront.search.summary import ObjectiveSummary, Summary

_MOST = 400
"""Lines that can still be told apart."""

_LOOKS = {
    "stopped": ("stopped", OTHER, 1.0, 0.7),
    "through": ("went on", FRONT, 1.0, 0.45),
    "front": ("on the front", FRONT, 2.5, 1.0),
}
"""Name, colour, width and opacity of each kind of line, in the order in which they are drawn."""


@dataclass(frozen=True)
class RungsData:
    """What the figure shows.

    Attributes:
        points: One row a trial and rung, and one more where the trial was measured at the end, in
            the order of trials and shares, with columns `trial`, `share` of the training, `value`
            of the task's metric and `kind`: `stopped`, `front`, or `through` for all others.
        objective: The task's metric.
        left_out: How many trials with rungs are not shown.
    """

    points: pd.DataFrame
    objective: ObjectiveSummary
    left_out: int


def rungs_data(trials: pd.DataFrame, summary: Summary) -> RungsData | None:
    """The task's metric at each rung, and at the end of the training of those measured then.

    Returns:
        `None` if no trial has rungs.
    """
    metric = objective_of(summary, ACCURACY)
    rungs = trials.get("rungs")
    if metric is None or rungs is None:
        return None
    reached = trials[[isinstance(each, list | tuple) and len(each) > 0 for each in rungs]]
    if reached.empty:
        return None
    kinds = np.select(
        [reached["on_front"].to_numpy(dtype=bool), (reached["state"] == "early_stopped")],
        ["front", "stopped"],
        "through",
    )
    front = np.flatnonzero(kinds == "front")
    others = np.flatnonzero(kinds != "front")
    taken = np.union1d(front, others[evenly(len(others), max(0, _MOST - len(front)))])
    table = []
    for row, kind in zip(reached.iloc[taken].to_dict("records"), kinds[taken], strict=True):
        values = [(rung["share"], rung["values"].get(metric.name)) for rung in row["rungs"]]
        for share, value in [*values, (1.0, row[ACCURACY])]:
            if value is not None and np.isfinite(value):
                table.append((int(row["trial"]), float(share), float(value), str(kind)))
    points = pd.DataFrame(table, columns=["trial", "share", "value", "kind"])
    return RungsData(points, metric, len(reached) - len(taken))


def draw_rungs(data: RungsData) -> go.Figure:
    """Draws one line a trial."""
    figure = base_figure(470)
    for kind, (name, colour, width, opacity) in _LOOKS.items():
        points = data.points[data.points["kind"] == kind]
        if points.empty:
            continue
        line = _broken(points)
        figure.add_scatter(
            x=line["share"],
            y=line["value"],
            customdata=line["trial"],
            mode="lines+markers",
            name=name,
            line={"color": colour, "width": width},
            marker={"size": 5},
            opacity=opacity,
            connectgaps=False,
            hovertemplate="<b>trial %{customdata}</b> after %{x:.0%} of its training<br>%{y:.4g}",
        )
    figure.update_xaxes(
        title={"text": "share of the training"}, tickformat=".0%", range=[0.0, 1.04]
    )
    values = data.points["value"].to_numpy(dtype=float)
    figure.update_yaxes(**axis(data.objective, values, log=False))
    return figure


def _broken(points: pd.DataFrame) -> pd.DataFrame:
    """The points with an empty row after each trial, where the pen is lifted."""
    columns = ["trial", "share", "value"]
    parts = []
    for _, group in points.groupby("trial", sort=False):
        lifted = group[columns].tail(1).assign(share=np.nan, value=np.nan)
        parts += [group[columns], lifted]
    return pd.concat(parts, ignore_index=True)
