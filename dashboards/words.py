"""Values, intervals and candidates in words."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from decimal import Decimal
from typing import Any

from parefront.dashboards.frame import Floats, Row
from parefront.search.summary import ObjectiveSummary
from parefront.spaces.catalog import telling

NOT_MEASURED = "not measured"
TIMES = "\u00d7"

STATES = {
    "complete": "measured",
    "infeasible": "refused before training",
    "gated": "could not have reached the front",
    "early_stopped": "stopped in training",
    "failed": "failed",
    "interrupted": "interrupted",
    "running": "running",
}
"""States of trials in words, in the order of a trial's life."""

_BYTES = ((1e9, "GB"), (1e6, "MB"), (1e3, "kB"))


def number_text(value: float, digits: int = 4) -> str:
    """A number with some significant digits and no exponent where it can be helped."""
    if value == 0 or not math.isfinite(value):
        return f"{value:g}"
    places = digits - 1 - math.floor(math.log10(abs(value)))
    if places > 8:
        return f"{value:.{digits - 1}g}"
    return f"{value:.{max(0, places)}f}"


def value_text(value: float, unit: str) -> str:
    """A value with its unit; bytes in kB, MB or GB, powers of 1000."""
    if math.isnan(value):
        return NOT_MEASURED
    number, scaled_unit = _scaled(value, unit)
    return f"{number} {scaled_unit}".rstrip()


def _scaled(value: float, unit: str) -> tuple[str, str]:
    """The digits of a value, and the unit they are in."""
    if unit == "":
        return number_text(value), unit
    for factor, multiple in _BYTES if unit == "B" else ():
        if abs(value) >= factor:
            return number_text(value / factor, 3), multiple
    return f"{value:.0f}" if unit == "B" else number_text(value, 3), unit


def round_text(value: float, unit: str) -> str:
    """A round value, such as a bound or a tick, with its unit and no needless zeros."""
    for factor, multiple in _BYTES if unit == "B" else ():
        if abs(value) >= factor:
            return f"{_plain(value / factor)} {multiple}"
    return f"{_plain(value)} {unit}".rstrip()


def _plain(value: float, digits: int = 6) -> str:
    """A number with at most so many digits and, if it is not extreme, without an exponent."""
    text = f"{value:.{digits}g}"
    return format(Decimal(text), "f") if 1e-7 <= abs(value) < 1e9 else text


def interval_text(low: float, high: float, unit: str) -> str:
    """An interval with its unit, empty if it has no width or was not measured."""
    if not low < high:
        return ""
    (first, first_unit), (last, last_unit) = _scaled(low, unit), _scaled(high, unit)
    between = f" {first_unit}" if first_unit != last_unit else ""
    return f"{first}{between} to {last} {last_unit}".rstrip()


def ratio_text(ratio: float) -> str:
    """A ratio to the baseline, such as 2.4 times."""
    return NOT_MEASURED if math.isnan(ratio) else f"{number_text(ratio, 3)}{TIMES}"


def ratio_words(ratio: float, better: str, worse: str) -> tuple[str, str] | None:
    """A ratio of at least one and what it means, `None` if it was not measured.

    Example:
        >>> ratio_words(0.5, "faster", "slower")[1]
        'slower'
    """
    if math.isnan(ratio) or ratio <= 0:
        return None
    return (ratio_text(ratio), better) if ratio >= 1 else (ratio_text(1 / ratio), worse)


def measured_text(row: Row, objective: ObjectiveSummary) -> str:
    """An objective's value in a row, with its interval in brackets."""
    column, unit = objective.column, objective.unit
    interval = interval_text(row[f"{column}_low"], row[f"{column}_high"], unit)
    value = value_text(row[column], unit)
    return f"{value} ({interval})" if interval else value


def unit_scale(values: Floats, unit: str) -> tuple[float, str]:
    """What to divide values by for an axis, and the unit they are in then.

    Bytes become the largest of kB, MB and GB that the largest value reaches; everything else
    stays as it is.

    Args:
        values: `(n,)` values without NaN.
        unit: Their unit.
    """
    if unit == "B" and len(values):
        return next(((size, name) for size, name in _BYTES if values.max() >= size), (1.0, unit))
    return 1.0, unit


def axis_text(objective: ObjectiveSummary, unit: str, *, hint: bool = True) -> str:
    """Label of an objective, the unit on the axis and, with a hint, which way is better."""
    label = f"{objective.label} ({unit})" if unit else objective.label
    if not hint:
        return label
    return f"{label}, {'higher' if objective.maximize else 'lower'} is better"


def bound_text(objective: ObjectiveSummary) -> str:
    """The bound of an objective, empty if it has none."""
    low, high = objective.bound.at_least, objective.bound.at_most
    parts = [
        f"at least {round_text(low, objective.unit)}" if low is not None else "",
        f"at most {round_text(high, objective.unit)}" if high is not None else "",
    ]
    limits = " and ".join(part for part in parts if part)
    return f"{objective.label} {limits}" if limits else ""


def stage_texts(candidate: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """The stages of a candidate in order, each with its config in words.

    Example:
        >>> stage_texts({"pruning": {"ratio": 0.5, "iterative": True, "schedule": None}})
        ['pruning (ratio 0.5, iterative)']
    """
    return [_stage_text(stage, config) for stage, config in candidate.items()]


def _stage_text(stage: str, config: Mapping[str, Any]) -> str:
    fields = [
        _field_text(name.replace("_", " "), value) for name, value in telling(stage, config).items()
    ]
    return f"{stage} ({', '.join(fields)})" if fields else stage


def _field_text(name: str, value: object) -> str:
    match value:
        case bool():
            return name if value else f"not {name}"
        case float():
            return f"{name} {_plain(value, 3)}"
        case str() | int():
            return f"{name} {value}"
        case _:
            return f"{name} {json.dumps(value, default=str)}"


def candidate_text(candidate: Mapping[str, Mapping[str, Any]]) -> str:
    """A candidate in words: its stages in order."""
    return " → ".join(stage_texts(candidate)) or "unchanged model"
