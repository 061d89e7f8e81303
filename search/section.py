"""What the sections of a study file have in common: how they are made, durations, and hints."""

from __future__ import annotations

import re
from difflib import get_close_matches
from typing import Annotated

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

HIDDEN = "hidden"
"""Type of an error whose input is not shown."""
_UNITS = {"s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_DURATION = re.compile(r"(?:\d+(?:\.\d+)?[smhd])+")


def duration(text: str) -> float:
    """Seconds of a duration such as `"90s"`, `"3m"` or `"1h30m"`.

    Raises:
        ValueError: If it cannot be read or is zero.

    Example:
        >>> duration("1h30m")
        5400.0
    """
    if not _DURATION.fullmatch(text):
        raise ValueError(f"expected a duration such as 90s, 3m or 1h30m, got '{text}'")
    parts = re.findall(r"(\d+(?:\.\d+)?)([smhd])", text)
    total = sum(float(number) * _UNITS[unit] for number, unit in parts)
    if total <= 0:
        raise ValueError(f"expected a duration above 0, got '{text}'")
    return total


def as_seconds(value: object) -> object:
    """Seconds, if a value is a duration; any other value as it is."""
    return duration(value) if isinstance(value, str) else value


Seconds = Annotated[float, BeforeValidator(as_seconds), Field(gt=0, allow_inf_nan=False)]


class Section(BaseModel):
    """A section: frozen, and without keys that nobody knows."""

    # Messages are made of `error.errors()`; what pydantic says itself could show a secret.
    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)


def hint(name: str, known: list[str]) -> str:
    """What may have been meant, or what there is, as the end of a message."""
    near = get_close_matches(name, known, 1)
    return f"; did you mean '{near[0]}'?" if near else f"; known are {', '.join(known)}"
