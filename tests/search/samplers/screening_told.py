"""Studies that were told something, and how far off the sampler then is."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import optuna
from optuna.distributions import BaseDistribution
from optuna.trial import create_trial

from parefront.search.samplers import ScreeningSampler
from tests.search.samplers.screening_cases import draw, evaluate

Drawn = tuple[dict[str, Any], dict[str, BaseDistribution]]


def drawn(count: int, seed: int) -> list[Drawn]:
    """Random candidates."""
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed))
    found = []
    for _ in range(count):
        trial = study.ask()
        draw(trial)
        found.append((dict(trial.params), dict(trial.distributions)))
    return found


def told_study(sampler: ScreeningSampler, seed: int, complete: int) -> optuna.Study:
    study = optuna.create_study(directions=["minimize"] * 2, sampler=sampler)
    for params, distributions in drawn(complete, seed):
        study.add_trial(
            create_trial(params=params, distributions=distributions, values=evaluate(params))
        )
    return study


def wrongness(sampler: ScreeningSampler, study: optuna.Study) -> float:
    """Root mean square of how far expected errors are from true ones."""
    errors = []
    for params, distributions in drawn(40, 5000):
        expected = sampler.optimistic(study, params, distributions, 0.0)
        assert expected is not None
        errors.append(expected[0] - evaluate(params)[0])
    return float(np.sqrt(np.mean(np.square(errors))))


def compared(make: Callable[[int], float], other: Callable[[int], float], seeds: int) -> float:
    """Mean logarithm of a ratio over seeds, over its standard error."""
    ratios = [np.log(make(seed) / other(seed)) for seed in range(seeds)]
    return float(np.mean(ratios) / (np.std(ratios, ddof=1) / np.sqrt(seeds)))
