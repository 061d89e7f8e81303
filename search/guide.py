"""The contract of a guide: proposes candidates of a space from the trials it is told of."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from random import Random
from typing import Any, Protocol

import optuna
from optuna.study import StudyDirection

from parefront.objectives.measurement import Direction
from parefront.search.entry import Entry
from parefront.search.samplers.screening.drawn_space import DrawnSpace
from parefront.spaces.space import Candidate, Space


@dataclass(frozen=True)
class Drawn:
    """A candidate, with what Optuna needs to know of it.

    Attributes:
        candidate: The candidate.
        parameters: Parameters by name, active ones only.
        distributions: Their distributions.
        system_attrs: Attributes the sampler wants on the trial.
    """

    candidate: Candidate
    parameters: Mapping[str, Any]
    distributions: Mapping[str, optuna.distributions.BaseDistribution]
    system_attrs: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def of(cls, candidate: Candidate, space: Space) -> Drawn:
        """A candidate that is given, as if the space had drawn it."""
        same = DrawnSpace(space.suggest).draw(Random(0), space.parameters(candidate))
        return cls(candidate, same.params, same.distributions)


class Guide(Protocol):
    """Proposes candidates from what it was told.

    What is drawn depends on the study's seed, on what was told and on the arguments of `draw`, and
    on nothing that happened before, so that a study that was interrupted goes on as if it had not
    been.
    """

    def tell(self, entry: Entry) -> None:
        """Takes in a trial that is over and counts; each is told once, whatever became of it."""
        ...

    def draw(self, index: int, attempt: int, running: Sequence[Drawn]) -> Drawn:
        """Draws a candidate, which may be known already.

        Args:
            index: How many trials are over.
            attempt: How many draws of this index were known already.
            running: Candidates of the trials under way.
        """
        ...


def optuna_directions(directions: Sequence[Direction]) -> list[StudyDirection]:
    """Directions as Optuna has them."""
    return [StudyDirection[direction.name] for direction in directions]
