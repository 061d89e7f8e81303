"""The figures of the report, each with a heading and a note."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pandas as pd
import plotly.graph_objects as go
import plotly.io
from markupsafe import Markup

from parefront.dashboards import figures
from parefront.dashboards.frame import ACCURACY, objective_of, on_target
from parefront.search.summary import Summary

PLOT_CONFIG = {
    "displaylogo": False,
    # Plotly's own default offers to upload the chart to a service of its makers.
    "showSendToCloud": False,
    "responsive": True,
    "modeBarButtonsToRemove": ["lasso2d", "select2d", "toImage"],
}


def report_figures(trials: pd.DataFrame, summary: Summary) -> list[dict[str, Any]]:
    """The figures that the trials have data for, each with a heading and a note."""
    found: list[dict[str, Any]] = []

    def add(key: str, heading: str, note: str, figure: go.Figure, least_width: int = 0) -> None:
        html = plotly.io.to_html(
            figure,
            config=PLOT_CONFIG,
            include_plotlyjs=False,
            full_html=False,
            div_id=f"figure-{key}",
        )
        found.append(
            {
                "heading": heading,
                "note": note,
                # Plotly writes "<", ">" and "/" of the data as escapes of JSON.
                "html": Markup(html),  # noqa: S704
                "least_width": least_width,
            }
        )

    for build in (_tradeoffs, _history, _rungs, _scatter3d, _parallel, _sensitivity):
        build(trials, summary, add)
    return found


_Add = Callable[..., None]


def _tradeoffs(trials: pd.DataFrame, summary: Summary, add: _Add) -> None:
    metric, size = objective_of(summary, ACCURACY), objective_of(summary, "size_bytes")
    for x in summary.objectives:
        if metric is None or x.column == ACCURACY:
            continue
        grows = size if x.column == "latency_ms" else None
        shown = on_target(trials, x.target)
        data = figures.tradeoff_data(shown, summary, x, metric, grows)
        if len(data.points) == 0:
            continue
        notes = [
            "Bars: intervals of the front. Line: edge of the front in these two objectives. Pale "
            "points are on it, but for all that was measured something may beat them; open blue "
            "ones are not, but may be."
            if len(data.outline)
            else "No front to draw.",
            f"Marker area: {grows.label}." if grows is not None else "",
            f"{data.hidden} far worse points are out of view; double-click to see all."
            if data.hidden
            else "",
        ]
        note = " ".join(each for each in notes if each)
        heading = f"{metric.label} against {x.label}"
        add(x.column, heading, note, figures.draw_tradeoff(data, shown, summary))


def _scatter3d(trials: pd.DataFrame, summary: Summary, add: _Add) -> None:
    chosen = [objective_of(summary, column) for column in ("latency_ms", "size_bytes", ACCURACY)]
    x, y, z = chosen
    if x is None or y is None or z is None:
        return
    data = figures.scatter3d_data(trials, summary, (x, y, z))
    if len(data.points) == 0:
        return
    note = "Drag to turn."
    if data.left_out:
        note += f" {data.left_out} points far worse than the front or too many are left out."
    add(
        "3d",
        f"{z.label}, {x.label} and {y.label}",
        note,
        figures.draw_scatter3d(data, trials, summary),
    )


def _history(trials: pd.DataFrame, summary: Summary, add: _Add) -> None:
    data = figures.history_data(trials, summary)
    if data is None:
        return
    note = (
        "Share of the space between the worst and the best values of the front and the baseline "
        "that has been won. A curve that still rises says that more trials would help."
    )
    add("history", "Progress of the search", note, figures.draw_history(data))


def _rungs(trials: pd.DataFrame, summary: Summary, add: _Add) -> None:
    data = figures.rungs_data(trials, summary)
    if data is None:
        return
    note = (
        "One line a trial. In the middle of training it is the module that is asked, at the end "
        "the file that would ship, so that quantisation shows as a fall."
    )
    if data.left_out:
        note += f" {data.left_out} trials that are not on the front are left out, evenly."
    add("rungs", f"{data.objective.label} during training", note, figures.draw_rungs(data))


def _parallel(trials: pd.DataFrame, summary: Summary, add: _Add) -> None:
    data = figures.parallel_data(trials, summary)
    if data is None:
        return
    note = (
        f"One line a measured candidate, coloured by {data.objective.label} from violet (worst) "
        "to yellow (best). Drag along an axis to keep only the lines through that part of it."
    )
    if data.left_out:
        note += f" {data.left_out} candidates that are not on the front are left out, evenly."
    least_width = 80 * len(data.dimensions)
    add("parallel", "Configs", note, figures.draw_parallel(data), least_width)


def _sensitivity(trials: pd.DataFrame, summary: Summary, add: _Add) -> None:  # noqa: ARG001
    for number, data in enumerate(figures.sensitivity_data(trials)):
        note = (
            f"How much the loss on calibration examples grew in trial {data.trial} when "
            f"{data.stage} did so much to one layer alone, before training: from yellow (little) "
            "to violet (much)."
        )
        title = f"Sensitivity of layers to {data.stage}"
        add(f"sensitivity-{number}", title, note, figures.draw_sensitivity(data))
