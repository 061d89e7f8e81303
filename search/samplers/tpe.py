"""Tree-structured Parzen estimator."""

from __future__ import annotations

import warnings

import optuna


def tpe(seed: int) -> optuna.samplers.BaseSampler:
    """Optuna's multi-objective, multivariate TPE.

    Parameters are modelled jointly in groups that occur together, which is what conditional
    spaces have (Falkner et al. 2018; Ozaki et al. 2022 for several objectives).

    Args:
        seed: Seed of its random numbers.
    """
    with warnings.catch_warnings():
        # Joint modelling is marked experimental for its interface, not for what it does.
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        return optuna.samplers.TPESampler(
            seed=seed, multivariate=True, group=True, n_startup_trials=12
        )
