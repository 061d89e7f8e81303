"""Models of everything that is not known beforehand, from what was told up to one moment."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from parefront.search.samplers.screening.candidates import Candidate
from parefront.search.samplers.screening.features import Features
from parefront.search.samplers.screening.history import History, Series, Target
from parefront.search.samplers.screening.model import Fitted, Model
from parefront.search.samplers.screening.selection import fitted, milestone, selected, spread

Floats = NDArray[np.float64]
Ints = NDArray[np.intp]

_Name = TypeVar("_Name", int, str)

Fits = dict[tuple[Target, int], Fitted]
"""What was fitted, by what it predicts and from how many observations."""

_FRAMED = 64
"""Observations that show the range of what is to be expected."""
_BELIEVED = 128
"""Predictions that models take for true at most."""
_FEWEST = 2
"""Values of a constraint from which on it is predicted."""


class Surrogates:
    """Predicts the objectives and constraints that are not known beforehand.

    Args:
        features: Makes rows.
        fits: What was fitted so far; what is missing is added.
        history: What was told.
        seed: Decides which observations are used when there are too many.
        start: Values of an objective from which on it is predicted.

    Attributes:
        objectives: Models by objective.
        limits: Models by constraint.
        ready: Whether there are models of all objectives that are not cheap.
    """

    def __init__(
        self, features: Features, fits: Fits, history: History, seed: int, start: int
    ) -> None:
        self._features, self._fits, self._history, self._seed = features, fits, history, seed
        self._floors = history.losses.floors
        self._rows: dict[bytes, Floats] = {}
        self._selected: dict[bytes, Ints] = {}
        dear = [i for i in range(history.losses.count) if i not in features.cheap]
        self.objectives = self._models(dear, start)
        self.ready = len(self.objectives) == len(dear)
        named = {name for name in history.series if isinstance(name, str)}
        self.limits = self._models(sorted(named - features.sure), _FEWEST)
        self._rows.clear()
        self._selected.clear()

    def believing(self, candidates: Sequence[Candidate]) -> tuple[dict[int, Model], Floats]:
        """Models of objectives that take their predictions of candidates for true.

        Args:
            candidates: Candidates whose cheap objectives are known.

        Returns:
            The models, and `(n, m)` objectives of the candidates, known or believed.
        """
        cheap = self._features.known(candidates)
        believed = np.empty((len(candidates), self._history.losses.count))
        believed[:, self._features.cheap] = cheap
        if not candidates:
            return self.objectives, believed
        rows = self._features.rows(candidates, cheap)
        # To believe a prediction moves no other one, it only makes those nearby surer. So where
        # many run, it is enough to believe some that all others are near to: time grows with the
        # cube of their number.
        some = spread(rows, _BELIEVED)
        models = {}
        for objective, model in self.objectives.items():
            models[objective], values = model.believing(rows, some)
            believed[:, objective] = np.maximum(values, self._floors[objective])
        return models, believed

    def bounds(self, candidate: Candidate, deviations: float) -> dict[int, float] | None:
        """What objectives of a candidate are hardly below, by so many standard deviations.

        `None` if what is cheap to know of it is not known.
        """
        cheap = self._features.known([candidate])
        if not np.isfinite(cheap).all():
            return None
        rows = self._features.rows([candidate], cheap)
        return {
            objective: max(float(model.bound(rows, deviations)[0]), self._floors[objective])
            for objective, model in self.objectives.items()
        }

    def expected_of_told(self) -> Floats:
        """Objectives expected at full fidelity of what was told first, `(n, m)`; NaN if cheap."""
        rows = self._features.observed(self._history.observations[:_FRAMED])
        rows = rows[np.isfinite(rows).all(axis=1)]
        rows[:, self._features.columns.width :] = 0.0
        expected = np.full((len(rows), self._history.losses.count), np.nan)
        for objective, model in self.objectives.items():
            expected[:, objective] = model.expected(rows)
        return expected

    def _models(self, targets: Sequence[_Name], fewest: int) -> dict[_Name, Model]:
        models = {}
        for target in targets:
            series = self._history.series.get(target)
            if series and (model := self._model(target, series, fewest)):
                models[target] = model
        return models

    def _model(self, target: Target, series: Series, fewest: int) -> Model | None:
        columns = self._features.columns
        # Objectives that are told together are selected together.
        told = series.complete.tobytes()
        if told not in self._selected:
            self._selected[told] = selected(self._history, series, self._seed)
        rows, values = self._told(series, self._selected[told])
        if len(values) < fewest:
            return None
        key = (target, milestone(len(series)))
        if key not in self._fits:
            known = self._told(series, fitted(self._history, series, self._seed))
            self._fits[key] = Fitted.of(known[0], columns, known[1])
        return Model(rows, columns, values, self._fits[key])

    def _told(self, series: Series, positions: Ints) -> tuple[Floats, Floats]:
        """Rows and values at some positions of a series, but for those outside of the space."""
        chosen = series.observations[positions]
        rows = self._rows.get(chosen.tobytes())
        if rows is None:
            rows = self._features.observed([self._history.observations[i] for i in chosen])
            self._rows[chosen.tobytes()] = rows
        inside = np.isfinite(rows).all(axis=1)
        return rows[inside], series.values[positions][inside]
