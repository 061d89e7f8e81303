"""The non-dominated sorting genetic algorithm III, for many objectives."""

from __future__ import annotations

import warnings

import optuna

from parefront.search.samplers.joint import JointSpace
from parefront.search.samplers.kind import SamplerKind
from parefront.search.samplers.nsga2 import POPULATION
from parefront.search.samplers.steady_state import SteadyState


class _NSGA3(JointSpace, SteadyState, optuna.samplers.NSGAIIISampler):
    """Selects by rank and by reference directions, one child at a time."""


def nsga3(seed: int) -> optuna.samplers.BaseSampler:
    """Optuna's NSGA-III (Deb and Jain 2014), in steady state.

    Args:
        seed: Seed of its random numbers.
    """
    with warnings.catch_warnings():
        # Marked experimental for its interface, not for what it does.
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        return _NSGA3(population_size=POPULATION, seed=seed)


NSGA3 = SamplerKind(nsga3, most_trials=200)
