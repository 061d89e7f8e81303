"""What the sections of a study file have in common: how they are made, durations, and hints."""

from __future__ import annotations

import math
import re
from difflib import get_close_matches
from types import UnionType
from typing import Annotated, Any, Union, get_args, get_origin

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationInfo,
    field_validator,
)

HIDDEN = "hidden"
"""Type of an error whose input is not shown; its context may name the `key` it is about."""
_UNITS = {"s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_PART = r"([0-9]+(?:\.[0-9]+)?)([smhd])"
_DURATION = re.compile(f"(?:{_PART})+")
_LONGEST_DAYS = 36_500
"""A hundred years: what waits cannot be told to wait for any number of seconds."""


def duration(text: str) -> float:
    """Seconds of a duration such as `"90s"`, `"3m"` or `"1h30m"`.

    Raises:
        ValueError: If it cannot be read, is zero, or longer than a hundred years.

    Example:
        >>> duration("1h30m")
        5400.0
    """
    if not _DURATION.fullmatch(text):
        raise ValueError(f"expected a duration such as 90s, 3m or 1h30m, got '{text}'")
    total = sum(float(number) * _UNITS[unit] for number, unit in re.findall(_PART, text))
    if total <= 0:
        raise ValueError(f"expected a duration above 0, got '{text}'")
    return _bounded(total, text)


def _bounded(seconds: float, given: object) -> float:
    if seconds > _LONGEST_DAYS * _UNITS["d"]:
        raise ValueError(f"expected a duration of at most {_LONGEST_DAYS}d, got {given!r}")
    return seconds


def as_seconds(value: object) -> object:
    """Seconds, if a value is a duration; any other value as it is, but for those too large."""
    if isinstance(value, str):
        return duration(value)
    return _bounded(value, value) if isinstance(value, float | int) else value


def number(value: object) -> object:
    """A value that is to be a number, as it is.

    Raises:
        ValueError: If it is true or false, which Python takes for 1 and 0, or not a number.
    """
    if isinstance(value, bool) or (isinstance(value, float) and math.isnan(value)):
        raise ValueError("expected a number")
    return value


Seconds = Annotated[float, BeforeValidator(as_seconds), Field(gt=0, allow_inf_nan=False)]


class Section(BaseModel):
    """A section: frozen, and without keys that nobody knows."""

    # Messages are made of `error.errors()`; what pydantic says itself could show a secret.
    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)

    @field_validator("*", mode="before")
    @classmethod
    def _numbers(cls, value: Any, info: ValidationInfo) -> Any:  # noqa: ANN401 - anything given
        kind = cls.model_fields[str(info.field_name)].annotation
        kinds = get_args(kind) if get_origin(kind) in (Union, UnionType) else (kind,)
        plain = {get_args(each)[0] if get_args(each) else each for each in kinds}
        return number(value) if plain & {int, float} else value


def hint(name: str, known: list[str]) -> str:
    """What may have been meant, or what there is, as the end of a message."""
    near = get_close_matches(name, known, 1)
    return f"; did you mean '{near[0]}'?" if near else f"; known are {', '.join(known)}"
