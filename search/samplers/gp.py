"""Bayesian optimisation with Gaussian processes, all objectives taken as dear."""

from __future__ import annotations

from importlib.util import find_spec

import optuna

from parefront.errors import UsageError
from parefront.search.samplers.joint import JointSpace
from parefront.search.samplers.kind import SamplerKind


class _GP(JointSpace, optuna.samplers.GPSampler):
    """Models what all trials share."""


def gp(seed: int) -> optuna.samplers.BaseSampler:
    """Optuna's Gaussian process sampler: log expected hypervolume improvement.

    Args:
        seed: Seed of its random numbers.

    Raises:
        UsageError: If SciPy, which it needs, is not installed.
    """
    if find_spec("scipy") is None:
        raise UsageError(
            "sampler 'gp' needs SciPy, which is not installed; pip install 'parefront[gp]', or "
            "take sampler 'screening'"
        )
    return _GP(seed=seed, warn_independent_sampling=False)


GP = SamplerKind(gp, most_trials=60)
