"""The configs of all measured candidates as parallel coordinates."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from parefront.dashboards.figures.style import SCALE, TEXT, base_figure, quoted, wants_log
from parefront.dashboards.figures.ticks import linear_ticks, log_ticks
from parefront.dashboards.frame import (
    ACCURACY,
    Floats,
    evenly,
    flags,
    measured_rows,
    numbers,
    objective_of,
)
from parefront.dashboards.words import round_text
from parefront.search.summary import ObjectiveSummary, Summary

OFF = "(off)"
"""Tick of candidates without a parameter: its stage is off, or its condition does not hold."""

_LOG_RATIO = 30.0
_LONGEST = 18
_MOST = 600


@dataclass(frozen=True)
class Dimension:
    """One vertical axis.

    Attributes:
        label: What it shows, one text a line.
        values: `(n,)` positions on the axis.
        ticks: Position and text of each tick, ascending; the values lie between the first and
            the last.
    """

    label: tuple[str, ...]
    values: Floats
    ticks: tuple[tuple[float, str], ...]

    @property
    def range(self) -> tuple[float, float]:
        """First and last position of the axis."""
        return self.ticks[0][0], self.ticks[-1][0]


@dataclass(frozen=True)
class ParallelData:
    """What the figure shows.

    Attributes:
        trials: `(n,)` trial numbers.
        dimensions: The parameters that differ between candidates, then the objectives.
        metric: `(n,)` values of the task's metric, for the colours.
        objective: The task's metric.
        left_out: How many measured trials are not shown.
    """

    trials: Sequence[int]
    dimensions: tuple[Dimension, ...]
    metric: Floats
    objective: ObjectiveSummary
    left_out: int


def parallel_data(trials: pd.DataFrame, summary: Summary) -> ParallelData | None:
    """Configs and objectives of the trials with a value for every objective.

    Returns:
        `None` if there are fewer than two, or no parameter differs between them.
    """
    metric = objective_of(summary, ACCURACY)
    everything = trials.iloc[measured_rows(trials, summary.objectives)]
    measured = _thinned(everything)
    if metric is None or len(measured) < 2:
        return None
    columns = parameter_columns(measured["candidate"].tolist())
    drawn = [parameter_dimension(name, values) for name, values in columns.items()]
    parameters = tuple(dimension for dimension in drawn if len(dimension.ticks) > 1)
    if not parameters:
        return None
    objectives = tuple(
        objective_dimension(each, numbers(measured, each.column)) for each in summary.objectives
    )
    return ParallelData(
        trials=measured["trial"].astype(int).tolist(),
        dimensions=parameters + objectives,
        metric=numbers(measured, ACCURACY),
        objective=metric,
        left_out=len(everything) - len(measured),
    )


def _thinned(trials: pd.DataFrame) -> pd.DataFrame:
    """The front and enough of the others, evenly taken, for lines that can be told apart."""
    front = flags(trials, "on_front")
    others = np.flatnonzero(~front)
    taken = others[evenly(len(others), max(0, _MOST - int(front.sum())))]
    return trials.iloc[np.union1d(np.flatnonzero(front), taken)]


def parameter_columns(candidates: Sequence[dict[str, dict[str, Any]]]) -> dict[str, list[Any]]:
    """Parameters of candidates as columns, `None` where a candidate does not have one.

    Returns:
        By name `"{stage}.{field}"`, one value a candidate. A stage whose config has no fields is
        a column of its own, true where it is on.
    """
    names: dict[str, dict[str, None]] = {}
    for candidate in candidates:
        for stage, config in candidate.items():
            names.setdefault(stage, {}).update(dict.fromkeys(config))
    columns: dict[str, list[Any]] = {}
    for stage, fields in names.items():
        for field in fields:
            columns[f"{stage}.{field}"] = [each.get(stage, {}).get(field) for each in candidates]
        if not fields:
            columns[stage] = [stage in candidate for candidate in candidates]
    return columns


def parameter_dimension(name: str, values: Sequence[Any]) -> Dimension:
    """An axis for a parameter.

    Numbers are drawn to scale, on a logarithmic one if they are positive and their largest is more
    than 30 times the smallest; everything else takes evenly spaced steps. Missing values have a
    tick of their own, below all others.
    """
    present = [value for value in values if value is not None]
    if all(_is_number(value) for value in present) and len(set(present)) > 2:
        return _number_dimension(name, values)
    steps = sorted({_key(value) for value in present})
    texts = [text for _, text in steps]
    if len(present) < len(values):
        texts.insert(0, OFF)
    position = {text: float(index) for index, text in enumerate(texts)}
    places = [position[OFF if value is None else _key(value)[1]] for value in values]
    ticks = tuple((place, _short(text)) for text, place in position.items())
    return Dimension(_lines(name), np.array(places), ticks)


def objective_dimension(objective: ObjectiveSummary, values: Floats) -> Dimension:
    """An axis for an objective, in its unit."""
    log = wants_log(values, objective)
    ticks = _ticks(float(values.min()), float(values.max()), objective.unit, log=log)
    return Dimension((objective.label,), np.log10(values) if log else values, tuple(ticks))


def _number_dimension(name: str, values: Sequence[float | None]) -> Dimension:
    array = np.array([np.nan if value is None else float(value) for value in values])
    low, high = float(np.nanmin(array)), float(np.nanmax(array))
    log = low > 0 and high / low > _LOG_RATIO
    ticks = _ticks(low, high, "", log=log)
    if all(isinstance(value, int) for value in values if value is not None):
        ticks = [(place, text) for place, text in ticks if log or place.is_integer()]
    if log:
        array = np.log10(array)
    missing = np.isnan(array)
    if missing.any():
        first, last = ticks[0][0], ticks[-1][0]
        below = first - 0.12 * (last - first)
        array[missing] = below
        ticks.insert(0, (below, OFF))
    return Dimension(_lines(name), array, tuple(ticks))


def _ticks(low: float, high: float, unit: str, *, log: bool) -> list[tuple[float, str]]:
    """Positions on the axis and texts of round values from low to high."""
    if log:
        return [(math.log10(mark), round_text(mark, unit)) for mark in log_ticks(low, high)]
    return [(mark, round_text(mark, unit)) for mark in linear_ticks(low, high)]


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _key(value: object) -> tuple[float, str]:
    """Sorts numbers by value and everything else by its text."""
    if value is None:
        return -math.inf, OFF
    if isinstance(value, bool):
        return float(value), "yes" if value else "no"
    if isinstance(value, int | float):
        return float(value), f"{value:.4g}"
    return 0.0, value if isinstance(value, str) else json.dumps(value, default=str)


def _lines(name: str) -> tuple[str, ...]:
    return tuple(name.replace("_", " ").split(".", 1))


def _short(text: str) -> str:
    return text if len(text) <= _LONGEST else f"{text[: _LONGEST - 1]}…"


def draw_parallel(data: ParallelData) -> go.Figure:
    """Draws the configs, coloured by the task's metric."""
    figure = base_figure(460)
    figure.add_parcoords(
        dimensions=[
            {
                "label": "<br>".join(quoted(_short(line)) for line in dimension.label),
                "values": dimension.values,
                "range": dimension.range,
                "tickvals": [place for place, _ in dimension.ticks],
                "ticktext": [text for _, text in dimension.ticks],
            }
            for dimension in data.dimensions
        ],
        line={
            "color": data.metric,
            "colorscale": SCALE,
            "reversescale": not data.objective.maximize,
            # One collapsed candidate must not take all the colours.
            "cmin": np.quantile(data.metric, 0.05),
            "cmax": np.quantile(data.metric, 0.95),
        },
        labelfont={"size": 11.5, "color": TEXT},
        tickfont={"size": 11, "color": TEXT},
        rangefont={"size": 1, "color": "rgba(0,0,0,0)"},
        unselected={"line": {"opacity": 0.05}},
    )
    figure.update_layout(margin={"l": 72, "r": 36, "t": 64, "b": 24})
    return figure
