"""The few points of a front that a reader looks for first."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd

from parefront.dashboards.frame import (
    ACCURACY,
    baseline_of,
    front_of,
    numbers,
    objective_of,
)
from parefront.errors import PickError
from parefront.search.picks import pick
from parefront.search.summary import ObjectiveSummary, Summary

_SUPERLATIVES = {"latency": "Fastest", "size": "Smallest"}


@dataclass(frozen=True)
class Pick:
    """A point worth a headline.

    Attributes:
        title: What it is the best at.
        trial: Its trial number, `None` if there is no such point.
        note: Why it is this one, or why there is none.
    """

    title: str
    trial: int | None
    note: str


def knee_trial(trials: pd.DataFrame, summary: Summary) -> int | None:
    """Trial number of the front's knee, `None` without a front.

    Objectives compared by ratio, such as latency and size, are on a logarithmic scale.
    """
    try:
        return int(pick(front_of(trials, summary), "knee", summary.objectives)["trial"])
    except PickError:
        return None


def near_baseline(metric: ObjectiveSummary, baseline: float) -> tuple[float, str]:
    """How much worse than the baseline a metric may be and still count as near, and in words.

    That is one point, 0.01, for a metric that is maximised and at most 1, such as the share of
    right answers, and 1 % of the baseline's value for any other.
    """
    if metric.maximize and 0 <= baseline <= 1:
        return 0.01, "one point"
    return abs(baseline) / 100, "1 %"


def headline_picks(trials: pd.DataFrame, summary: Summary) -> list[Pick]:
    """The knee, and for each further objective the best point near the baseline's accuracy.

    Returns:
        Empty without a front.
    """
    front = front_of(trials, summary)
    balanced = knee_trial(trials, summary)
    if balanced is None:
        return []
    picks = [Pick("Knee", balanced, "the best balance: nearest to the ideal of all objectives")]
    metric = objective_of(summary, ACCURACY)
    baseline = baseline_of(trials, summary)
    if metric is None or baseline is None or np.isnan(baseline[ACCURACY]):
        return picks
    slack, words = near_baseline(metric, baseline[ACCURACY])
    loss = (numbers(front, ACCURACY) - baseline[ACCURACY]) * (-1 if metric.maximize else 1)
    # A drop of exactly one point, such as 0.90 to 0.89, is inside although it rounds outside.
    near = front[(loss <= slack + 1e-9) & (front["trial"].to_numpy() != summary.baseline)]
    where = f"within {words} of the baseline's {metric.label}"
    picks += [
        _best(near, objective, baseline[objective.column], where)
        for objective in summary.objectives
        if objective.column != ACCURACY and objective.optimized
    ]
    return picks


def _best(near: pd.DataFrame, objective: ObjectiveSummary, baseline: float, where: str) -> Pick:
    title = _SUPERLATIVES.get(objective.name, f"Best {objective.label}")
    sign = -1 if objective.maximize else 1
    costs = sign * numbers(near, objective.column)
    if len(near) == 0:
        return Pick(title, None, f"no candidate on the front is {where}")
    best = int(costs.argmin())
    if costs[best] >= sign * baseline:
        return Pick(title, None, f"no candidate {where} has a better {objective.label} than it")
    return Pick(title, int(near["trial"].iloc[best]), where)
