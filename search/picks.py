"""Picking one candidate from a front."""

from __future__ import annotations

import math
import operator
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any

import numpy as np
import pandas as pd

from parefront.errors import PickError
from parefront.objectives.knee import SAME_DISTANCE, distance_to_ideal
from parefront.search.summary import ObjectiveSummary, of_target

Compare = Callable[[Any, Any], Any]
_COMPARE: Mapping[str, Compare] = {
    "<=": operator.le,
    ">=": operator.ge,
    "<": operator.lt,
    ">": operator.gt,
}
_NUMBER = r"[-+]?[\d.]+(?:[eE][-+]?\d+)?"
_BOUND = re.compile(rf"\s*(\w+)\s*(<=|>=|<|>)\s*({_NUMBER})\s*")
_WEIGHT = re.compile(rf"(\w+)\s*=\s*({_NUMBER})")
_WEIGHTS = re.compile(rf"\s*{_WEIGHT.pattern}(?:(?:\s*,\s*|\s+){_WEIGHT.pattern})*\s*")
_UNITS = {
    "ms": {"us": 1e-3, "ms": 1.0, "s": 1e3},
    "B": {"bytes": 1.0, "kb": 1e3, "mb": 1e6},
}
"""Suffixes an expression may use for an objective of a unit, and what one of them is in it."""


@dataclass(frozen=True)
class _Bound:
    """A limit on a column of the front."""

    column: str
    compare: Compare
    limit: float


def pick(
    front: pd.DataFrame,
    wanted: str,
    objectives: Sequence[ObjectiveSummary],
    target: str | None = None,
) -> pd.Series[Any]:
    """One row of a front.

    `"knee"` is the candidate that is nearest to the best value of every objective of the front at
    once. Weights such as `"accuracy=3 latency=1"` are the same with each objective as important as
    its weight says, and what is not named not at all; any objective that was measured may have
    one. Bounds such as `"latency_ms<=0.5 and size_kb<=200"` leave the candidates within them, of
    which the most accurate is picked, of equally accurate ones the fastest, or the nearest if the
    knee or weights are asked for too: `"knee and size_kb<=500"`. Distances are scaled to the whole
    front, whatever the bounds. Names are those of the main target, or end in the name of another,
    as in `latency_us_pi<=800` and `latency_pi=2`.

    Args:
        front: Rows of the front.
        wanted: What to pick.
        objectives: All that was measured.
        target: Name of the further target whose front it is, `None` for the main one.

    Raises:
        PickError: If the front is empty, the expression cannot be read, or nothing matches.
    """
    if front.empty:
        raise PickError("the study has no front to pick from; see 'parefront front' for why")
    weights, bounds = _read(wanted, objectives, target)
    front = front.sort_values("trial", ignore_index=True)  # of equally good ones, the first
    within = front
    for bound in bounds:
        within = within[bound.compare(within[bound.column].astype(float), bound.limit)]
    if within.empty:
        raise PickError(
            f"no candidate on the front meets '{wanted}'; the front spans "
            + _spans(front, objectives)
        )
    if weights is not None:
        return _nearest(front, within.index, weights, of_target(objectives, target))
    metric = next(each for each in objectives if each.name == "accuracy")
    latency = f"latency_ms_{target}" if target else "latency_ms"
    ordered = within.sort_values(
        ["accuracy", latency, "size_bytes"], ascending=[not metric.maximize, True, True]
    )
    return _row(ordered, 0)


def _nearest(
    front: pd.DataFrame,
    within: pd.Index[int],
    weights: Mapping[ObjectiveSummary, float],
    objectives: Sequence[ObjectiveSummary],
) -> pd.Series[Any]:
    """The row nearest to the ideal; of equally near ones the one that is best in the rest too."""
    near = np.asarray(within)
    for chosen in (weights, dict.fromkeys(objectives, 1.0)):
        used = {each: weight for each, weight in chosen.items() if weight > 0}
        values = front[[each.column for each in used]].to_numpy(dtype=float)
        distance = distance_to_ideal(
            values,
            [each.maximize for each in used],
            log=[each.log and min(of) > 0 for each, of in zip(used, values.T, strict=True)],
            weights=list(used.values()),
        )[near]
        near = near[distance <= distance.min() + SAME_DISTANCE]
    return _row(front, int(near[0]))


def _row(rows: pd.DataFrame, position: int) -> pd.Series[Any]:
    found: pd.Series[Any] = rows.iloc[position]
    return found


def _read(
    wanted: str, objectives: Sequence[ObjectiveSummary], target: str | None
) -> tuple[Mapping[ObjectiveSummary, float] | None, list[_Bound]]:
    """What to come near to, `None` for the most accurate, and the bounds."""
    weights: Mapping[ObjectiveSummary, float] | None = None
    bounds = []
    for term in re.split(r"\band\b", wanted):
        if match := _BOUND.fullmatch(term):
            name, sign, number = match.groups()
            bounds.append(_bound(name, sign, number, wanted, objectives))
            continue
        knee = term.strip() == "knee"
        if not knee and not _WEIGHTS.fullmatch(term):
            raise PickError(
                "a pick is 'knee' or bounds such as \"latency_ms<=0.5 and size_kb<=200\" or "
                "weights such as \"accuracy=3 latency=1\", or the knee or weights 'and' bounds, "
                f"got '{wanted}'"
            )
        if weights is not None:
            raise PickError(
                "a pick has one 'knee' or one list of weights such as \"accuracy=3 latency=1\" "
                f"beside its bounds, got '{wanted}'"
            )
        weights = (
            dict.fromkeys(of_target(objectives, target), 1.0)
            if knee
            else _weights(term, wanted, objectives)
        )
    return weights, bounds


def _bound(
    name: str, sign: str, number: str, whole: str, objectives: Sequence[ObjectiveSummary]
) -> _Bound:
    names = _columns(objectives)
    if name not in names:
        raise PickError(f"there is no column '{name}'; {_hint(name, list(names))}")
    column, factor = names[name]
    return _Bound(column, _COMPARE[sign], _number(number, whole) * factor)


def _weights(
    term: str, whole: str, objectives: Sequence[ObjectiveSummary]
) -> Mapping[ObjectiveSummary, float]:
    named = {each.name: each for each in objectives}
    columns = _columns(objectives)
    weights: dict[ObjectiveSummary, float] = {}
    for name, number in _WEIGHT.findall(term):
        if name not in named and name in columns:
            column = columns[name][0]
            objective = next(each for each in objectives if each.column == column)
            raise PickError(
                f"a weight belongs to an objective, as in {objective.name}={number}, and a limit "
                f"is written {name}<={number} or {name}>={number}; got '{whole}'"
            )
        if name not in named:
            raise PickError(f"there is no objective '{name}'; {_hint(name, list(named))}")
        if named[name] in weights:
            raise PickError(f"'{name}' has two weights in '{whole}'")
        weight = _number(number, whole)
        if weight < 0:
            raise PickError(f"expected a weight of zero or more, got '{name}={number}'")
        weights[named[name]] = weight
    if not any(weights.values()):
        raise PickError(f"expected at least one weight above zero, got '{whole}'")
    return weights


def _number(text: str, whole: str) -> float:
    try:
        number = float(text)
    except ValueError as error:
        raise PickError(f"expected a number, got '{text}' in '{whole}'") from error
    if not math.isfinite(number):
        raise PickError(f"expected a finite number, got '{text}' in '{whole}'")
    return number


def _hint(name: str, names: Sequence[str]) -> str:
    near = get_close_matches(name, names, 1)
    return f"did you mean '{near[0]}'?" if near else f"known are {', '.join(names)}"


def _columns(objectives: Sequence[ObjectiveSummary]) -> dict[str, tuple[str, float]]:
    """By name that a bound may use, the column and what one of it is in the column's unit."""
    names: dict[str, tuple[str, float]] = {}
    for objective in objectives:
        end = f"_{objective.target}" if objective.target else ""
        name = objective.name.removesuffix(end)
        names[objective.column] = (objective.column, 1.0)
        for suffix, factor in _UNITS.get(objective.unit, {}).items():
            names[f"{name}_{suffix}{end}"] = (objective.column, factor)
    return names


def _spans(front: pd.DataFrame, objectives: Sequence[ObjectiveSummary]) -> str:
    parts = []
    for objective in objectives:
        values = front[objective.column].astype(float)
        parts.append(f"{objective.column} {values.min():.4g} to {values.max():.4g}")
    return ", ".join(parts)
