"""Reading the trials frame: one row a trial, as `parefront.search` writes it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from parefront.search.summary import ObjectiveSummary, Summary

ACCURACY = "accuracy"
"""Column of the task's metric, whatever the metric is called."""

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]
Row = Mapping[str, Any]


def numbers(trials: pd.DataFrame, column: str) -> Floats:
    """A column as floats of shape `(n,)`, NaN where nothing was measured."""
    values: Floats = trials[column].to_numpy(dtype=float, na_value=np.nan)
    return values


def points(trials: pd.DataFrame, objectives: Sequence[ObjectiveSummary]) -> Floats:
    """Values of objectives as floats of shape `(n, m)`, NaN where nothing was measured."""
    return np.column_stack(
        [numbers(trials, objective.column) for objective in objectives]
        or [np.empty((len(trials), 0))]
    )


def measured_rows(trials: pd.DataFrame, objectives: Sequence[ObjectiveSummary]) -> NDArray[np.intp]:
    """Positions of the rows that have a value for each of the objectives."""
    return np.flatnonzero(np.isfinite(points(trials, objectives)).all(axis=1))


def flags(trials: pd.DataFrame, column: str) -> Bools:
    """A column as booleans of shape `(n,)`."""
    values: Bools = trials[column].to_numpy(dtype=bool)
    return values


def evenly(count: int, most: int) -> NDArray[np.intp]:
    """At most `most` of the positions below `count`, evenly spaced, ascending."""
    return np.rint(np.linspace(0, count - 1, min(count, most))).astype(np.intp)


def rows(trials: pd.DataFrame) -> list[Row]:
    """The rows as mappings from column to value."""
    return [{str(key): value for key, value in row.items()} for row in trials.to_dict("records")]


def on_target(trials: pd.DataFrame, target: str | None) -> pd.DataFrame:
    """The trials with the front of a target in place of the main one."""
    if target is None:
        return trials
    return trials.assign(
        on_front=trials[f"on_front_{target}"],
        front_probability=trials[f"front_probability_{target}"],
    )


def front_of(trials: pd.DataFrame, summary: Summary) -> pd.DataFrame:
    """The rows on the front, best value of the task's metric first."""
    front = trials[flags(trials, "on_front")]
    metric = objective_of(summary, ACCURACY)
    ascending = metric is not None and not metric.maximize
    return front.sort_values([ACCURACY, "trial"], ascending=[ascending, True])


def baseline_of(trials: pd.DataFrame, summary: Summary) -> Row | None:
    """The baseline's row, `None` if the baseline was not measured."""
    if summary.baseline is None:
        return None
    found = rows(trials[trials["trial"] == summary.baseline])
    return found[0] if found else None


def objective_of(summary: Summary, column: str) -> ObjectiveSummary | None:
    """The objective with a column, `None` if the study does not have it."""
    return next((each for each in summary.objectives if each.column == column), None)


def log_flags(values: Floats, objectives: Sequence[ObjectiveSummary]) -> list[bool]:
    """Which objectives are compared by ratio: minimised, positive and not the task's metric.

    Args:
        values: `(n, m)` values; NaN is ignored.
        objectives: The `m` objectives.
    """
    return [
        objective.column != ACCURACY and not objective.maximize and not (column <= 0).any()
        for objective, column in zip(objectives, values.T, strict=True)
    ]
