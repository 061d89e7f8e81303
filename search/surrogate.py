"""A model of a study: what to try next, what a candidate could be worth, what is left to gain."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from copy import copy
from dataclasses import dataclass
from functools import partial
from typing import Any, cast

import numpy as np
import optuna
from numpy.typing import NDArray
from optuna.study import StudyDirection
from optuna.trial import FixedTrial, FrozenTrial, TrialState, create_trial

from parefront.objectives.front import dominates
from parefront.objectives.measurement import Direction, Measurement
from parefront.objectives.objective import Bound
from parefront.search.entry import Entry
from parefront.search.guide import Drawn, optuna_directions
from parefront.search.records import Status
from parefront.search.samplers.screening import ScreeningSampler
from parefront.search.samplers.screening.observations import PARTIAL_KEY, Told, observed
from parefront.spaces.space import Candidate, Space

OPTIMISM = 3.0
"""Predicted standard deviations by which a candidate may be better than expected."""
LEAST = 8
"""Complete trials before anything is said to be hopeless."""
Rows = tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]
_ASKING = 1 << 40
"""A trial number that no trial has: that of the one a candidate is drawn for."""


@dataclass(frozen=True, kw_only=True)
class Axis:
    """An objective as the surrogate sees it.

    Attributes:
        name: Name of the objective on its target.
        direction: Which values are better.
        log: Whether equal ratios weigh the same.
        target: Name of the further target it belongs to, `None` for the main one.
        everywhere: Whether it belongs to no device, and so to the front of every target.
        bound: Limit that candidates must keep.
        limit: The best value there can be, `None` if there is none.
    """

    name: str
    direction: Direction
    log: bool
    target: str | None
    everywhere: bool
    bound: Bound
    limit: float | None = None


class _View:
    """What the sampler needs of an Optuna study: told trials, and those that run."""

    study_name = "surrogate"

    def __init__(self, directions: Sequence[StudyDirection]) -> None:
        self.directions = list(directions)
        self.told: list[FrozenTrial] = []
        self.running: list[FrozenTrial] = []

    def get_trials(
        self,
        deepcopy: bool = True,  # noqa: ARG002
        states: Sequence[TrialState] | None = None,
    ) -> list[FrozenTrial]:
        """All trials, as Optuna's study gives them."""
        trials = self.told + self.running
        return [t for t in trials if t.state in states] if states is not None else trials


class Surrogate:
    """Knows what a study has told, and predicts what it has not: a guide that also judges.

    Args:
        space: The space.
        axes: The objectives, in the order of the study's values.
        seed: Seed of all draws.
        bounds: Limits that candidates must keep, by objective, whether it is optimised or not.
        cost: Seconds that a candidate is expected to take.
        look: Values of objectives and bounds that are known of an untrained candidate; raises
            `TrialError` if it cannot be built.
        earlier: What was seen elsewhere.
        ideas: Candidates that are always compared with those that are drawn.
        held: Values of parameters that the first candidates have in common.
    """

    def __init__(
        self,
        space: Space,
        axes: Sequence[Axis],
        seed: int,
        *,
        bounds: Mapping[str, Bound] | None = None,
        cost: Callable[[Candidate], float] | None = None,
        look: Callable[[Candidate], Mapping[str, float]] | None = None,
        earlier: Sequence[Told] = (),
        ideas: Sequence[Candidate] = (),
        held: Mapping[str, Any] | None = None,
    ) -> None:
        self._space, self._axes = space, tuple(axes)
        bounds = bounds or {}
        self._index = {axis.name: index for index, axis in enumerate(axes)}
        self._view = _View(optuna_directions([axis.direction for axis in axes]))
        self._study = cast(optuna.Study, self._view)
        self._under_way: dict[int, tuple[Drawn, FrozenTrial]] = {}
        self._measured: list[tuple[list[float], list[float], list[float]]] = []
        self._rows: Rows | None = None

        def candidate(params: Mapping[str, Any]) -> Candidate:
            return space.suggest(FixedTrial(dict(params)))

        def looked(params: Mapping[str, Any]) -> dict[int | str, float]:
            found = look(candidate(params)) if look is not None else {}
            values: dict[int | str, float] = {
                self._index[name]: value for name, value in found.items() if name in self._index
            }
            return values | {
                name: bound.violation(found[name])
                for name, bound in bounds.items()
                if name in found
            }

        self._make = partial(
            ScreeningSampler,
            space=space.suggest,
            cost=(lambda params: cost(candidate(params))) if cost is not None else None,
            look=looked if look is not None else None,
            log=[index for index, axis in enumerate(axes) if axis.log],
            best={i: axis.limit for i, axis in enumerate(axes) if axis.limit is not None},
            seed=seed,
            earlier=earlier,
            ideas=[space.parameters(candidate) for candidate in ideas],
            held=held,
        )
        self._sampler = self._make()

    def tell(self, entry: Entry) -> None:
        """Takes in a trial that is over."""
        number = len(self._view.told)
        if entry.trial.state == TrialState.FAIL or entry.outcome is None:
            self._view.told.append(_trial(entry.trial, number, []))
            return
        outcome = entry.outcome
        facts = []
        if outcome.status != Status.COMPLETE:
            cheap = {
                self._index[name]: measurement.value
                for name, measurement in outcome.measurements.items()
                if name in self._index
            }
            facts += [observed(cheap)] if cheap else []
        if "accuracy" in self._index:
            accuracy = self._index["accuracy"]
            facts += [
                observed({accuracy: rung.values["accuracy"]}, rung.share)
                for rung in outcome.rungs
                if "accuracy" in rung.values
            ]
        self._view.told.append(_trial(entry.trial, number, facts))
        if outcome.status == Status.COMPLETE and entry.feasible:
            found = [outcome.measurements[axis.name] for axis in self._axes]
            if not self._measured:
                self._sampler = self._make(resolution=self._resolution(found))
            self._measured.append(
                ([m.value for m in found], [m.low for m in found], [m.high for m in found])
            )

    def draw(self, index: int, attempt: int, running: Sequence[Drawn]) -> Drawn:  # noqa: ARG002
        """The candidate that is expected to add most to the front for its time."""
        self._view.running = self._trials(running)
        for number, trial in enumerate(self._view.running, start=len(self._view.told)):
            trial.number = number
        asking = create_trial(state=TrialState.RUNNING)
        asking.number = _ASKING
        known = self._sampler.infer_relative_search_space(self._study, asking)
        params = self._sampler.sample_relative(self._study, asking, known)
        return Drawn.of(self._space.suggest(FixedTrial(params)), self._space)

    def hopeless(self, candidate: Candidate, known: Mapping[str, Measurement]) -> str | None:
        """Why a candidate cannot reach any front, however much better than expected it is.

        What was measured counts with the better end of its interval, everything else with a value
        that is better than predicted by `OPTIMISM` standard deviations.

        Args:
            candidate: The candidate.
            known: What was measured of it, by objective.
        """
        best = self._best(candidate, known)
        if best is None:
            return None
        hoped = ", ".join(
            f"{axis.name} {value:.4g}" for axis, value in zip(self._axes, best, strict=True)
        )
        for axis, value in zip(self._axes, best, strict=True):
            if axis.bound.violation(value) > 0 and axis.name not in known:
                return (
                    f"could not keep the bound on {axis.name} even at the best to expect: {hoped}"
                )
        for target in dict.fromkeys(axis.target for axis in self._axes):
            columns = [
                i for i, axis in enumerate(self._axes) if axis.target == target or axis.everywhere
            ]
            maximize = [self._axes[i].direction is Direction.MAXIMIZE for i in columns]
            values, low, high = (part[:, columns] for part in self._table())
            if not dominates(values, low, high, [best[i] for i in columns], maximize):
                return None
        return f"could not reach the front even at the best to expect: {hoped}"

    def _trials(self, running: Sequence[Drawn]) -> list[FrozenTrial]:
        """Trials of candidates under way; the same trial as long as it is the same object."""
        before, self._under_way = self._under_way, {}
        for drawn in running:
            self._under_way[id(drawn)] = before.get(id(drawn)) or (
                drawn,
                create_trial(
                    state=TrialState.RUNNING,
                    params=dict(drawn.parameters),
                    distributions=dict(drawn.distributions),
                ),
            )
        return [trial for _, trial in self._under_way.values()]

    def _resolution(self, found: Sequence[Measurement]) -> dict[int, float]:
        """Half the intervals of one trial, the baseline in a study: what noise may be."""
        ends = [
            (math.log(m.low), math.log(m.high)) if axis.log and m.low > 0.0 else (m.low, m.high)
            for axis, m in zip(self._axes, found, strict=True)
        ]
        return {index: (high - low) / 2.0 for index, (low, high) in enumerate(ends)}

    def _table(self) -> Rows:
        """Values of what is complete and feasible, and the ends of their intervals, `(n, m)`."""
        if self._rows is None or len(self._rows[0]) < len(self._measured):
            values, low, high = (np.array(part) for part in zip(*self._measured, strict=True))
            self._rows = values, low, high
        return self._rows

    def rest(self, trials: int) -> float | None:
        """Hypervolume that further trials are expected to add, as a share of the front's.

        Args:
            trials: How many further trials.

        Returns:
            The share, or `None` while too little is known.
        """
        if len(self._measured) < LEAST:
            return None
        self._view.running = []
        return self._sampler.rest(self._study, trials)

    def _best(self, candidate: Candidate, known: Mapping[str, Measurement]) -> list[float] | None:
        if len(self._measured) < LEAST:
            return None
        drawn = Drawn.of(candidate, self._space)
        self._view.running = []
        hoped = self._sampler.optimistic(
            self._study, drawn.parameters, drawn.distributions, OPTIMISM
        )
        if hoped is None:
            return None
        best = []
        for index, axis in enumerate(self._axes):
            if axis.name in known:
                measured = known[axis.name]
                up = axis.direction is Direction.MAXIMIZE
                best.append(measured.high if up else measured.low)
            elif index in hoped:
                best.append(hoped[index])
            else:
                return None
        return best


def _trial(trial: FrozenTrial, number: int, facts: Sequence[Mapping[str, Any]]) -> FrozenTrial:
    same = copy(trial)
    same.number = number
    same.user_attrs = {PARTIAL_KEY: list(facts)} if facts else {}
    return same
