"""What a stage may choose from: ranges and choices, as a study file writes them.

A number range is a pair `[low, high]` or one fixed number; a choice is a list of names or one
name. A fixed value is no parameter of the search.

Example:
    >>> FloatRange.model_validate([0.0, 0.8])
    FloatRange(low=0.0, high=0.8, log=False)
    >>> Choice[str].model_validate("l1").options
    ('l1',)
"""

from __future__ import annotations

from typing import Annotated, Generic, TypeVar, cast

import optuna
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator

T = TypeVar("T", bound=str | int | bool)


def _pair(value: object) -> object:
    """Reads `[low, high]` or one number into the fields of a range."""
    if isinstance(value, bool):
        raise ValueError("expected a number or a pair [low, high]")
    if isinstance(value, int | float):
        return {"low": value, "high": value}
    if isinstance(value, list | tuple):
        if len(value) != 2:
            raise ValueError(f"expected a pair [low, high], got {len(value)} values")
        return {"low": value[0], "high": value[1]}
    return value


class _Range(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    @model_validator(mode="before")
    @classmethod
    def _read(cls, value: object) -> object:
        return _pair(value)


class FloatRange(_Range):
    """A closed range of real numbers.

    Attributes:
        low: Smallest value.
        high: Largest value; equal to `low` for a fixed value.
        log: Whether the search draws on a logarithmic scale.
    """

    low: Annotated[float, Field(allow_inf_nan=False)]
    high: Annotated[float, Field(allow_inf_nan=False)]
    log: bool = False

    @model_validator(mode="after")
    def _ordered(self) -> FloatRange:
        if self.low > self.high:
            raise ValueError(f"expected low <= high, got [{self.low}, {self.high}]")
        if self.log and self.low <= 0:
            raise ValueError(f"a logarithmic range starts above 0, got {self.low}")
        return self

    def suggest(self, trial: optuna.trial.BaseTrial, name: str) -> float:
        """Draws a value; a fixed one is returned without a parameter."""
        if self.low == self.high:
            return self.low
        return trial.suggest_float(name, self.low, self.high, log=self.log)

    def clip(self, value: float) -> float:
        """The value of the range nearest to `value`."""
        return min(max(value, self.low), self.high)


class IntRange(_Range):
    """A closed range of integers.

    Attributes:
        low: Smallest value.
        high: Largest value; equal to `low` for a fixed value.
        log: Whether the search draws on a logarithmic scale.
    """

    low: int
    high: int
    log: bool = False

    @model_validator(mode="after")
    def _ordered(self) -> IntRange:
        if self.low > self.high:
            raise ValueError(f"expected low <= high, got [{self.low}, {self.high}]")
        if self.log and self.low <= 0:
            raise ValueError(f"a logarithmic range starts above 0, got {self.low}")
        return self

    def suggest(self, trial: optuna.trial.BaseTrial, name: str) -> int:
        """Draws a value; a fixed one is returned without a parameter."""
        if self.low == self.high:
            return self.low
        return trial.suggest_int(name, self.low, self.high, log=self.log)

    def clip(self, value: int) -> int:
        """The value of the range nearest to `value`."""
        return min(max(value, self.low), self.high)


def _listed(value: object) -> object:
    return [value] if isinstance(value, str | int | bool) else value


class Choice(BaseModel, Generic[T]):
    """One of several options, in the order in which the study file lists them.

    Attributes:
        options: The options, at least one, all different.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    options: Annotated[tuple[T, ...], BeforeValidator(_listed), Field(min_length=1)]

    @model_validator(mode="before")
    @classmethod
    def _read(cls, value: object) -> object:
        if isinstance(value, dict | Choice):
            return value
        return {"options": value}

    @model_validator(mode="after")
    def _distinct(self) -> Choice[T]:
        if len(set(self.options)) != len(self.options):
            raise ValueError(f"expected different options, got {list(self.options)}")
        return self

    def suggest(self, trial: optuna.trial.BaseTrial, name: str) -> T:
        """Draws an option; a single one is returned without a parameter."""
        if len(self.options) == 1:
            return self.options[0]
        return cast(T, trial.suggest_categorical(name, self.options))

    def prefer(self, *wanted: T) -> T:
        """The first of `wanted` that is an option, else the first option."""
        return next((option for option in wanted if option in self.options), self.options[0])
