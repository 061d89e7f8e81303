"""A storage in memory that shows an Optuna sampler chosen trials, and nothing else."""

from __future__ import annotations

import copy
from collections.abc import Container, Sequence

from optuna.storages import InMemoryStorage
from optuna.trial import FrozenTrial, TrialState


class ShownTrials(InMemoryStorage):
    """Holds one trial that is being asked for, beside trials that it does not copy.

    Optuna's own storage copies every trial it is given, which for some hundred costs more than to
    draw from them.

    Args:
        shown: Trials that are over or under way. Their ids are not 0, that of the trial asked for.
        number: Number of the trial asked for.
    """

    def __init__(self, shown: Sequence[FrozenTrial], number: int) -> None:
        super().__init__()
        self._shown = shown
        self._number = number

    def get_trial(self, trial_id: int) -> FrozenTrial:
        """The trial asked for, with its number."""
        trial = copy.copy(super().get_trial(trial_id))
        trial.number = self._number
        return trial

    def get_all_trials(
        self,
        study_id: int,
        deepcopy: bool = True,
        states: Container[TrialState] | None = None,
    ) -> list[FrozenTrial]:
        """The trials shown, then the one asked for."""
        trials = [*self._shown, *super().get_all_trials(study_id, deepcopy=False)]
        chosen = [trial for trial in trials if states is None or trial.state in states]
        return copy.deepcopy(chosen) if deepcopy else chosen
