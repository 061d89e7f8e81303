"""What a study has tried so far, kept up to date trial by trial."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from typing import Any

import moocore
import numpy as np
from numpy.typing import NDArray
from optuna.trial import FrozenTrial, TrialState

from parefront.search.samplers.screening.candidates import Candidate, Key, key_of
from parefront.search.samplers.screening.observations import (
    Losses,
    Observation,
    Told,
    observations_of,
)

Floats = NDArray[np.float64]
Ints = NDArray[np.intp]

Target = int | str
"""What is predicted: an objective by its index, or a constraint by its name."""

_LARGEST_FRONT = 64
"""Points of the front that others are compared with to find the near ones."""


class Rows:
    """Rows of an array that grows.

    Args:
        width: Numbers a row.
    """

    def __init__(self, width: int) -> None:
        self._table = np.empty((16, width))
        self._count = 0

    def add(self, row: Floats | Sequence[float]) -> None:
        """Adds a row."""
        if self._count == len(self._table):
            self._table = np.concatenate([self._table, np.empty_like(self._table)])
        self._table[self._count] = row
        self._count += 1

    @property
    def table(self) -> Floats:
        """All rows, `(n, width)`."""
        return self._table[: self._count]

    def __len__(self) -> int:
        return self._count


class Series:
    """The values of one target in the order in which they became known."""

    def __init__(self) -> None:
        self._rows = Rows(3)

    def add(self, observation: int, complete: int, value: float) -> None:
        """Adds a value.

        Args:
            observation: Row of the observation.
            complete: Its row among the complete ones, or -1 if it is none.
            value: Finite value.
        """
        self._rows.add([observation, complete, value])

    def __len__(self) -> int:
        return len(self._rows)

    @property
    def observations(self) -> Ints:
        """Rows of the observations, `(n,)`."""
        return self._rows.table[:, 0].astype(np.intp)

    @property
    def complete(self) -> Ints:
        """Their rows among the complete ones, or -1; `(n,)`."""
        return self._rows.table[:, 1].astype(np.intp)

    @property
    def values(self) -> Floats:
        """The values, `(n,)`; of objectives, smaller is better."""
        return self._rows.table[:, 2]


class History:
    """The trials of one study as the sampler needs them.

    Args:
        losses: How objectives are turned.
        earlier: What was seen elsewhere.

    Attributes:
        observations: All that was told, in the order in which it became known.
        series: Values of what is predicted, by objective or constraint.
        complete: Rows of the observations with all objectives of a trial of this study.
        front: Rows of `complete` that are feasible and that no other feasible one dominates.
        elsewhere: How many of the observations were seen elsewhere; they are the first.
        sources: Where that was, in order.
        tried: Keys of the candidates of all trials that are over, however they ended.
        choices: Names and values that were tried, but for floating-point numbers.
        whole: Candidates of trials that had all their parameters.
        running: Candidates of the trials that run.
        waiting: Keys of candidates that wait to be run.
        changes: How often anything but `running` and `waiting` changed.
    """

    def __init__(self, losses: Losses, earlier: Sequence[Told] = ()) -> None:
        self.losses = losses
        self.observations: list[Observation] = []
        self.series: dict[Target, Series] = {}
        self.complete: list[int] = []
        self.front: list[int] = []
        self.sources = sorted({told.source for told in earlier} - {""})
        self.tried: set[Key] = set()
        self.choices: set[tuple[str, Any]] = set()
        self.whole: list[Candidate] = []
        self.running: list[Candidate] = []
        self.waiting: set[Key] = set()
        self.changes = 0
        self.elsewhere = len(earlier)
        self._values = Rows(losses.count)
        self._feasible = Rows(1)
        self._done: set[int] = set()
        self._settled = 0
        self._gaps: tuple[object, Floats] = (None, np.empty(0))
        self._under_way: dict[int, tuple[FrozenTrial, Candidate]] = {}
        for told in earlier:
            candidate = Candidate(told.params, told.distributions)
            row = losses.row(told.values)
            self._add(Observation(candidate, row, fidelity=told.fidelity, source=told.source))

    def update(self, trials: Sequence[FrozenTrial], pending: Mapping[int, Candidate]) -> None:
        """Takes in what has changed.

        Args:
            trials: All trials of the study in the order of their numbers.
            pending: Candidates by trial number that were proposed; of a trial whose parameters
                are not all in the storage yet, this is what they will be.
        """
        self.running, self.waiting = [], set()
        before, self._under_way = self._under_way, {}
        over: list[FrozenTrial] = []
        for trial in trials[self._settled :]:
            if trial.state.is_finished():
                if trial.number not in self._done:
                    over.append(trial)
            elif trial.state == TrialState.WAITING:
                self.waiting.add(key_of(trial.system_attrs.get("fixed_params", trial.params)))
            elif trial.number in pending:
                self.running.append(pending[trial.number])
            elif trial.params:
                known = before.get(id(trial))  # what is kept keeps its id
                if known is None or len(known[1].key) != len(trial.params):
                    known = trial, Candidate(trial.params, trial.distributions)
                self._under_way[id(trial)] = known
                self.running.append(known[1])
        # By when they ended: a search that is taken up sees them in the order of the first time.
        for trial in sorted(over, key=lambda each: (_end(each), each.number)):
            self._done.add(trial.number)
            self._finish(trial)
        while self._settled < len(trials) and trials[self._settled].state.is_finished():
            self._done.discard(trials[self._settled].number)
            self._settled += 1

    @property
    def values(self) -> Floats:
        """Losses of `complete`, `(n, m)`."""
        return self._values.table

    @property
    def feasible(self) -> NDArray[np.bool_]:
        """Which of `complete` are feasible, `(n,)`."""
        return self._feasible.table[:, 0] > 0.0

    def candidates(self, rows: Sequence[int]) -> list[Candidate]:
        """Candidates of rows of `complete`."""
        return [self.observations[self.complete[row]].candidate for row in rows]

    def broken(self, row: int) -> float:
        """By how much a row of `complete` breaks its constraints."""
        constraints = self.observations[self.complete[row]].constraints
        return sum(max(0.0, value) for value in constraints.values())

    def best_elsewhere(self, seed: int) -> list[Candidate]:
        """Candidates seen elsewhere: those that nothing of their source beats, then the others.

        Args:
            seed: Decides in which order they are otherwise.
        """
        groups: dict[tuple[str, float], list[int]] = {}
        for row, each in enumerate(self.observations[: self.elsewhere]):
            groups.setdefault((each.source, each.fidelity), []).append(row)
        first: list[int] = []
        for rows in groups.values():
            values = np.array([self.observations[row].losses for row in rows])
            values = values[:, np.isfinite(values).all(axis=0)]
            if values.shape[1]:
                first += np.array(rows)[moocore.is_nondominated(values)].tolist()
        order = np.random.default_rng(seed % 2**32).permutation(self.elsewhere)
        ranked = np.concatenate([order[np.isin(order, first)], order[~np.isin(order, first)]])
        return [self.observations[row].candidate for row in ranked.tolist()]

    def gaps(self) -> Floats:
        """How far each of `complete` is from the front, as a share of the box; `(n,)`.

        The least amount by which all its losses must fall for it to be on the front; 0 for what is.
        """
        values = self.values
        if not self.front:
            return np.zeros(len(values))
        kept = tuple(self.front[:: 1 + len(self.front) // _LARGEST_FRONT])
        ends = values[self.front]
        width = np.maximum(values.max(axis=0) - ends.min(axis=0), 1e-300)
        basis, gaps = self._gaps
        start = len(gaps) if basis == (kept, width.tobytes()) else 0
        columns = np.ascontiguousarray((values[start:] / width).T)
        gap = np.zeros(columns.shape[1])
        for point in values[list(kept)] / width:
            least = columns[0] - point[0]
            for column, coordinate in zip(columns[1:], point[1:], strict=True):
                np.minimum(least, column - coordinate, out=least)
            np.maximum(gap, least, out=gap)
        gaps = np.concatenate([gaps[:start], gap])
        self._gaps = ((kept, width.tobytes()), gaps)
        return gaps

    def _finish(self, trial: FrozenTrial) -> None:
        self.changes += 1
        if not trial.params:
            return
        candidate = Candidate(trial.params, trial.distributions)
        self.tried.add(candidate.key)
        self.choices |= candidate.choices
        if trial.state in (TrialState.COMPLETE, TrialState.PRUNED):
            self.whole.append(candidate)
        for observation in observations_of(trial, self.losses):
            self._add(observation)

    def _add(self, observation: Observation) -> None:
        row, complete = len(self.observations), -1
        losses = self._finite(observation.losses)
        self.observations.append(replace(observation, losses=losses))
        if observation.complete:
            complete = len(self.complete)
            self.complete.append(row)
            self._values.add(losses)
            self._feasible.add([float(observation.feasible)])
            self._improve(complete)
        told: list[tuple[Target, float]] = [*enumerate(losses.tolist())]
        told += observation.constraints.items()
        for target, value in told:
            if np.isfinite(value):
                self.series.setdefault(target, Series()).add(row, complete, value)

    def _improve(self, row: int) -> None:
        """Puts a complete observation on the front if it belongs there."""
        if not self.feasible[row]:
            return
        point, points = self.values[row], self.values[self.front]
        if (points <= point).all(axis=1).any():
            return
        beaten = (point <= points).all(axis=1)
        self.front = [each for each, out in zip(self.front, beaten, strict=True) if not out]
        self.front.append(row)

    def _finite(self, losses: Floats) -> Floats:
        """Infinite losses as the worst and best seen so far, for they would spoil every scale."""
        if not np.isinf(losses).any():
            return losses
        before, none = self.values, np.zeros(len(losses))
        high = before.max(axis=0) if len(before) else none
        low = before.min(axis=0) if len(before) else none
        return np.where(np.isinf(losses), np.where(losses > 0, high, low), losses)


def _end(trial: FrozenTrial) -> datetime:
    return trial.datetime_complete or datetime.max
