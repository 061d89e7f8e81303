"""What trials tell: whole ones, partial ones, ones of low fidelity, and what was seen elsewhere."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray
from optuna.distributions import BaseDistribution
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState

from parefront.search.samplers.screening.candidates import Candidate

Floats = NDArray[np.float64]

PARTIAL_KEY = "parefront:told"
"""User attribute of a trial: a list of what it told besides its values, each as by `observed`."""


@dataclass(frozen=True)
class Told:
    """What was seen elsewhere: in another study, for another task, on another device.

    Attributes:
        params: Parameters by name. Those that the space does not have are ignored; what has a
            value that the space does not allow is left out.
        distributions: Their distributions.
        values: Values of objectives by index, in the unit and direction of the study that is told.
        fidelity: From 0 to 1, the true value: for example the share of a training.
        source: Where it was seen. Each one is an input of the models, which so learn how far it
            can be trusted; empty for this very problem.

    Raises:
        ValueError: If the fidelity is not in [0, 1].
    """

    params: Mapping[str, Any]
    distributions: Mapping[str, BaseDistribution]
    values: Mapping[int, float]
    fidelity: float = 1.0
    source: str = ""

    def __post_init__(self) -> None:
        _checked(self.fidelity)


def observed(values: Mapping[int, float], fidelity: float = 1.0) -> dict[str, Any]:
    """One entry of the list that is the attribute `PARTIAL_KEY` of a trial.

    Args:
        values: Values of objectives by index, in the study's own units and directions.
        fidelity: From 0 to 1, the true value.

    Raises:
        ValueError: If the fidelity is not in [0, 1].

    Example:
        >>> trial.set_user_attr(PARTIAL_KEY, [observed({1: 42.0}), observed({0: 0.8}, 0.5)])
    """
    told = {str(index): float(value) for index, value in values.items()}
    return {"values": told, "fidelity": _checked(fidelity)}


@dataclass(frozen=True, eq=False)
class Observation:
    """Something that became known at one moment.

    Attributes:
        candidate: What was tried.
        losses: `(m,)` objectives turned so that smaller is better; NaN where there is no value.
        constraints: Constraints by name; up to 0 is feasible.
        fidelity: From 0 to 1, the true value.
        source: Where it was seen, if not in this study.
        complete: Whether it is the whole result of a trial of this study.
    """

    candidate: Candidate
    losses: Floats
    constraints: Mapping[str, float] = field(default_factory=dict)
    fidelity: float = 1.0
    source: str = ""
    complete: bool = False

    @property
    def feasible(self) -> bool:
        """Whether all constraints hold."""
        return all(value <= 0.0 for value in self.constraints.values())


class Losses:
    """Turns objectives so that smaller is better.

    Args:
        directions: Directions of the objectives.
        log: Objectives in which equal ratios weigh the same.
        best: The best values there can be, by objective.
        resolution: The least differences that mean something, by objective.

    Attributes:
        count: How many objectives there are.
        floors: `(m,)` losses below which there is nothing.
        resolution: `(m,)` the least differences that mean something; 0 where it is not known.

    Raises:
        ValueError: If there is no objective of an index in `best`.
    """

    def __init__(
        self,
        directions: Sequence[StudyDirection],
        log: Collection[int],
        best: Mapping[int, float] | None = None,
        resolution: Mapping[int, float] | None = None,
    ) -> None:
        self.count = len(directions)
        self._signs = [-1.0 if d == StudyDirection.MAXIMIZE else 1.0 for d in directions]
        self._log = frozenset(log)
        self.floors = np.nan_to_num(self.row(best or {}), nan=-np.inf)
        self.resolution = np.array([(resolution or {}).get(i, 0.0) for i in range(self.count)])

    def of(self, objective: int, value: float) -> float:
        """The loss for a value of one objective.

        Raises:
            ValueError: If the logarithm is wanted of a value that is not positive.
        """
        if objective in self._log:
            if value <= 0.0:
                raise ValueError(
                    f"expected positive values of objective {objective}, of which the logarithm "
                    f"is taken, got {value}; leave it out of `log`"
                )
            value = math.log(value)
        return self._signs[objective] * value

    def back(self, objective: int, loss: float) -> float:
        """The value for a loss; the inverse of `of`."""
        value = self._signs[objective] * loss
        return math.exp(min(value, 700.0)) if objective in self._log else value

    def row(self, values: Mapping[int, float]) -> Floats:
        """Losses for values of some objectives, `(m,)`; NaN for the others.

        Raises:
            ValueError: If there is no objective of an index.
        """
        row = np.full(self.count, np.nan)
        for objective, value in values.items():
            if not 0 <= objective < self.count:
                raise ValueError(
                    f"expected objectives 0 to {self.count - 1}, got a value of {objective}"
                )
            row[objective] = self.of(objective, float(value))
        return row


def observations_of(trial: FrozenTrial, losses: Losses) -> list[Observation]:
    """What a trial that is over told.

    Raises:
        ValueError: If its attribute `PARTIAL_KEY` cannot be understood.
    """
    candidate = Candidate(trial.params, trial.distributions)
    found = []
    for entry in trial.user_attrs.get(PARTIAL_KEY, ()):
        try:
            values = {int(index): float(value) for index, value in entry["values"].items()}
            row, fidelity = losses.row(values), _checked(float(entry["fidelity"]))
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise ValueError(
                f"expected attribute {PARTIAL_KEY!r} of trial {trial.number} to be a list of what "
                f"`observed` returns, got {entry!r}: {error}"
            ) from error
        found.append(Observation(candidate, row, fidelity=fidelity))
    if trial.state == TrialState.COMPLETE and trial.values is not None:
        row = losses.row(dict(enumerate(trial.values)))
        if not np.isnan(row).any():
            # What it told of the true values besides is in its values.
            found = [each for each in found if each.fidelity < 1.0]
            found.append(Observation(candidate, row, dict(trial.constraints), complete=True))
    elif trial.state == TrialState.PRUNED and trial.constraints:
        row = np.full(losses.count, np.nan)
        found.append(Observation(candidate, row, dict(trial.constraints)))
    return found


def _checked(fidelity: float) -> float:
    if not 0.0 <= fidelity <= 1.0:
        raise ValueError(f"expected a fidelity from 0 to 1, got {fidelity}")
    return fidelity
