"""The trials of one study in its storage: created, finished, found again after a crash.

Only the public interface of Optuna's storages is used. A trial is created with everything known
about it in one transaction, which keeps the cost of a trial at a few transactions however many
parameters it has.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import Any

import optuna
from optuna.exceptions import UpdateFinishedTrialError
from optuna.storages import BaseStorage
from optuna.trial import FrozenTrial, TrialState, create_trial

from parefront.search.entry import Entry, died
from parefront.search.known_trials import KnownTrials
from parefront.search.patience import Patience
from parefront.search.records import (
    RESULT_KEY,
    TRIAL_KEY,
    Outcome,
    Owner,
    Rung,
    Status,
    TrialRecord,
    outcome_of,
    record_of,
    state_of,
)

RUNG_KEY = "parefront:rung:{share}"
"""Attribute of what a trial was worth at a rung, written while it runs for others to see."""

_NO_RIVALS = (Status.FAILED, Status.STOPPED, Status.INTERRUPTED)
"""What failed is no measure for others; what was cut short is tried again, and counts then."""

_TWICE = Outcome(
    status=Status.STOPPED, reason="the storage made it twice, because its answer was lost"
)
"""Optuna repeats a transaction whose answer was lost, and the first may have been done."""


class Ledger:
    """The trials of one study.

    Args:
        study: The Optuna study.
        storage: The storage that holds it.
        objectives: Names of the objectives, in the order of the study's values.
        patience: How long to wait for a storage that does not answer.
    """

    def __init__(
        self,
        study: optuna.Study,
        storage: BaseStorage,
        objectives: Sequence[str],
        patience: Patience | None = None,
    ) -> None:
        self._trials = KnownTrials(study, storage)
        self._storage = storage
        self._patience = patience or Patience()
        self._made: dict[str, int] = {}
        self._numbers: dict[int, int] = {}
        self._id = storage.get_study_id_from_name(study.study_name)
        self._objectives = tuple(objectives)
        self._over: list[Entry] = []
        self._settled = 0
        self._entries: dict[int, Entry] = {}
        self._seen = 0

    def entries(self) -> list[Entry]:
        """All trials parefront made, in the order of their numbers.

        Raises:
            StorageError: If the storage fails.
        """
        trials = self._patience(self._trials.read)
        self._seen = len(trials)
        # In a long study nearly all trials are over: they are looked at once.
        while self._settled < len(trials) and trials[self._settled].state.is_finished():
            self._over += self._entry(trials[self._settled])
            self._entries.pop(trials[self._settled].number, None)
            self._settled += 1
        return [*self._over, *(e for t in trials[self._settled :] for e in self._entry(t))]

    def _entry(self, trial: FrozenTrial) -> list[Entry]:
        """The trial with its records; nothing if parefront did not make it."""
        if TRIAL_KEY not in trial.user_attrs:
            return []
        entry = self._entries.get(trial.number)
        if entry is None or entry.trial is not trial:
            entry = Entry(trial, record_of(trial), outcome_of(trial))
            self._entries[trial.number] = entry
        return [entry]

    def create(
        self,
        record: TrialRecord,
        parameters: Mapping[str, Any],
        distributions: Mapping[str, optuna.distributions.BaseDistribution],
        system_attrs: Mapping[str, Any],
    ) -> int:
        """Creates a running trial in one transaction.

        Returns:
            The storage's id of the trial.

        Raises:
            StorageError: If the storage fails.
        """
        template = create_trial(
            state=TrialState.RUNNING,
            params=dict(parameters),
            distributions=dict(distributions),
            user_attrs={TRIAL_KEY: record.model_dump(mode="json")},
            system_attrs=dict(system_attrs),
        )

        def made() -> int:
            return self._storage.create_new_trial(self._id, template)

        def found() -> int:
            numbers = [
                trial.number
                for trial in self._storage.get_all_trials(
                    self._id, deepcopy=False, states=(TrialState.RUNNING,)
                )
                if TRIAL_KEY in trial.user_attrs and record_of(trial).token == record.token
            ]
            if not numbers:
                return made()
            return self._trial_id(numbers[-1])

        trial_id = self._patience(made, again=found)
        self._made[record.token] = self._numbers[trial_id] = self._number(trial_id)
        return trial_id

    def number(self, trial_id: int) -> int:
        """The number of a trial within the study.

        Raises:
            StorageError: If the storage fails.
        """
        known = self._numbers.get(trial_id)
        return self._number(trial_id) if known is None else known

    def _number(self, trial_id: int) -> int:
        try:
            # The cache in front of a database knows this way round without a query.
            following = self._patience(lambda: self._trial_id(self._seen))
        except KeyError:
            following = None
        if following == trial_id:
            return self._seen
        return self._patience(lambda: self._storage.get_trial_number_from_id(trial_id))

    def _trial_id(self, number: int) -> int:
        return self._storage.get_trial_id_from_study_id_trial_number(self._id, number)

    def report(self, trial_id: int, rung: Rung) -> None:
        """Records what a running trial was worth at a rung, for trials of other processes to see.

        A trial that another launch ended, because it took this one for dead, is left as it is.

        Args:
            trial_id: The storage's id of the trial.
            rung: What it was worth, and whether it went on.

        Raises:
            StorageError: If the storage fails.
        """
        key = RUNG_KEY.format(share=rung.share)
        value = rung.model_dump(mode="json")
        try:
            with suppress(UpdateFinishedTrialError):
                self._patience(lambda: self._storage.set_trial_user_attr(trial_id, key, value))
        finally:
            self._trials.changed(trial_id)

    def rivals(self, share: float, except_number: int) -> list[Mapping[str, float]]:
        """What the trials that have reached a rung so far were worth there.

        Those under way count as well as those that are over, whatever became of them, save those
        that failed or will be tried again.

        Args:
            share: The rung.
            except_number: Number of the trial that asks.

        Returns:
            Values by objective name, one mapping a trial, in the order of the trials' numbers.

        Raises:
            StorageError: If the storage fails.
        """
        key = RUNG_KEY.format(share=share)
        return [
            entry.trial.user_attrs[key]["values"]
            for entry in self.entries()
            if key in entry.trial.user_attrs
            and entry.trial.number != except_number
            and entry.status not in _NO_RIVALS
        ]

    def finish(self, trial_id: int, outcome: Outcome) -> bool:
        """Records how a trial ended; the record comes first, so that it cannot be lost.

        Args:
            trial_id: The storage's id of the trial.
            outcome: How it ended.

        Returns:
            Whether it is recorded: not where the trial had been ended with another outcome, by a
            launch that took this one for dead.

        Raises:
            StorageError: If the storage fails.
        """
        state = state_of(outcome)
        values = None
        if state == TrialState.COMPLETE:
            values = [outcome.measurements[name].value for name in self._objectives]
        # Optuna names the attributes of constraints itself.
        constraints = create_trial(
            state=TrialState.FAIL, constraints=dict(outcome.violations)
        ).system_attrs
        attrs = outcome.model_dump(mode="json")

        def tell() -> None:
            self._storage.set_trial_user_attr(trial_id, RESULT_KEY, attrs)
            for key, value in constraints.items():
                self._storage.set_trial_system_attr(trial_id, key, value)
            self._storage.set_trial_state_values(trial_id, state, values)

        try:
            self._patience(tell)
        except UpdateFinishedTrialError:  # by another launch, or by us when the answer was lost
            return outcome_of(self._patience(lambda: self._storage.get_trial(trial_id))) == outcome
        finally:
            self._trials.changed(trial_id)
        return True

    def reclaim(
        self, entries: Sequence[Entry], alive: Callable[[Owner], bool] = Owner.alive
    ) -> list[int]:
        """Ends the trials whose processes died.

        A trial that was over but not told is told. Another is marked as interrupted, so that its
        candidate is tried again, or as failed when it has taken its process down before.

        Args:
            entries: All trials.
            alive: Whether a process still runs.

        Returns:
            Numbers of the trials that were ended.

        Raises:
            StorageError: If the storage fails.
        """
        running = [entry for entry in entries if entry.status == Status.RUNNING]
        lives = {owner: alive(owner) for owner in {entry.record.owner for entry in running}}
        ended = []
        for entry in running:
            number = entry.trial.number
            if self._made.get(entry.record.token, number) != number:
                outcome = _TWICE
            elif not lives[entry.record.owner]:
                outcome = entry.outcome or died(entry.record.deaths)
            else:
                continue
            trial_id = self._patience(lambda: self._trial_id(number))  # noqa: B023 - called here
            if self.finish(trial_id, outcome):
                ended.append(number)
        return ended

    def left_by(self, owner: Owner) -> list[Entry]:
        """The trials that a process left unfinished when it died.

        Raises:
            StorageError: If the storage fails.
        """
        return [
            entry
            for entry in self.entries()
            if entry.status == Status.RUNNING and entry.record.owner.same(owner)
        ]

    def finish_left(self, entry: Entry, outcome: Outcome) -> Outcome | None:
        """Ends a trial whose process died; if it was over and only not told, that is told.

        Returns:
            How it ended; `None` if another launch has ended it meanwhile.

        Raises:
            StorageError: If the storage fails.
        """
        told = entry.outcome or outcome
        trial_id = self._patience(lambda: self._trial_id(entry.trial.number))
        return told if self.finish(trial_id, told) else None
