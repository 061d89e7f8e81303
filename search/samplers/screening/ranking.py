"""Candidates in the order of what they are expected to add, at one moment."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from parefront.search.samplers.screening.candidates import Candidate
from parefront.search.samplers.screening.cheap import Facts, Looks
from parefront.search.samplers.screening.scoring import Moment, Scorer

Floats = NDArray[np.float64]

_WIDEN = 4.0
"""Factor of the deviations when nothing seems to gain anything."""
_PATIENCE = 8
"""So many times as many candidates as are wanted are looked at before looking is given up."""


@dataclass(frozen=True, eq=False)
class Ranking:
    """Candidates and their scores.

    Attributes:
        moment: What was known.
        scorer: Scores candidates.
        free: Candidates that may be tried; none if the space is exhausted.
        scores: `(n,)` their scores.
        running: Candidates that run.
    """

    moment: Moment
    scorer: Scorer
    free: list[Candidate]
    scores: Floats
    running: list[Candidate]

    def best(self, looks: Looks | None, shortlist: int) -> Candidate:
        """The candidate to try; there must be one.

        Args:
            looks: Looks at candidates, if there is a way to.
            shortlist: How many of the best are looked at.
        """
        scores, widen = self.scores, 1.0
        if not scores.max() > 0.0:
            # Look where least is known, or at least where fewest bounds are broken.
            widen = _WIDEN
            scores = self.scorer.scores(self.free, widen)
        if not scores.max() > 0.0:
            scores = -violations(self.moment.screen.facts(self.free))
        order: list[int] = np.argsort(-scores, kind="stable").tolist()
        if looks is None:
            return self.free[order[0]]
        # The best may all be such as cannot be looked at; others are among the last that are asked.
        half = _PATIENCE * shortlist // 2
        rest = order[half:]
        positions = order[:half] + rest[:: max(1, len(rest) // half)][:half]
        candidates: list[Candidate] = []
        seen: list[Facts] = []
        wanted = shortlist
        # What was seen of others before must not matter, or a search that is taken up would differ.
        for position in positions:
            fact = looks.facts(self.free[position])
            if fact.usable:
                candidates.append(self.free[position])
                seen.append(fact)
                wanted -= fact.feasible
            if wanted == 0:
                break
        if not candidates:
            # Nothing says that the next one can be tried, but if it cannot, it will not come again.
            return self.free[positions[-1]]
        again = self.scorer.scores(candidates, widen, seen)
        if not again.max() > 0.0:
            again = -violations(seen)
        return candidates[int(again.argmax())]


def violations(facts: Sequence[Facts]) -> Floats:
    """By how much candidates break constraints in all, `(n,)`."""
    return np.array([sum(max(0.0, v) for v in fact.constraints.values()) for fact in facts])
