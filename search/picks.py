"""Picking one candidate from a front."""

from __future__ import annotations

import operator
import re
from collections.abc import Callable, Mapping, Sequence
from difflib import get_close_matches
from typing import Any

import pandas as pd

from parefront.errors import PickError
from parefront.objectives.front import knee
from parefront.search.summary import ObjectiveSummary, of_target

Compare = Callable[[Any, Any], Any]
_COMPARE: Mapping[str, Compare] = {
    "<=": operator.le,
    ">=": operator.ge,
    "<": operator.lt,
    ">": operator.gt,
}
_TERM = re.compile(r"\s*(\w+)\s*(<=|>=|<|>)\s*([-+]?[\d.]+(?:[eE][-+]?\d+)?)\s*")
_UNITS = {
    "ms": {"us": 1e-3, "ms": 1.0, "s": 1e3},
    "B": {"bytes": 1.0, "kb": 1e3, "mb": 1e6},
}
"""Suffixes an expression may use for an objective of a unit, and what one of them is in it."""


def pick(
    front: pd.DataFrame,
    wanted: str,
    objectives: Sequence[ObjectiveSummary],
    target: str | None = None,
) -> pd.Series[Any]:
    """One row of a front.

    Args:
        front: Rows of the front.
        wanted: `"knee"`, or bounds such as `"latency_ms<=0.5 and size_kb<=200"`. Of the candidates
            within bounds the most accurate is picked, of equally accurate ones the fastest.
        objectives: All that was measured.
        target: Name of the further target whose front it is, `None` for the main one.

    Raises:
        PickError: If the front is empty, the expression cannot be read, or nothing matches.
    """
    if front.empty:
        raise PickError("the study has no front to pick from; see 'parefront front' for why")
    if wanted.strip() == "knee":
        front = front.sort_values("trial")  # of equally good ones, the first
        used = of_target(objectives, target)
        index = knee(
            front[[each.column for each in used]].to_numpy(dtype=float),
            [each.maximize for each in used],
            log=[each.log for each in used],
        )
        return front.iloc[index]
    within = front
    for term in re.split(r"\band\b", wanted):
        column, factor, compare, limit = _read(term, wanted, objectives)
        within = within[compare(within[column].astype(float), limit * factor)]
    if within.empty:
        raise PickError(
            f"no candidate on the front meets '{wanted}'; the front spans "
            + _spans(front, objectives)
        )
    metric = next(each for each in objectives if each.name == "accuracy")
    latency = f"latency_ms_{target}" if target else "latency_ms"
    ordered = within.sort_values(
        ["accuracy", latency, "size_bytes"], ascending=[not metric.maximize, True, True]
    )
    return ordered.iloc[0]


def _read(
    term: str, whole: str, objectives: Sequence[ObjectiveSummary]
) -> tuple[str, float, Compare, float]:
    match = _TERM.fullmatch(term)
    if match is None:
        raise PickError(
            "a pick is 'knee' or bounds such as \"latency_ms<=0.5 and size_kb<=200\", "
            f"got '{whole}'"
        )
    name, sign, number = match.groups()
    names = _names(objectives)
    if name not in names:
        near = get_close_matches(name, names, 1)
        hint = f"did you mean '{near[0]}'?" if near else f"known are {', '.join(names)}"
        raise PickError(f"there is no column '{name}'; {hint}")
    try:
        limit = float(number)
    except ValueError as error:
        raise PickError(f"expected a number, got '{number}' in '{whole}'") from error
    column, factor = names[name]
    return column, factor, _COMPARE[sign], limit


def _names(objectives: Sequence[ObjectiveSummary]) -> dict[str, tuple[str, float]]:
    names: dict[str, tuple[str, float]] = {}
    for objective in objectives:
        names[objective.column] = (objective.column, 1.0)
        for suffix, factor in _UNITS.get(objective.unit, {}).items():
            names[f"{objective.name}_{suffix}"] = (objective.column, factor)
    return names


def _spans(front: pd.DataFrame, objectives: Sequence[ObjectiveSummary]) -> str:
    parts = []
    for objective in objectives:
        values = front[objective.column].astype(float)
        parts.append(f"{objective.column} {values.min():.4g} to {values.max():.4g}")
    return ", ".join(parts)
