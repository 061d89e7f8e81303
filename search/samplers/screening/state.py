"""What a sampler keeps of one study; everything in it follows from the trials and the seed."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import optuna
from optuna.distributions import BaseDistribution
from optuna.trial import FrozenTrial

from parefront.search.samplers.screening.candidates import Candidate
from parefront.search.samplers.screening.cheap import Cost, Look, Looks, Screen
from parefront.search.samplers.screening.drawn_space import DrawnSpace
from parefront.search.samplers.screening.history import History
from parefront.search.samplers.screening.learned_space import LearnedSpace
from parefront.search.samplers.screening.observations import Losses, Told
from parefront.search.samplers.screening.proposing import Proposing

Space = Callable[[optuna.trial.BaseTrial], object]
"""Suggests the parameters of a candidate."""


@dataclass(frozen=True)
class Knowledge:
    """What a sampler was given; see there.

    Attributes:
        cheap: Computes what is cheap to know.
        look: Looks at what is less cheap to know.
        space: Suggests the parameters of a candidate.
        cost: Seconds a trial takes.
        log: Objectives in which equal ratios weigh the same.
        best: The best values there can be, by objective.
        earlier: What was seen elsewhere.
        ideas: Parameters that are always compared.
        held: Values that the first candidates have in common.
        resolution: The least differences that mean something, by objective.
        shortlist: How many candidates are looked at.
        batched: Whether `cheap` takes and returns lists.
    """

    cheap: Callable[..., Any] | None
    look: Look | None
    space: Space | None
    cost: Cost | None
    log: Collection[int]
    best: Mapping[int, float]
    earlier: Sequence[Told]
    ideas: Sequence[Mapping[str, Any]]
    held: Mapping[str, Any]
    resolution: Mapping[int, float]
    shortlist: int
    batched: bool


class State:
    """One study as a sampler sees it.

    Args:
        study: The study.
        knowledge: What the sampler was given.
        seed: Seed of all draws.

    Attributes:
        history: Its trials.
        proposing: Chooses candidates; `None` while nothing is known of the space.
        pending: Candidates by trial number that were proposed and may run.
    """

    def __init__(self, study: optuna.Study, knowledge: Knowledge, seed: int) -> None:
        losses = Losses(study.directions, knowledge.log, knowledge.best, knowledge.resolution)
        self.history = History(losses, knowledge.earlier)
        self.proposing: Proposing | None = None
        self.pending: dict[int, Candidate] = {}
        self._knowledge, self._seed = knowledge, seed
        strict = knowledge.space is not None
        self._screen = Screen(
            knowledge.cheap, knowledge.cost, losses, batched=knowledge.batched, strict=strict
        )
        self._looks = Looks(knowledge.look, losses, strict=strict) if knowledge.look else None
        self._learned = LearnedSpace()
        self._version = -1
        self._absorbed = 0
        self._last: FrozenTrial | None = None

    def continues(self, trials: Sequence[FrozenTrial]) -> bool:
        """Whether trials are those that were seen and more, and not of another study."""
        last = self._last
        if last is None:
            return True
        return len(trials) > last.number and (
            trials[last.number].datetime_start == last.datetime_start
            and trials[last.number].params == last.params
        )

    def update(self, trials: Sequence[FrozenTrial], asking: int | None) -> None:
        """Takes in what has changed.

        Args:
            trials: All trials of the study in the order of their numbers.
            asking: Number of the trial that is to get parameters, if one is.
        """
        if asking is not None:
            self.pending.pop(asking, None)
        self.history.update(trials, self.pending)
        self.pending = {
            number: candidate
            for number, candidate in self.pending.items()
            if number < len(trials) and not trials[number].state.is_finished()
        }
        self._last = next((each for each in trials if each.state.is_finished()), None)
        self._learn()

    def distributions(self) -> dict[str, BaseDistribution]:
        """All parameters that are known, active or not."""
        if self._knowledge.space is None:
            return self._learned.distributions
        known: dict[str, BaseDistribution] = {}
        if self.proposing is not None:
            known.update(self.proposing.features.distributions)
        return known

    def _learn(self) -> None:
        if self._knowledge.space is not None:
            if self.proposing is None:
                self.proposing = self._made(DrawnSpace(self._knowledge.space))
            return
        for each in self.history.whole[self._absorbed :]:
            self._learned.absorb(each)
        self._absorbed = len(self.history.whole)
        if self._learned.distributions and self._version != self._learned.version:
            self._version = self._learned.version
            self.proposing = self._made(self._learned)

    def _made(self, space: DrawnSpace | LearnedSpace) -> Proposing:
        return Proposing(
            space,
            self._screen,
            self._looks,
            self._knowledge.shortlist,
            self.history.sources,
            self._knowledge.ideas,
            self._knowledge.held,
            self._seed,
        )
