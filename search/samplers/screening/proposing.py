"""Chooses the candidate that is expected to add most to the front."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from parefront.search.samplers.screening.candidates import (
    Candidate,
    CandidateSpace,
    Held,
    Key,
    generator,
)
from parefront.search.samplers.screening.cheap import Looks, Screen
from parefront.search.samplers.screening.features import Features
from parefront.search.samplers.screening.history import History
from parefront.search.samplers.screening.pool import Pool
from parefront.search.samplers.screening.ranking import Ranking, violations
from parefront.search.samplers.screening.scoring import Moment, Scorer
from parefront.search.samplers.screening.surrogates import Fits, Surrogates

Floats = NDArray[np.float64]

_START = 4
"""Values of an objective before there is a model, if another one is known without a trial."""
_START_DEAR = 10
"""The same if none is."""
_SPREAD = 8
"""Candidates of which the farthest from all others is taken before there is a model."""
_ROUNDS = 5
"""Rounds of local search at most."""
_STARS = 4
"""Candidates that a round goes on from."""
_NEAR = 6
"""Children of each of them."""
_HELD = 36
"""Complete trials up to which the values that are held are: a dozen trainings with the siblings of
what was trained."""
_WORTHWHILE = 1.01
"""Gain of a round over the one before below which local search ends."""
_PARENTS = 12
"""Parents of children at least, as far as there are so many observations."""
_ELSEWHERE = 64
"""Candidates that were seen elsewhere, and are compared here, at most."""
_LAST_DRAWS = 256
"""Random candidates drawn before the space counts as exhausted."""


class Proposing:
    """Chooses candidates for one study.

    Args:
        space: Where candidates come from.
        screen: What is known of them.
        looks: Looks at some of them, if there is a way to.
        shortlist: How many are looked at.
        sources: Where observations come from, besides this study.
        ideas: Candidates that are always among those that are compared.
        held: Values of parameters that the first candidates have in common.
        seed: Seed of the draws.

    Attributes:
        pool: Draws what is compared.
        features: Makes rows for models.
    """

    def __init__(
        self,
        space: CandidateSpace,
        screen: Screen,
        looks: Looks | None,
        shortlist: int,
        sources: Sequence[str],
        ideas: Sequence[Mapping[str, Any]],
        held: Mapping[str, Any],
        seed: int,
    ) -> None:
        self._space, self._screen, self._seed = space, screen, seed
        self._looks, self._shortlist = looks, shortlist
        random = generator(seed, "ideas")
        self._ideas = [space.draw(random, params) for params in ideas]
        self.pool = Pool(space, seed)
        self._first = Pool(Held(space, held), seed) if held else self.pool
        self.features = Features(self.pool.sample, screen, sources)
        self._start = _START if self.features.cheap or looks else _START_DEAR
        self._fits: Fits = {}
        self._surrogates: tuple[int, Surrogates] | None = None
        self._elsewhere: list[Candidate] | None = None
        self._whole: dict[Key, bool] = {}

    def propose(self, history: History) -> Candidate:
        """The next candidate; one that was tried already only if the space is exhausted."""
        taken = _taken(history)
        free = self._free(history, taken)
        if not free:
            return self.pool.more(len(taken), 1)[0]
        if novel := self._novel(history, len(taken)):
            return novel
        ranking = self._rank(history, taken, free)
        if ranking is None:
            return self._spread(free, history)
        return ranking.best(self._looks, self._shortlist)

    def ranking(self, history: History) -> Ranking | None:
        """Candidates for the next trial by score; `None` before there are models."""
        taken = _taken(history)
        return self._rank(history, taken, self._free(history, taken))

    def moment(self, history: History) -> Moment | None:
        """What is known; `None` before there are models."""
        if self._surrogates is None or self._surrogates[0] != history.changes:
            made = Surrogates(self.features, self._fits, history, self._seed, self._start)
            self._surrogates = (history.changes, made)
        surrogates = self._surrogates[1]
        if not surrogates.ready:
            return None
        return Moment(self.features, self._screen, surrogates, history)

    def _rank(
        self, history: History, taken: Collection[Key], free: list[Candidate]
    ) -> Ranking | None:
        moment = self.moment(history)
        if moment is None:
            return None
        running = self._running(history)
        scorer = Scorer(moment, moment.frame(self._start), running)
        scores = scorer.scores(free) if free else np.zeros(0)
        known = {each.key for each in free}
        for turn in range(_ROUNDS if free else 0):
            best = float(scores.max())
            stars = [free[i] for i in np.argsort(-scores, kind="stable")[:_STARS]]
            near = self._drawing(history).near(stars, _NEAR, len(taken), turn)
            near = [each for each in near if each.key not in known]
            new = self._untried(near, taken)
            if new:
                free = free + new
                known |= {each.key for each in new}
                scores = np.concatenate([scores, scorer.scores(new)])
            if scores.max() < _WORTHWHILE * best:
                break
        return Ranking(moment, scorer, free, scores, running)

    def _free(self, history: History, taken: Collection[Key]) -> list[Candidate]:
        """Candidates that are not taken."""
        index = len(taken)
        pool = self._drawing(history)
        drawn = pool.random(index) + pool.children(index, self._parents(history))
        free = self._untried(drawn + self._seen_elsewhere(history) + self._ideas, taken)
        if not free:
            free = self._untried(self.pool.more(index, _LAST_DRAWS), taken)
        return free

    def _drawing(self, history: History) -> Pool:
        """What candidates are drawn from now."""
        return self._first if len(history.complete) < _HELD else self.pool

    def _untried(self, candidates: Sequence[Candidate], taken: Collection[Key]) -> list[Candidate]:
        new = list({each.key: each for each in candidates if each.key not in taken}.values())
        return [c for c, fact in zip(new, self._screen.facts(new), strict=True) if fact.usable]

    def _novel(self, history: History, index: int) -> Candidate | None:
        """A candidate that lacks parameters, and has a choice that may show which.

        Only a space that is learnt has such candidates; trying one teaches when parameters are
        active.
        """
        drawn = self.pool.random(index)
        lacking = [
            candidate
            for candidate, fact in zip(drawn, self._screen.facts(drawn), strict=True)
            if not fact.whole
        ]
        if not lacking:
            return None
        known = history.choices.union(*(each.choices for each in history.running))
        return next((each for each in lacking if each.choices - known), None)

    def _running(self, history: History) -> list[Candidate]:
        """Candidates that run, but for those of which not all parameters are known yet."""
        before, self._whole = self._whole, {}
        for each in history.running:
            known = before.get(each.key)
            if known is None:
                known = self._space.draw(generator(self._seed), each.params).key == each.key
            self._whole[each.key] = known
        whole = [each for each in history.running if self._whole[each.key]]
        facts = self._screen.facts_if_whole(whole)
        return [each for each, fact in zip(whole, facts, strict=True) if fact.usable]

    def _seen_elsewhere(self, history: History) -> list[Candidate]:
        """Candidates of the space that are those seen elsewhere, or near to them."""
        if self._elsewhere is None:
            best = history.best_elsewhere(self._seed)[:_ELSEWHERE]
            random = generator(self._seed, "elsewhere")
            self._elsewhere = [self._space.draw(random, each.params) for each in best]
        return self._elsewhere

    def _parents(self, history: History) -> list[Candidate]:
        """The front, and what is nearest to it if that is little."""
        rows = dict.fromkeys(history.front)
        if len(rows) < _PARENTS:
            order: Floats = history.gaps()
            if not history.front:
                order = np.array([history.broken(row) for row in range(len(history.complete))])
            for row in np.argsort(order, kind="stable")[: 2 * _PARENTS].tolist():
                if len(rows) < _PARENTS:
                    rows.setdefault(row)
        return history.candidates(list(rows))

    def _spread(self, free: list[Candidate], history: History) -> Candidate:
        """A random candidate; of a few, the one farthest from the others if some are cheap."""
        before = history.whole + self._running(history)
        broken = violations(self._screen.facts(free[: 8 * _SPREAD])) > 0.0
        order: list[int] = np.argsort(broken, kind="stable")[:_SPREAD].tolist()
        some = [free[i] for i in order]
        if not before or not self.features.cheap:
            return some[0]
        rows, others = (
            self.features.rows(each, self.features.known(each)) for each in (some, before)
        )
        others = others[np.isfinite(others).all(axis=1)]
        if len(others) == 0:
            return some[0]
        distance = ((rows[:, None, :] - others[None, :, :]) ** 2).sum(axis=2).min(axis=1)
        farthest: Candidate = some[int(distance.argmax())]
        return farthest


def _taken(history: History) -> set[Key]:
    return history.tried | history.waiting | {each.key for each in history.running}
