"""What to try next: interrupted candidates, anchors, siblings, then what the sampler draws."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence, Set
from copy import copy
from dataclasses import dataclass
from typing import Any

import numpy as np
import optuna
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState

from parefront.objectives.measurement import Direction
from parefront.search.ledger import Entry, unfinished
from parefront.search.records import Origin, Status
from parefront.search.samplers.catalog import SAMPLERS
from parefront.spaces.space import Candidate, Space

_SAME_BEFORE_RANDOM = 5
"""Draws in a row that are known already before the sampler gives way to random ones."""
_SAME_BEFORE_END = 200
"""Random draws in a row that are known already before a space counts as searched through."""


@dataclass(frozen=True)
class Proposal:
    """A candidate to try, with what Optuna needs to know of it.

    Attributes:
        candidate: The candidate.
        origin: Where it came from.
        deaths: How many processes have died while they tried this candidate before.
        parameters: Parameters by name.
        distributions: Their distributions.
        system_attrs: Attributes the sampler wants on the trial.
    """

    candidate: Candidate
    origin: Origin
    deaths: int
    parameters: Mapping[str, Any]
    distributions: Mapping[str, optuna.distributions.BaseDistribution]
    system_attrs: Mapping[str, Any]


def derive_seed(seed: int, *parts: object) -> int:
    """A 32-bit seed that depends on the study's seed and on `parts` alone."""
    text = "/".join(str(part) for part in (seed, *parts))
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:4], "big")


def optuna_directions(directions: Sequence[Direction]) -> list[StudyDirection]:
    """Directions as Optuna has them."""
    return [StudyDirection[direction.name] for direction in directions]


class Archive:
    """The candidates that no other beats, by the estimates; grown one by one.

    Args:
        maximize: One flag an objective, true where larger is better.
    """

    def __init__(self, maximize: Sequence[bool]) -> None:
        self._sign = np.where(np.asarray(maximize, dtype=bool), -1.0, 1.0)
        self._costs = np.empty((0, len(self._sign)))
        self._candidates: list[Candidate] = []

    def __iter__(self) -> Iterator[Candidate]:
        return iter(self._candidates)

    def add(self, values: Sequence[float], candidate: Candidate) -> None:
        """Takes a candidate, unless one that is there is at least as good in everything."""
        costs = np.asarray(values) * self._sign
        if (self._costs <= costs).all(axis=1).any():
            return
        stays = np.flatnonzero(~(costs <= self._costs).all(axis=1))
        self._costs = np.vstack([self._costs[stays], costs])
        self._candidates = [*(self._candidates[index] for index in stays), candidate]


class Proposer:
    """Proposes candidates from the trials so far.

    The sampler works on a copy of the finished trials in memory. There a stage that is off has the
    parameters of its first anchor, so that all trials share one set of parameters, which a sampler
    can model jointly and at once. Its random numbers depend on the study's seed and on how many
    trials are over, so that a study that was interrupted goes on as if it had not been.

    Args:
        space: The space.
        sampler: Name of the sampler.
        directions: Directions of the objectives, in the order of the study's values.
        seed: The study's seed.
    """

    def __init__(
        self, space: Space, sampler: str, directions: Sequence[Direction], seed: int
    ) -> None:
        self._space = space
        self._sampler = SAMPLERS[sampler]
        self._seed = seed
        self._anchors = space.anchors()
        self._mirror = optuna.create_study(directions=optuna_directions(directions))
        self._mirrored: set[int] = set()
        self._front = Archive([direction == Direction.MAXIMIZE for direction in directions])
        self._expanded: set[str] = set()
        everything = self._fixed(self._anchors[-1], Origin.ANCHOR, 0)
        self._filling = (dict(everything.parameters), dict(everything.distributions))

    def propose(self, entries: Sequence[Entry]) -> Proposal | None:
        """The next candidate, one that no other trial holds.

        Args:
            entries: All trials of the study.

        Returns:
            The proposal, or `None` when the space is searched through.
        """
        self._sync(entries)
        for record in unfinished(entries):
            candidate = self._space.candidate(record.candidate)
            return self._fixed(candidate, record.origin, record.deaths)
        known = {entry.record.candidate_id for entry in entries}
        for position, candidate in enumerate(self._anchors):
            if candidate.id not in known:
                origin = Origin.ANCHOR if position else Origin.BASELINE
                return self._fixed(candidate, origin, 0)
        sibling = self._sibling(known)
        if sibling is not None:
            return self._fixed(sibling, Origin.SIBLING, 0)
        index = sum(entry.counts for entry in entries)
        for attempt in range(_SAME_BEFORE_RANDOM + _SAME_BEFORE_END):
            make = self._sampler if attempt < _SAME_BEFORE_RANDOM else SAMPLERS["random"]
            self._mirror.sampler = make(derive_seed(self._seed, "ask", index, attempt))
            proposal = self._draw(Origin.SAMPLED, 0)
            if proposal.candidate.id not in known:
                return proposal
        return None

    def _sibling(self, known: Set[str]) -> Candidate | None:
        """What is nearly free beside a candidate on the front, the oldest first."""
        for candidate in self._front:
            if candidate.id not in self._expanded:
                for sibling in self._space.siblings(candidate):
                    if sibling.id not in known:
                        return sibling
                self._expanded.add(candidate.id)
        return None

    def _sync(self, entries: Sequence[Entry]) -> None:
        for entry in entries:
            number = entry.trial.number
            if number not in self._mirrored and entry.counts:
                self._mirrored.add(number)
                if entry.status == Status.COMPLETE and entry.feasible:
                    candidate = self._space.candidate(entry.record.candidate)
                    self._front.add(entry.trial.values, candidate)
                if entry.trial.state != TrialState.FAIL:
                    self._mirror.add_trial(self._filled(entry.trial))

    def _filled(self, trial: FrozenTrial) -> FrozenTrial:
        parameters, distributions = self._filling
        filled = copy(trial)
        filled.params = parameters | trial.params
        filled.distributions = distributions | trial.distributions
        return filled

    def _fixed(self, candidate: Candidate, origin: Origin, deaths: int) -> Proposal:
        self._mirror.sampler = SAMPLERS["random"](self._seed)
        self._mirror.enqueue_trial(self._space.parameters(candidate))
        return self._draw(origin, deaths, candidate)

    def _draw(self, origin: Origin, deaths: int, candidate: Candidate | None = None) -> Proposal:
        trial = self._mirror.ask()
        drawn = self._space.suggest(trial)
        frozen = self._mirror.get_trials(deepcopy=False)[trial.number]
        self._mirror.tell(trial, state=TrialState.FAIL)
        return Proposal(
            candidate=candidate or drawn,
            origin=origin,
            deaths=deaths,
            parameters=frozen.params,
            distributions=frozen.distributions,
            system_attrs={
                key: value for key, value in frozen.system_attrs.items() if key != "fixed_params"
            },
        )
