"""How many candidates and parameters a space has, and all of them one by one."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from random import Random
from typing import Any

from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)

from parefront.search.samplers.screening.drawn_space import DrawnSpace
from parefront.search.samplers.screening.values import at_position
from parefront.spaces.space import Candidate, Space

_TRIED = 17
"""Values of a number that are tried one by one; of more, so many even ones stand for all."""

_Follows = tuple[tuple[tuple[str, BaseDistribution], ...], ...]


def count_candidates(space: Space) -> float:
    """How many different candidates a space has; infinite with a continuous parameter.

    Parameters are counted in the order in which they are suggested. Values of a parameter after
    which the same parameters follow, at the first as well as at the last values of those, count
    alike. So independent parameters cost as many draws as they have values, and no candidate needs
    to be drawn twice. It is an estimate where two parameters only together decide what follows, or
    a number of many values does.
    """
    return _Tree(space).count({})


def all_parameters(space: Space) -> dict[str, BaseDistribution]:
    """The distributions of all parameters of a space by name, whatever they depend on."""
    tree = _Tree(space)
    tree.count({})
    return tree.distributions


def count_parameters(space: Space) -> int:
    """How many parameters of a space have more than one value."""
    return sum(not each.single() for each in all_parameters(space).values())


def every_candidate(space: Space) -> Iterator[Candidate]:
    """All candidates of a finite space, each once, the first values of all parameters first.

    Raises:
        ValueError: If a parameter is continuous.
    """
    found: list[Candidate] = []
    drawn = DrawnSpace(lambda trial: found.append(space.suggest(trial)))

    def behind(before: Mapping[str, Any]) -> Iterator[Candidate]:
        parameters = list(drawn.draw(_First(), before).distributions.items())
        candidate = found.pop()
        if len(parameters) == len(before):
            yield candidate
            return
        name, distribution = parameters[len(before)]
        values, size = _values(distribution, None)
        if math.isinf(size):
            raise ValueError(
                f"expected a space of which all candidates can be listed, got a continuous "
                f"parameter '{name}'"
            )
        for value in values:
            yield from behind({**before, name: value})

    yield from behind({})


class _First(Random):
    """Always draws the first value."""

    def random(self) -> float:
        return 0.0

    def randrange(self, start: int, stop: int | None = None, step: int = 1) -> int:  # noqa: ARG002
        return 0 if stop is None else start


class _Last(Random):
    """Always draws the last value."""

    def random(self) -> float:
        return 1.0

    def randrange(self, start: int, stop: int | None = None, step: int = 1) -> int:
        return range(start)[-1] if stop is None else range(start, stop, step)[-1]


class _Tree:
    """Follows a space from parameter to parameter.

    Attributes:
        distributions: Those of all parameters met so far.
    """

    def __init__(self, space: Space) -> None:
        self.distributions: dict[str, BaseDistribution] = {}
        self._space = DrawnSpace(space.suggest)
        self._counted: dict[_Follows, float] = {}

    def count(self, before: Mapping[str, Any]) -> float:
        """How many candidates begin with these values of the first parameters."""
        follows = tuple(self._after(before, random) for random in (_First(), _Last()))
        if not follows[0]:
            return 1.0
        if follows not in self._counted:
            name, distribution = follows[0][0]
            values, size = _values(distribution, _TRIED)
            counts = [self.count({**before, name: value}) for value in values]
            self._counted[follows] = size * math.fsum(counts) / len(counts)
        return self._counted[follows]

    def _after(
        self, before: Mapping[str, Any], random: Random
    ) -> tuple[tuple[str, BaseDistribution], ...]:
        drawn = self._space.draw(random, before)
        self.distributions.update(drawn.distributions)
        return tuple(drawn.distributions.items())[len(before) :]


def _values(distribution: BaseDistribution, most: int | None) -> tuple[list[Any], float]:
    """Values that stand for all of a parameter, or all, and how many it has.

    Args:
        distribution: Its distribution.
        most: How many values of a number there may be, none for all.
    """
    if isinstance(distribution, CategoricalDistribution):
        return list(distribution.choices), len(distribution.choices)
    if not isinstance(distribution, FloatDistribution | IntDistribution):
        raise TypeError(f"expected a distribution that Optuna has, got {distribution}")
    low, high, step = distribution.low, distribution.high, distribution.step
    if step is None and low < high:
        return [at_position(distribution, i / (_TRIED - 1)) for i in range(_TRIED)], math.inf
    last = round((high - low) / step) if step else 0
    tried = last if most is None else min(last, most - 1)
    indices = [round(last * index / max(tried, 1)) for index in range(tried + 1)]
    return [low + index * (step or 0) for index in indices], last + 1
