"""Picking one candidate from a front."""

from __future__ import annotations

import operator
import re
from collections.abc import Callable, Mapping
from difflib import get_close_matches
from typing import Any

import pandas as pd

from parefront.errors import PickError
from parefront.objectives.catalog import OBJECTIVES
from parefront.objectives.front import knee
from parefront.objectives.measurement import Direction

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


def pick(front: pd.DataFrame, wanted: str, directions: Mapping[str, Direction]) -> pd.Series[Any]:
    """One row of a front.

    Args:
        front: Rows of the front.
        wanted: `"knee"`, or bounds such as `"latency_ms<=0.5 and size_kb<=200"`. Of the candidates
            within bounds the most accurate is picked, of equally accurate ones the fastest.
        directions: Directions of the objectives that are optimised, by name.

    Raises:
        PickError: If the front is empty, the expression cannot be read, or nothing matches.
    """
    if front.empty:
        raise PickError("the study has no front to pick from; see 'parefront front' for why")
    if wanted.strip() == "knee":
        front = front.sort_values("trial")  # of equally good ones, the first
        used = [o for o in OBJECTIVES if o.name in directions]
        index = knee(
            front[[o.column for o in used]].to_numpy(dtype=float),
            [directions[o.name] == Direction.MAXIMIZE for o in used],
            log=[o.unit != "" for o in used],
        )
        return front.iloc[index]
    within = front
    for term in re.split(r"\band\b", wanted):
        column, factor, compare, limit = _read(term, wanted)
        within = within[compare(within[column].astype(float), limit * factor)]
    if within.empty:
        raise PickError(
            f"no candidate on the front meets '{wanted}'; the front spans " + _spans(front)
        )
    ascending = directions.get("accuracy", Direction.MAXIMIZE) == Direction.MINIMIZE
    ordered = within.sort_values(
        ["accuracy", "latency_ms", "size_bytes"], ascending=[ascending, True, True]
    )
    return ordered.iloc[0]


def _read(term: str, whole: str) -> tuple[str, float, Compare, float]:
    match = _TERM.fullmatch(term)
    if match is None:
        raise PickError(
            "a pick is 'knee' or bounds such as \"latency_ms<=0.5 and size_kb<=200\", "
            f"got '{whole}'"
        )
    name, sign, number = match.groups()
    names = _names()
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


def _names() -> dict[str, tuple[str, float]]:
    names: dict[str, tuple[str, float]] = {}
    for objective in OBJECTIVES:
        names[objective.column] = (objective.column, 1.0)
        for suffix, factor in _UNITS.get(objective.unit, {}).items():
            names[f"{objective.name}_{suffix}"] = (objective.column, factor)
    return names


def _spans(front: pd.DataFrame) -> str:
    parts = []
    for objective in OBJECTIVES:
        values = front[objective.column].astype(float)
        parts.append(f"{objective.column} {values.min():.4g} to {values.max():.4g}")
    return ", ".join(parts)
