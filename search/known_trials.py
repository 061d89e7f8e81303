"""The trials of a study as one process knows them, who reads again only what may have changed."""

from __future__ import annotations

import time
from collections.abc import Callable

import optuna
from optuna.storages import BaseStorage
from optuna.trial import FrozenTrial

_FEW = 16
"""Trials under way up to which all of them are read each time, which takes a few milliseconds."""
_PAUSE = 30.0
"""So many times as long as it takes to read more than those, they are not read again."""


class KnownTrials:
    """Reads the trials of a study from its storage.

    Storages read every trial that is under way each time, with all its parameters and attributes:
    about a millisecond a trial, so a second for a thousand workers, for each of the few questions
    that every trial asks. Where many are under way, only what this process changed is therefore
    read at once, and what others began, which must be known so that nobody chooses the same. How
    the trials of others go on is read now and then, such that it takes a thirtieth of the time;
    who learns that a little later only proposes with a little less knowledge.

    Args:
        study: The study.
        storage: The storage that holds it.
        now: A clock.
    """

    def __init__(
        self,
        study: optuna.Study,
        storage: BaseStorage,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        self._study, self._storage, self._now = study, storage, now
        self._id = storage.get_study_id_from_name(study.study_name)
        self._trials: list[FrozenTrial] = []
        self._settled = 0
        self._changed: set[int] = set()
        self._read, self._took = 0.0, 0.0

    def changed(self, trial_id: int) -> None:
        """Notes that this process changed a trial.

        Args:
            trial_id: The storage's id of the trial.
        """
        self._changed.add(trial_id)

    def read(self) -> list[FrozenTrial]:
        """All trials, in the order of their numbers; not to be changed."""
        while self._settled < len(self._trials) and self._trials[self._settled].state.is_finished():
            self._settled += 1
        running = sum(not trial.state.is_finished() for trial in self._trials[self._settled :])
        if running <= _FEW or self._now() - self._read >= _PAUSE * self._took:
            self._read_all()
        else:
            self._read_changed()
        return self._trials

    def _read_all(self) -> None:
        start = self._now()
        self._trials = self._study.get_trials(deepcopy=False)
        self._changed.clear()
        self._read = self._now()
        self._took = self._read - start

    def _read_changed(self) -> None:
        for trial_id in sorted(self._changed):
            trial = self._storage.get_trial(trial_id)
            if trial.number < len(self._trials):  # others are found below
                self._trials[trial.number] = trial
            self._changed.discard(trial_id)
        while True:
            try:
                following = self._storage.get_trial_id_from_study_id_trial_number(
                    self._id, len(self._trials)
                )
            except KeyError:
                break
            self._trials.append(self._storage.get_trial(following))
