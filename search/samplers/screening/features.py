"""Candidates as a model sees them: their parameters, and what is known of them beforehand."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from parefront.search.samplers.screening.candidates import Candidate, Key
from parefront.search.samplers.screening.cheap import Screen
from parefront.search.samplers.screening.encoding import Encoder
from parefront.search.samplers.screening.hyper import Columns
from parefront.search.samplers.screening.observations import Observation
from parefront.search.samplers.screening.values import allows
from parefront.search.samplers.screening.warping import Warp

Floats = NDArray[np.float64]

_SPREAD = 0.25
"""Standard deviation of a cheap objective as an input, so that it spans about 1 like the others."""
_MOST = 4096
"""Rows kept."""


class Features:
    """Makes rows for models.

    The dear objectives depend on the cheap ones, as accuracy on size, more simply than on the
    parameters; so the cheap ones are inputs of the models. The context comes last: how much is
    missing to the full fidelity, and one flag for each source.

    Args:
        sample: Candidates that show what the space is like.
        screen: What is known of candidates.
        sources: Where observations come from, besides this study.

    Attributes:
        distributions: Parameters of the sample, by name.
        cheap: Objectives known beforehand, in order.
        sure: Constraints known beforehand.
        columns: What the columns of rows mean.
        losses: `(k, c)` cheap objectives of the sample.
    """

    def __init__(
        self, sample: Sequence[Candidate], screen: Screen, sources: Sequence[str] = ()
    ) -> None:
        self._screen, self._sources = screen, sources
        self._encoder = Encoder(sample)
        self.distributions = self._encoder.distributions
        facts = [fact for fact in screen.facts(sample) if fact.usable]
        self.cheap = sorted(set.intersection(*(set(f.losses) for f in facts))) if facts else []
        self.sure = set.intersection(*(set(f.constraints) for f in facts)) if facts else set()
        losses = [[fact.losses[i] for i in self.cheap] for fact in facts]
        self.losses: Floats = np.array(losses).reshape(len(facts), len(self.cheap))
        self._warps = [Warp.of(column) for column in self.losses.T]
        parameters, context = self._encoder.columns, 1 + len(sources)
        more = len(self.cheap) + context
        self.columns = Columns(
            np.concatenate([parameters.groups, parameters.count + np.arange(more)]).astype(np.intp),
            np.concatenate([parameters.curved, np.zeros(more, dtype=bool)]),
            context,
        )
        self._rows: dict[Key, Floats] = {}
        self._placed: dict[Key, Candidate | None] = {}

    def known(self, candidates: Sequence[Candidate]) -> Floats:
        """Cheap objectives of candidates, `(n, c)`, smaller is better; NaN if they are unknown."""
        facts = self._screen.facts_if_whole(candidates)
        losses = [[fact.losses.get(i, np.nan) for i in self.cheap] for fact in facts]
        return np.array(losses).reshape(len(candidates), len(self.cheap))

    def rows(self, candidates: Sequence[Candidate], cheap: Floats) -> Floats:
        """Rows of candidates of this study at full fidelity, `(n, d)`.

        Args:
            candidates: The candidates.
            cheap: `(n, c)` cheap objectives, smaller is better.
        """
        new = {each.key: each for each in candidates if each.key not in self._rows}
        if new:
            encoded = self._encoder.encode(list(new.values()))
            self._rows.update(zip(new, encoded, strict=True))
        width = self._encoder.columns.width
        rows = np.array([self._rows[each.key] for each in candidates]).reshape(-1, width)
        while len(self._rows) > _MOST:
            del self._rows[next(iter(self._rows))]
        columns = [
            _SPREAD * warp.forward(column)
            for warp, column in zip(self._warps, cheap.T, strict=True)
        ]
        return np.column_stack([rows, *columns, np.zeros((len(rows), self.columns.context))])

    def observed(self, observations: Sequence[Observation]) -> Floats:
        """Rows of observations, `(n, d)`; NaN where one is not of a candidate of the space."""
        placed = [self.placed(each) for each in observations]
        candidates = [
            each.candidate if own is None else own
            for each, own in zip(observations, placed, strict=True)
        ]
        cheap = np.full((len(observations), len(self.cheap)), np.nan)
        other = np.array([not each.complete for each in observations])
        if (~other).any():
            cheap[~other] = [each.losses[self.cheap] for each in observations if each.complete]
        if other.any():
            asked = [each for each, is_other in zip(candidates, other, strict=True) if is_other]
            cheap[other] = self.known(asked)
        rows = self.rows(candidates, cheap)
        context = self.columns.width
        rows[:, context] = [1.0 - each.fidelity for each in observations]
        for column, source in enumerate(self._sources, start=context + 1):
            rows[:, column] = [each.source == source for each in observations]
        rows[[own is None for own in placed]] = np.nan
        return rows

    def placed(self, observation: Observation) -> Candidate | None:
        """Where an observation lies in the space; `None` if outside of it.

        Parameters that the space does not have are left away.
        """
        candidate = observation.candidate
        if observation.complete:
            return candidate
        if candidate.key not in self._placed:
            self._placed[candidate.key] = self._place(candidate)
        return self._placed[candidate.key]

    def _place(self, candidate: Candidate) -> Candidate | None:
        kept = {}
        for name, value in candidate.params.items():
            distribution = self.distributions.get(name)
            if distribution is not None:
                if not allows(distribution, value):
                    return None
                kept[name] = value
        if not kept or len(kept) == len(candidate.params):
            return candidate if kept else None
        return Candidate(kept, {name: candidate.distributions[name] for name in kept})
