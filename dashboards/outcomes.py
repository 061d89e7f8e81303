"""What became of the trials: counts, reasons, and why there may be no front."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from parefront.dashboards.frame import Floats, Row, flags, numbers
from parefront.dashboards.words import STATES, value_text
from parefront.search.summary import ObjectiveSummary, Summary

_NUMBER = re.compile(r"(?<![A-Za-z_])[-+]?\d+(?:[.,]\d+)*(?:e[-+]?\d+)?", re.IGNORECASE)


@dataclass(frozen=True)
class ReasonGroup:
    """Trials that ended for one reason.

    Attributes:
        reason: The reason of the first of them, whole.
        trials: Their trial numbers, ascending.
    """

    reason: str
    trials: tuple[int, ...]


def reason_groups(trials: pd.DataFrame, state: str) -> list[ReasonGroup]:
    """Reasons of the trials in a state, the most frequent first.

    Reasons that differ only in numbers, such as a measured latency, are one group.
    """
    groups: dict[str, tuple[str, list[int]]] = {}
    ended = trials[trials["state"] == state].sort_values("trial")
    for number, reason in zip(ended["trial"], ended["reason"], strict=True):
        text = reason.strip() if isinstance(reason, str) else ""
        text = text or "no reason recorded"
        groups.setdefault(_NUMBER.sub("#", text), (text, []))[1].append(int(number))
    found = [ReasonGroup(reason, tuple(numbers)) for reason, numbers in groups.values()]
    return sorted(found, key=lambda group: (-len(group.trials), group.trials[0]))


def state_counts(trials: pd.DataFrame) -> dict[str, int]:
    """How many trials are in each state, in the order of a trial's life."""
    counts = trials["state"].value_counts()
    return {state: int(counts[state]) for state in STATES if state in counts}


def no_front_reason(trials: pd.DataFrame) -> str | None:
    """Why there is no front, in a sentence; `None` if there is one."""
    if flags(trials, "on_front").any():
        return None
    counts = state_counts(trials)
    if not counts:
        return "The study has no trials yet."
    if not counts.get("complete"):
        if counts.keys() == {"failed"}:
            return f"All {counts['failed']} trials failed."
        if "infeasible" in counts:
            return (
                "No candidate met the bounds: those that could be measured broke one before "
                "any training."
            )
        return "No trial has finished yet."
    if not flags(trials, "feasible").any():
        return "No candidate met the bounds."
    return "No finished candidate has a value for every objective."


def nearest_to_bounds(trials: pd.DataFrame, summary: Summary, count: int = 5) -> pd.DataFrame:
    """The rows that come nearest to meeting the bounds, nearest first.

    Nearness is the largest relative excess over the bounds; what was not measured counts as
    met, but rows with more values measured come first among equals. Trials that were not trained
    to the end for another reason than a bound are left out.

    Args:
        trials: The trials frame.
        summary: The study, with the bounds.
        count: How many rows at most.
    """
    bounded = bounded_objectives(summary)
    if not bounded:
        return trials.iloc[:0]
    trials = trials[~trials["state"].isin(["gated", "early_stopped"])]
    excess = np.column_stack([_excess(numbers(trials, each.column), each) for each in bounded])
    missing = np.isnan(excess).sum(axis=1)
    worst = np.where(np.isnan(excess), 0.0, excess).max(axis=1)
    order = np.lexsort((missing, worst))
    measured = [index for index in order if missing[index] < len(bounded)]
    return trials.iloc[measured[:count]]


def bounded_objectives(summary: Summary) -> Sequence[ObjectiveSummary]:
    """The objectives that have a bound."""
    return [
        each
        for each in summary.objectives
        if each.bound.at_least is not None or each.bound.at_most is not None
    ]


def broken_bounds(row: Row, summary: Summary) -> list[str]:
    """The bounds that a row breaks and by how much, each in words."""
    texts = []
    for objective in bounded_objectives(summary):
        value = float(row[objective.column])
        excess = float(_excess(np.array([value]), objective)[0])
        if excess > 0:
            text = value_text(objective.bound.violation(value), objective.unit)
            low = objective.bound.at_least
            side = "below" if low is not None and value < low else "above"
            texts.append(f"{objective.label} {text} ({100 * excess:.0f} %) {side} the bound")
    return texts


def _excess(values: Floats, objective: ObjectiveSummary) -> Floats:
    """How far each value is outside the bound, relative to the bound; NaN if not measured."""
    low, high = objective.bound.at_least, objective.bound.at_most
    excess = np.where(np.isnan(values), np.nan, 0.0)
    if low is not None:
        excess = np.maximum(excess, (low - values) / (abs(low) or 1.0))
    if high is not None:
        excess = np.maximum(excess, (values - high) / (abs(high) or 1.0))
    return excess
