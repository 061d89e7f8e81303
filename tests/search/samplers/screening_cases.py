"""A small problem with every kind of parameter, for tests of the screening sampler."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import moocore
import numpy as np
import optuna
import pytest

from parefront.search.samplers.screening.candidates import key_of


def draw(trial: optuna.trial.BaseTrial) -> dict[str, Any]:
    """A space with every kind of parameter, and one that depends on another."""
    trial.suggest_float("x", -1.0, 1.0)
    trial.suggest_float("rate", 1e-4, 1e-1, log=True)
    trial.suggest_int("depth", 1, 5)
    trial.suggest_categorical("bits", (4, 8, 16))
    if trial.suggest_categorical("prune", (False, True)):
        trial.suggest_float("ratio", 0.1, 0.9, step=0.1)
        trial.suggest_categorical("kind", ("a", "b", "c"))
    return dict(trial.params)


def evaluate(params: Mapping[str, Any]) -> tuple[float, float]:
    """Error and size."""
    ratio = params.get("ratio", 0.0)
    error = params["x"] ** 2 + 0.2 * (np.log10(params["rate"]) + 3) ** 2 + ratio**2
    error += {"a": 0.3, "b": 0.0, "c": 0.1}[params.get("kind", "b")] + 1.0 / params["depth"]
    return float(error + 2.0 / params["bits"]), size_of(params)


def size_of(params: Mapping[str, Any]) -> float:
    return float(params["depth"] * params["bits"] * (1.0 - params.get("ratio", 0.0)))


def cheap(params: Mapping[str, Any]) -> dict[int | str, float]:
    return {1: size_of(params)}


def started(sampler: optuna.samplers.BaseSampler, trials: int, directions: int = 2) -> optuna.Study:
    study = optuna.create_study(directions=["minimize"] * directions, sampler=sampler)
    study.optimize(lambda trial: evaluate(draw(trial)), n_trials=trials)
    return study


def keys(study: optuna.Study) -> list[object]:
    return [key_of(trial.params) for trial in study.trials]


def volume(study: optuna.Study) -> float:
    values = np.array([trial.values for trial in study.trials])
    return float(moocore.hypervolume(values, ref=[4.0, 90.0]))


ALL = [
    pytest.param({"cheap": cheap, "space": draw}, id="cheap"),
    pytest.param({"space": draw}, id="dear"),
    pytest.param({}, id="learned"),
    pytest.param({"cheap": cheap}, id="learned-cheap"),
]
