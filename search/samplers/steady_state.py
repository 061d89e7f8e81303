"""Genetic algorithms without generations."""

from __future__ import annotations

import optuna
from optuna.trial import FrozenTrial, TrialState


class SteadyState(optuna.samplers.BaseGASampler):
    """Selects the parents of each child from all trials so far (Durillo et al. 2009).

    Optuna's genetic algorithms breed from a generation when it is full, and count only the trials
    that they drew themselves. Here the parents of a child are the best of all trials that are
    complete: what the study began with takes part, a trial that failed leaves no gap, several
    trials at a time need no barrier, and what is drawn follows from the trials alone.

    Until there are as many complete trials as a population has members, children are random.
    """

    def get_trial_generation(
        self,
        study: optuna.Study,
        trial: FrozenTrial,  # noqa: ARG002
    ) -> int:
        """0 while there are too few trials to select from, then 1."""
        return int(len(self.get_population(study, 0)) >= (self.population_size or 0))

    def get_population(
        self,
        study: optuna.Study,
        generation: int,  # noqa: ARG002
    ) -> list[FrozenTrial]:
        """All complete trials."""
        return study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))

    def get_parent_population(self, study: optuna.Study, generation: int) -> list[FrozenTrial]:
        """The best of all trials; none before there are enough."""
        return self.select_parent(study, generation) if generation else []
