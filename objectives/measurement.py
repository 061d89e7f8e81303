"""A measured value, and how sure one may be of it."""

from __future__ import annotations

import enum
from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, model_validator

Finite = Annotated[float, Field(allow_inf_nan=False)]


class Direction(enum.StrEnum):
    """Which values are better."""

    MINIMIZE = "minimize"
    MAXIMIZE = "maximize"


class Measurement(BaseModel):
    """A value with its interval and origin.

    Attributes:
        value: The value, in `unit`.
        low: Lower end of the 95 % confidence interval.
        high: Upper end of the 95 % confidence interval; equal to `low` for an exact value.
        unit: Unit of the three, empty for a plain number.
        samples: How many observations the value rests on.
        protocol: How it was measured, in a word or two.
        details: JSON-able facts beside the value, such as wall-clock percentiles.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    value: Finite
    low: Finite
    high: Finite
    unit: str = ""
    samples: int = 1
    protocol: str
    details: Mapping[str, Any] = {}

    @model_validator(mode="after")
    def _ordered(self) -> Measurement:
        if not self.low <= self.value <= self.high:
            raise ValueError(
                f"expected low <= value <= high, got {self.low}, {self.value}, {self.high}"
            )
        return self

    @classmethod
    def exact(cls, value: float, unit: str, protocol: str) -> Measurement:
        """A value without noise, such as the length of a file."""
        return cls(value=value, low=value, high=value, unit=unit, protocol=protocol)
