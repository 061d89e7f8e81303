"""Tree-structured Parzen estimator."""

from __future__ import annotations

import warnings

import optuna
from optuna.distributions import BaseDistribution
from optuna.trial import FrozenTrial, TrialState


class _JointTPE(optuna.samplers.TPESampler):
    """Models the parameters of the first trial jointly, which every other trial must have too.

    Optuna would intersect the parameters of all trials anew for each sampler, which at 200 trials
    costs as much as the draw itself.
    """

    def infer_relative_search_space(
        self,
        study: optuna.Study,
        trial: FrozenTrial,  # noqa: ARG002
    ) -> dict[str, BaseDistribution]:
        """The parameters to draw together, sorted by name."""
        over = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE, TrialState.PRUNED))
        shared = over[0].distributions if over else {}
        return {name: shared[name] for name in sorted(shared) if not shared[name].single()}


def tpe(seed: int) -> optuna.samplers.BaseSampler:
    """Optuna's multi-objective, multivariate TPE.

    The parameters that all trials share are modelled jointly, others on their own (Falkner et al.
    2018; Ozaki et al. 2022 for several objectives).

    Args:
        seed: Seed of its random numbers.
    """
    with warnings.catch_warnings():
        # Joint modelling is marked experimental for its interface, not for what it does.
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        # The study it sees holds no running trials, for which a constant liar would stand in.
        return _JointTPE(seed=seed, multivariate=True, n_startup_trials=12, constant_liar=False)
