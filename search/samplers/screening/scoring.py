"""How much each candidate is expected to add to the front of a study."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from parefront.search.samplers.screening.boxes import FreeRegion
from parefront.search.samplers.screening.candidates import Candidate
from parefront.search.samplers.screening.cheap import Facts, Screen
from parefront.search.samplers.screening.features import Features
from parefront.search.samplers.screening.frame import Frame
from parefront.search.samplers.screening.gain import (
    Known,
    Predicted,
    expected_gains,
)
from parefront.search.samplers.screening.history import History
from parefront.search.samplers.screening.normal import probability_below
from parefront.search.samplers.screening.selection import nondominated
from parefront.search.samplers.screening.surrogates import Surrogates

Floats = NDArray[np.float64]

_REGION = 128
"""Points of the front that gains are measured against at most."""


@dataclass(frozen=True, eq=False)
class Moment:
    """What is known of a study at one moment.

    Attributes:
        features: Makes rows for models.
        screen: What is known of candidates.
        surrogates: Models, which are ready.
        history: What was tried.
    """

    features: Features
    screen: Screen
    surrogates: Surrogates
    history: History

    def frame(self, start: int) -> Frame:
        """The scale of the objectives.

        With fewer complete observations than `start`, it also spans what is expected of what was
        told otherwise.
        """
        history = self.history
        values = history.values
        seen = [values[history.feasible] if history.feasible.any() else values]
        sample = np.full((len(self.features.losses), history.losses.count), np.nan)
        sample[:, self.features.cheap] = self.features.losses
        seen.append(sample)
        if len(values) < start:
            seen.append(self.surrogates.expected_of_told())
        return Frame.of(np.vstack(seen), values[history.front], history.losses.resolution)


class Scorer:
    """Scores candidates as if some others had ended as predicted.

    Args:
        moment: What is known.
        frame: The scale; the first candidates that are scored stretch it, unless it is `fixed`.
        running: The others; what is cheap to know of them is known.
        fixed: Whether the frame stays as it is.

    Attributes:
        frame: The scale.
    """

    def __init__(
        self, moment: Moment, frame: Frame, running: Sequence[Candidate], *, fixed: bool = False
    ) -> None:
        self._features, self._screen = moment.features, moment.screen
        self._limits = moment.surrogates.limits
        self._models, believed = moment.surrogates.believing(running)
        self.frame = frame
        history = moment.history
        self._floors = history.losses.floors
        front = np.vstack([history.values[history.front], believed])
        front = (front - frame.low) / frame.width
        front = front[nondominated(front)]
        if len(front) > _REGION:
            # Evenly along one objective, so that no part of the front is left out.
            order = np.argsort(front[:, 0], kind="stable")
            front = front[order[np.linspace(0, len(front) - 1, _REGION).round().astype(np.intp)]]
        self._region = FreeRegion(front)
        self._fixed = fixed
        self._norms: Floats | None = None

    def gains(
        self,
        candidates: Sequence[Candidate],
        widen: float = 1.0,
        looked: Sequence[Facts] | None = None,
    ) -> Floats:
        """Expected gains in scaled hypervolume, up to the far and the near reference.

        Args:
            candidates: At least one candidate.
            widen: Factor of the predicted standard deviations.
            looked: What was seen of each candidate, which is then not predicted.

        Returns:
            `(2, n)` gains, times the probability that all constraints hold.
        """
        cheap, frame = self._features.known(candidates), self.frame
        rows = self._features.rows(candidates, cheap)
        objectives: list[Known | Predicted] = []
        for objective in range(len(frame.low)):
            model = self._models.get(objective)
            if model is None:
                values = cheap[:, self._features.cheap.index(objective)]
                objectives.append(Known(frame.scaled(values, objective)))
                continue
            nodes = np.maximum(model.nodes(rows, widen), self._floors[objective])
            for row, fact in enumerate(looked or ()):
                nodes[row] = fact.losses.get(objective, nodes[row])
            nodes = frame.scaled(nodes, objective)
            if not self._fixed:
                frame.stretch(objective, nodes[:, nodes.shape[1] // 2])
            objectives.append(Predicted(nodes))
        self._fixed = True
        gains = expected_gains(self._region, (frame.far, frame.near), objectives)
        return gains * self._chances(candidates, rows, widen, looked)

    def scores(
        self,
        candidates: Sequence[Candidate],
        widen: float = 1.0,
        looked: Sequence[Facts] | None = None,
    ) -> Floats:
        """Scores of candidates, `(n,)`: gains over cost; larger is better, 0 is no gain.

        Gains up to both references count the same: each is relative to the largest of the first
        candidates that were scored.
        """
        gains = self.gains(candidates, widen, looked)
        if self._norms is None:
            self._norms = np.maximum(gains.max(axis=1), 1e-300)
        costs = [fact.cost for fact in self._screen.facts(candidates)]
        scores: Floats = (gains / self._norms[:, None]).sum(axis=0) / np.array(costs)
        return scores

    def _chances(
        self,
        candidates: Sequence[Candidate],
        rows: Floats,
        widen: float,
        looked: Sequence[Facts] | None,
    ) -> Floats:
        """Probability that all constraints hold, `(n,)`."""
        facts = self._screen.facts(candidates)
        chance = np.array([fact.feasible for fact in facts], dtype=float)
        if looked is not None:
            chance *= [fact.feasible for fact in looked]
        for name, model in self._limits.items():
            mean, deviation = model.predict(rows)
            limit = float(model.warp.forward(np.zeros(1))[0])
            holds = probability_below(limit, mean, widen * deviation)
            if looked is not None:
                holds[[name in fact.constraints for fact in looked]] = 1.0
            chance *= holds
        return chance
