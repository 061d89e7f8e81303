"""The non-dominated sorting genetic algorithm II."""

from __future__ import annotations

import optuna

from parefront.search.samplers.joint import JointSpace
from parefront.search.samplers.kind import SamplerKind
from parefront.search.samplers.steady_state import SteadyState

POPULATION = 20
"""Parents to choose from: few, since studies are short and what came before them is random."""


class _NSGA2(JointSpace, SteadyState, optuna.samplers.NSGAIISampler):
    """Selects by rank and crowding distance, one child at a time."""


def nsga2(seed: int) -> optuna.samplers.BaseSampler:
    """Optuna's NSGA-II (Deb et al. 2002), in steady state.

    Args:
        seed: Seed of its random numbers.
    """
    return _NSGA2(population_size=POPULATION, seed=seed)


NSGA2 = SamplerKind(nsga2, most_trials=200)
