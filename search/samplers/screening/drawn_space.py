"""The space of a function that suggests the parameters of a candidate."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from functools import lru_cache
from random import Random
from typing import Any

import optuna
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)

from parefront.search.samplers.screening.candidates import Candidate
from parefront.search.samplers.screening.values import draw_value, fitting


class DrawnSpace:
    """The space of a function that draws a candidate from a trial.

    Args:
        function: Suggests the parameters of a candidate; called with a stand-in for a trial.
    """

    def __init__(self, function: Callable[[optuna.trial.BaseTrial], object]) -> None:
        self._function = function

    def draw(self, random: Random, wanted: Mapping[str, Any]) -> Candidate:
        """Draws a candidate by the function, which sees the wanted values where they fit."""
        trial = _GuidedTrial(random, wanted)
        self._function(trial)
        return Candidate(trial.params, trial.distributions)


_categories: dict[str, CategoricalDistribution] = {}
"""The last distribution by name: making one costs more than drawing from it."""


def _same(a: Sequence[Any], b: Sequence[Any]) -> bool:
    return len(a) == len(b) and all(
        x is y or (x == y and type(x) is type(y)) for x, y in zip(a, b, strict=True)
    )


@lru_cache(maxsize=1000)
def _float(low: float, high: float, step: float | None, log: bool) -> FloatDistribution:
    return FloatDistribution(low, high, log=log, step=step)


@lru_cache(maxsize=1000)
def _int(low: int, high: int, step: int, log: bool) -> IntDistribution:
    return IntDistribution(low, high, log=log, step=step)


class _GuidedTrial(optuna.trial.BaseTrial):
    """A trial of no study: suggests wanted values, and random ones where there are none."""

    def __init__(self, random: Random, wanted: Mapping[str, Any]) -> None:
        self._random = random
        self._wanted = wanted
        self._params: dict[str, Any] = {}
        self._distributions: dict[str, BaseDistribution] = {}

    def _suggest(self, name: str, distribution: BaseDistribution) -> Any:  # noqa: ANN401
        if name in self._params:
            return self._params[name]
        value = fitting(distribution, self._wanted[name]) if name in self._wanted else None
        if value is None:
            value = draw_value(distribution, self._random)
        self._params[name] = value
        self._distributions[name] = distribution
        return value

    def suggest_float(
        self, name: str, low: float, high: float, *, step: float | None = None, log: bool = False
    ) -> float:
        value: float = self._suggest(name, _float(float(low), float(high), step, log))
        return value

    def suggest_int(
        self, name: str, low: int, high: int, *, step: int = 1, log: bool = False
    ) -> int:
        value: int = self._suggest(name, _int(low, high, step, log))
        return value

    def suggest_categorical(self, name: str, choices: Sequence[Any]) -> Any:  # noqa: ANN401
        values = tuple(choices)
        # Equal choices may differ in type, as 1 and True do.
        distribution = _categories.get(name)
        if distribution is None or not _same(distribution.choices, values):
            distribution = _categories[name] = CategoricalDistribution(values)
        return self._suggest(name, distribution)

    def suggest_uniform(self, name: str, low: float, high: float) -> float:
        return self.suggest_float(name, low, high)

    def suggest_loguniform(self, name: str, low: float, high: float) -> float:
        return self.suggest_float(name, low, high, log=True)

    def suggest_discrete_uniform(self, name: str, low: float, high: float, q: float) -> float:
        return self.suggest_float(name, low, high, step=q)

    def report(self, value: float, step: int) -> None:
        """Does nothing."""

    def should_prune(self) -> bool:
        """Never."""
        return False

    def set_user_attr(self, key: str, value: Any) -> None:  # noqa: ANN401
        """Does nothing."""

    def set_constraint(self, key: str, value: float) -> None:
        """Does nothing."""

    @property
    def params(self) -> dict[str, Any]:
        return self._params

    @property
    def distributions(self) -> dict[str, BaseDistribution]:
        return self._distributions

    @property
    def user_attrs(self) -> dict[str, Any]:
        return {}

    @property
    def datetime_start(self) -> datetime | None:
        return None
