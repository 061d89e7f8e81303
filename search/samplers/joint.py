"""Drawing together what all trials share."""

from __future__ import annotations

import optuna
from optuna.distributions import BaseDistribution
from optuna.trial import FrozenTrial, TrialState


class JointSpace(optuna.samplers.BaseSampler):
    """Draws the parameters together that every trial with a result has.

    Optuna compares the distributions of all trials and copies them for each draw, which at 200
    trials costs as much as the draw itself. In a study of parefront a name has one distribution.
    """

    def infer_relative_search_space(
        self,
        study: optuna.Study,
        trial: FrozenTrial,  # noqa: ARG002
    ) -> dict[str, BaseDistribution]:
        """The parameters to draw together, sorted by name."""
        over = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE, TrialState.PRUNED))
        if not over:
            return {}
        names = set(over[0].distributions).intersection(*(each.distributions for each in over))
        shared = {name: over[0].distributions[name] for name in sorted(names)}
        return {name: each for name, each in shared.items() if not each.single()}
