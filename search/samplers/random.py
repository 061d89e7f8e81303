"""Independent uniform sampling: the yardstick for all others."""

from __future__ import annotations

import optuna

from parefront.search.samplers.kind import SamplerKind


def random(seed: int) -> optuna.samplers.BaseSampler:
    """Optuna's random sampler.

    Args:
        seed: Seed of its random numbers.
    """
    return optuna.samplers.RandomSampler(seed=seed)


RANDOM = SamplerKind(random, most_trials=0)
