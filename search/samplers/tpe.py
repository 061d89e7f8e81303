"""Tree-structured Parzen estimator."""

from __future__ import annotations

import warnings

import optuna

from parefront.search.samplers.joint import JointSpace
from parefront.search.samplers.kind import SamplerKind


class _JointTPE(JointSpace, optuna.samplers.TPESampler):
    """Models the parameters that all trials share jointly."""


def tpe(seed: int) -> optuna.samplers.BaseSampler:
    """Optuna's multi-objective, multivariate TPE.

    The parameters that all trials share are modelled jointly, others on their own (Falkner et al.
    2018; Ozaki et al. 2022 for several objectives). Trials that run count as bad ones, so that
    others do not gather around them.

    Args:
        seed: Seed of its random numbers.
    """
    with warnings.catch_warnings():
        # Joint modelling is marked experimental for its interface, not for what it does.
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        return _JointTPE(seed=seed, multivariate=True, n_startup_trials=12, constant_liar=True)


TPE = SamplerKind(tpe, most_trials=200)
