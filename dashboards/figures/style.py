"""What all figures share: colours, axes, markers and hover texts."""

from __future__ import annotations

from html import escape
from textwrap import wrap
from typing import Any

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from parefront.dashboards.figures.ticks import linear_ticks, log_ticks
from parefront.dashboards.frame import Bools, Floats, rows
from parefront.dashboards.probability import front_words
from parefront.dashboards.words import (
    axis_text,
    measured_text,
    ratio_text,
    round_text,
    stage_texts,
    unit_scale,
)
from parefront.search.summary import ObjectiveSummary, Summary

# Mid tones, at least 3:1 against white and against near-black.
FRONT = "#2b7de0"
UNSURE = "#9cc3f0"
"""The front where it is not certain: lighter, with an edge of its colour."""
FRONT_NAMES = {"certain": "front", "front": "uncertain", "possible": "possible"}
"""What the legend calls the kinds of points that are on the front or may be."""
BASELINE = "#d9780f"
KNEE = "#c2449f"
OTHER = "#8a94a6"
TEXT = "#7b8698"
GRID = "rgba(128,140,160,0.22)"
SCALE = ((0.0, "#5a4fcf"), (0.35, "#b8479f"), (0.7, "#e8704a"), (1.0, "#e3a82b"))
"""Worst to best."""

_HOVER_WIDTH = 46
"""Characters in a line under the pointer, so that it fits on a telephone."""

MANY = 2_000
"""With more points than this the unremarkable ones are drawn plainly, so that pages stay usable."""


def quoted(text: str) -> str:
    """Escapes text from outside for Plotly, which reads a part of HTML."""
    return escape(text, quote=False)


def hover_texts(trials: pd.DataFrame, summary: Summary) -> list[str]:
    """What to show when the pointer is over a trial, one escaped text a row."""
    texts = []
    for row in rows(trials):
        lines = [f"<b>trial {row['trial']}</b> · {quoted(str(row['origin']))}"]
        lines += [
            quoted(f"{objective.label} {measured_text(row, objective)}")
            for objective in summary.objectives
        ]
        if np.isfinite(row["speedup"]) and np.isfinite(row["shrink"]):
            lines.append(
                f"{ratio_text(row['speedup'])} speed-up, {ratio_text(row['shrink'])} shrink"
            )
        if not row["feasible"]:
            lines.append("outside the bounds")
        elif chance := front_words(row):
            lines.append(chance)
        for text in stage_texts(row["candidate"]) or ["unchanged model"]:
            lines += [quoted(line) for line in wrap(text, _HOVER_WIDTH)]
        texts.append("<br>".join(lines))
    return texts


def wants_log(values: Floats, objective: ObjectiveSummary) -> bool:
    """Whether an axis is logarithmic: minimised, positive and over more than a decade.

    Args:
        values: The values on the axis; NaN is ignored.
        objective: What they are values of.
    """
    known = values[np.isfinite(values)]
    if objective.maximize or len(known) == 0 or known.min() <= 0:
        return False
    return bool(known.max() / known.min() > 10)


def diameters(sizes: Floats, *, smallest: float = 6.0, largest: float = 26.0) -> Floats:
    """Marker diameters in pixels whose areas go as the sizes.

    Args:
        sizes: `(n,)` sizes, NaN where unknown.
        smallest: Least diameter, also of an unknown size.
        largest: Diameter of the largest size.
    """
    known = sizes[np.isfinite(sizes) & (sizes > 0)]
    if len(known) == 0:
        return np.full(len(sizes), smallest)
    scaled: Floats = largest * np.sqrt(np.maximum(np.nan_to_num(sizes), 0.0) / known.max())
    return np.maximum(scaled, smallest, dtype=float)


def front_view(
    values: Floats, low: Floats, high: Floats, kept: Bools, *, maximize: bool
) -> tuple[float, float] | None:
    """The range of values around those that matter, if a few bad ones would squeeze it.

    Args:
        values: `(n,)` values on the axis.
        low: `(n,)` lower ends of their intervals.
        high: `(n,)` upper ends of their intervals.
        kept: `(n,)` flags of the points that matter: the front and the baseline.
        maximize: Whether larger is better.

    Returns:
        The range, with room for what is a little worse; `None` if fewer than two points matter or
        everything fits well enough.
    """
    if kept.sum() < 2:
        return None
    least, most = float(low[kept].min()), float(high[kept].max())
    worse, better = 0.8 * (most - least), 0.06 * (most - least)
    view = (least - worse, most + better) if maximize else (least - better, most + worse)
    whole = max(values.max(), most) - min(values.min(), least)
    return view if whole > 1.25 * (view[1] - view[0]) else None


def axis(
    objective: ObjectiveSummary, values: Floats, *, log: bool, hint: bool = True
) -> dict[str, Any]:
    """Layout of an axis with an objective's values.

    Args:
        objective: What the axis shows.
        values: The values on the axis; NaN is ignored.
        log: Whether the axis is logarithmic. Its marks are written out, since Plotly shortens
            0.2, 2 and 20 all to 2.
        hint: Whether the title says which way is better.

    Returns:
        Layout with title, type and, where Plotly's own would mislead, marks.
    """
    known = values[np.isfinite(values)]
    factor, unit = unit_scale(known, objective.unit)
    layout: dict[str, Any] = {
        "title": {"text": quoted(axis_text(objective, unit, hint=hint))},
        "type": "log" if log else "linear",
    }
    if log or factor != 1.0:
        marks = (log_ticks if log else linear_ticks)(known.min() / factor, known.max() / factor)
        layout["tickvals"] = [mark * factor for mark in marks]
        layout["ticktext"] = [round_text(mark, "") for mark in marks]
    return layout


def base_figure(height: int) -> go.Figure:
    """An empty figure with the shared look.

    Args:
        height: Height in pixels; the width follows the page.
    """
    figure = go.Figure()
    figure.update_layout(
        template="none",
        height=height,
        autosize=True,
        margin={"l": 64, "r": 16, "t": 32, "b": 56},
        paper_bgcolor="rgba(0,0,0,0)",
        plot_bgcolor="rgba(0,0,0,0)",
        font={"family": "system-ui, sans-serif", "size": 13, "color": TEXT},
        legend={
            "orientation": "h",
            "x": 0,
            "entrywidth": 92,
            "y": -0.2,
            "yanchor": "top",
            "itemsizing": "constant",
            "font": {"size": 12.5},
        },
        hoverlabel={
            "bgcolor": "#1d2430",
            "bordercolor": "#5b667a",
            "font": {"color": "#f2f4f8", "size": 12.5},
            "align": "left",
            "namelength": 0,
        },
        hovermode="closest",
        modebar={"bgcolor": "rgba(0,0,0,0)", "color": TEXT, "activecolor": FRONT},
    )
    shared = {
        "gridcolor": GRID,
        "linecolor": GRID,
        "zeroline": False,
        "ticks": "outside",
        "tickcolor": GRID,
        "automargin": True,
        "tickangle": 0,
        "title": {"standoff": 10, "font": {"size": 13}},
    }
    figure.update_xaxes(**shared)
    figure.update_yaxes(**shared)
    return figure
