"""Candidates: drawn at random, or as children of others, always such that the space allows them."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from random import Random
from typing import Any, Protocol

from optuna.distributions import BaseDistribution

from parefront.search.samplers.screening.values import neighbour

Key = tuple[tuple[str, Any], ...]

_PLAIN = (str, int, float)


@dataclass(frozen=True)
class Candidate:
    """One point of a space: the parameters that are active, and their distributions.

    Attributes:
        params: Values by name, active parameters only.
        distributions: Their distributions.
        key: What makes two candidates the same.
    """

    params: Mapping[str, Any]
    distributions: Mapping[str, BaseDistribution]
    key: Key = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "key", key_of(self.params))

    @property
    def choices(self) -> set[tuple[str, Any]]:
        """Names and values, but for floating-point numbers."""
        return {pair for pair in self.key if not isinstance(pair[1], float)}


def key_of(params: Mapping[str, Any]) -> Key:
    """What makes two sets of parameters the same candidate."""
    return tuple(sorted((name, plain(value)) for name, value in params.items()))


def plain(value: Any) -> Any:  # noqa: ANN401
    """What stands for a value where it is looked up; choices may be of any type."""
    return value if isinstance(value, _PLAIN) else (repr(value),)


def generator(*parts: object) -> Random:
    """Random numbers that depend on `parts` alone, in every process."""
    return Random(hash_of(*parts))


def hash_of(*parts: object) -> int:
    """A number that depends on `parts` alone, in every process."""
    return int.from_bytes(hashlib.blake2b(repr(parts).encode(), digest_size=8).digest(), "big")


class CandidateSpace(Protocol):
    """Where candidates come from."""

    def draw(self, random: Random, wanted: Mapping[str, Any]) -> Candidate:
        """Draws a candidate.

        Args:
            random: Where random values come from.
            wanted: Values to take where the parameter is active and allows them.
        """
        ...


class Held:
    """A space of which some parameters have one value, where they are active.

    Args:
        space: The space.
        values: The values by name.
    """

    def __init__(self, space: CandidateSpace, values: Mapping[str, Any]) -> None:
        self._space, self._values = space, values

    def draw(self, random: Random, wanted: Mapping[str, Any]) -> Candidate:
        """Draws a candidate that has the values."""
        return self._space.draw(random, {**wanted, **self._values})


def child(
    space: CandidateSpace, parent: Candidate, partner: Candidate | None, random: Random
) -> Candidate:
    """A candidate near its parent, with some values of a partner if there is one."""
    wanted = dict(parent.params)
    names = [name for name, each in parent.distributions.items() if not each.single()]
    if partner is not None:
        wanted |= {name: v for name, v in partner.params.items() if random.random() < 0.5}
    if names and (partner is None or random.random() < 0.5):
        rate = 1.0 / len(names)
        changed = [name for name in names if random.random() < rate]
        for name in changed or [names[random.randrange(len(names))]]:
            distribution = parent.distributions[name]
            wanted[name] = neighbour(distribution, parent.params[name], random)
    return space.draw(random, wanted)
