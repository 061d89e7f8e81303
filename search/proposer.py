"""What to try next: interrupted candidates, what is known, siblings, anchors, then draws."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from parefront.objectives.measurement import Direction
from parefront.search.entry import Entry, unfinished
from parefront.search.guide import Drawn, Guide
from parefront.search.records import Origin, Status
from parefront.search.samplers.space_size import count_candidates, every_candidate
from parefront.spaces.space import Candidate, Space

_SAME_BEFORE_RANDOM = 5
"""Draws in a row that are known already before the guide gives way to random ones."""
_SAME_BEFORE_END = 200
"""Random draws in a row that are known already before a space counts as searched through, unless
it is small enough to be listed."""
_NEWEST = 4
"""Candidates of the front whose siblings are asked about: those of older ones were, each time."""
_MOST_LISTED = 10_000
"""Candidates of a space up to which it is listed when draws find no new ones."""


@dataclass(frozen=True)
class Proposal:
    """A candidate to try.

    Attributes:
        drawn: The candidate, with what Optuna needs to know of it.
        origin: Where it came from.
        deaths: How many processes have died while they tried this candidate before.
        crashes: Of how many of them somebody saw how they died.
    """

    drawn: Drawn
    origin: Origin
    deaths: int = 0
    crashes: int = 0

    @property
    def candidate(self) -> Candidate:
        """The candidate."""
        return self.drawn.candidate


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

    Args:
        space: The space.
        guide: Draws candidates.
        fallback: Draws candidates where the guide knows no new ones, at random.
        directions: Directions of the objectives, in the order of the study's values.
        warm: Candidates to try first.
        anchors: Candidates to try after them.
        siblings: Whether what was trained for a candidate on the front is tried with every other
            way to go on.
        worth: Whether a sibling is worth trying.
        listeners: Further guides that are told what happens.
    """

    def __init__(
        self,
        space: Space,
        guide: Guide,
        fallback: Guide,
        directions: Sequence[Direction],
        *,
        warm: Sequence[Candidate] = (),
        anchors: Sequence[Candidate] = (),
        siblings: bool = True,
        worth: Callable[[Candidate], bool] = lambda candidate: True,  # noqa: ARG005
        listeners: Sequence[Guide] = (),
    ) -> None:
        self._space, self._guide, self._fallback = space, guide, fallback
        self._siblings, self._worth = siblings, worth
        self._listeners = list({id(each): each for each in (guide, *listeners)}.values())
        beforehand: dict[Candidate, Origin] = {Candidate(): Origin.BASELINE}
        for origin, candidates in ((Origin.WARM, warm), (Origin.ANCHOR, anchors)):
            for candidate in candidates:
                beforehand.setdefault(candidate, origin)
        self._beforehand = {each.id: (each, origin) for each, origin in beforehand.items()}
        self._over = 0
        """How many of the first trials are over."""
        self._known: set[str] = set()
        self._told: set[int] = set()
        self._front = Archive([direction == Direction.MAXIMIZE for direction in directions])
        self._expanded: set[str] = set()
        self._under_way: dict[int, Drawn] = {}

    def propose(self, entries: Sequence[Entry]) -> Proposal | None:
        """The next candidate, one that no other trial holds.

        Args:
            entries: All trials of the study, in the order of their numbers.

        Returns:
            The proposal, or `None` when the space is searched through.
        """
        running = self._tell(entries)
        for record in unfinished(entries):
            candidate = self._space.candidate(record.candidate)
            drawn = Drawn.of(candidate, self._space)
            return Proposal(drawn, record.origin, record.deaths, record.crashes)
        beforehand = self._next()
        if beforehand is None or beforehand[1] == Origin.ANCHOR:
            sibling = self._sibling() if self._siblings else None
            if sibling is not None:  # nothing is trained for it, as for most anchors
                beforehand = sibling, Origin.SIBLING
        if beforehand is not None:
            candidate, origin = beforehand
            return Proposal(Drawn.of(candidate, self._space), origin)
        return self._sampled(self._drawn(running))

    def _drawn(self, running: Sequence[Entry]) -> list[Drawn]:
        """The candidates of trials under way, in the order of their numbers, made once each."""
        before, self._under_way = self._under_way, {}
        for entry in running:
            number = entry.trial.number
            self._under_way[number] = before.get(number) or Drawn.of(
                self._space.candidate(entry.record.candidate), self._space
            )
        return list(self._under_way.values())

    def _next(self) -> tuple[Candidate, Origin] | None:
        """The first of what is to be tried before any drawing."""
        waiting = (each for name, each in self._beforehand.items() if name not in self._known)
        return next(waiting, None)

    def _sampled(self, running: Sequence[Drawn]) -> Proposal | None:
        index = len(self._told)
        for attempt in range(_SAME_BEFORE_RANDOM + _SAME_BEFORE_END):
            guide = self._guide if attempt < _SAME_BEFORE_RANDOM else self._fallback
            drawn = guide.draw(index, attempt, running)
            if drawn.candidate.id not in self._known:
                return Proposal(drawn, Origin.SAMPLED)
        return self._left_over()

    def _left_over(self) -> Proposal | None:
        """What draws have missed, where the space is small enough to list."""
        if count_candidates(self._space) > _MOST_LISTED:
            return None
        for candidate in every_candidate(self._space):
            if candidate.id not in self._known:
                return Proposal(Drawn.of(candidate, self._space), Origin.SAMPLED)
        return None

    def _sibling(self) -> Candidate | None:
        """What is nearly free beside one of the newest candidates on the front, oldest first."""
        for candidate in list(self._front)[-_NEWEST:]:
            if candidate.id not in self._expanded:
                left = [s for s in self._space.siblings(candidate) if s.id not in self._known]
                for sibling in left:
                    if self._worth(sibling):
                        return sibling
                # What is not worth trying now is asked about again, as a later launch would.
                if not left:
                    self._expanded.add(candidate.id)
        return None

    def _tell(self, entries: Sequence[Entry]) -> list[Entry]:
        """Takes in what is over; returns the trials that are not.

        In a long study nearly all are over, and looked at once.
        """
        tail = entries[self._over :]
        over = [entry.status != Status.RUNNING for entry in tail]
        self._over += over.index(False) if not all(over) else len(over)
        for entry in tail:
            self._known.add(entry.record.candidate_id)
            number = entry.trial.number
            if number in self._told or not entry.counts:
                continue
            self._told.add(number)
            if entry.status == Status.COMPLETE and entry.feasible:
                candidate = self._space.candidate(entry.record.candidate)
                self._front.add(entry.trial.values, candidate)
            for guide in self._listeners:
                guide.tell(entry)
        return [entry for entry in tail if entry.status == Status.RUNNING]
