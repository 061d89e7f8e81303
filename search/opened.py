"""A study as it is in its storage."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import optuna

from parefront.errors import StorageError, StudyFileError, StudyNotFoundError
from parefront.objectives.measurement import Direction, Measurement
from parefront.search.entry import Entry
from parefront.search.guide import optuna_directions
from parefront.search.ledger import Ledger
from parefront.search.measures import Measure, measures
from parefront.search.patience import Patience
from parefront.search.storage import open_storage, shown, shown_study
from parefront.search.study_file import StudyFile
from parefront.search.study_record import (
    AGAIN_KEY,
    BASELINE_KEY,
    STUDY_KEY,
    BaselineRecord,
    StudyRecord,
    check_same,
    study_record,
)
from parefront.search.task import PreparedTask
from parefront.spaces.stage import TargetTraits


@dataclass(frozen=True)
class OpenedStudy:
    """A study in an open storage.

    Attributes:
        record: What was written when it was created.
        ledger: Its trials.
        optuna_study: The study as Optuna knows it.
        patience: How long to wait for a storage that does not answer.
    """

    record: StudyRecord
    ledger: Ledger
    optuna_study: optuna.Study
    patience: Patience = field(default_factory=Patience)

    @classmethod
    def find(cls, name: str, url: str) -> OpenedStudy:
        """Opens a study that is there.

        Raises:
            StudyNotFoundError: If there is none of that name.
            StorageError: If the storage cannot be opened.
        """
        storage = open_storage(url, create=False)

        def load() -> optuna.Study | None:
            try:
                return optuna.load_study(study_name=name, storage=storage)
            except KeyError:
                return None

        patience = Patience()
        study = patience(load)
        record = patience(lambda: study_record(study)) if study is not None else None
        if study is None or record is None:
            known = ", ".join(study_names(url)) or "none"
            raise StudyNotFoundError(
                f"there is no study '{name}' in {shown(url)}; there are: {known}"
            )
        return cls(record, Ledger(study, storage, list(directions(record))), study)

    @classmethod
    def begin(
        cls,
        settings: StudyFile,
        url: str,
        task: PreparedTask,
        *,
        task_base: str | None,
        left_out: dict[str, str],
        traits: TargetTraits,
        patience: Patience | None = None,
    ) -> OpenedStudy:
        """Creates a study, or takes up the one that is there.

        Args:
            settings: The settings of the study.
            url: Its storage.
            task: The task.
            task_base: Folder against which the task's path is resolved, if it has one.
            left_out: Why a stage is not in the space, by name.
            traits: What the stages know of the target.
            patience: How long to wait for a storage that does not answer, once it is open.

        Raises:
            StudyFileError: If the study that is there was made with other settings or data.
            StorageError: If the storage fails, or the study there is not one of parefront's.
        """
        name = settings.study.name
        digest = task.digest()
        record = StudyRecord(
            id=StudyRecord.new_id(),
            settings=_without_passwords(settings),
            task_base=task_base,
            data_digest=digest,
            metric=task.metric.name,
            metric_direction=task.metric.direction,
            left_out=left_out,
            channel_multiple=traits.channel_multiple,
            saturates=traits.saturates,
            created_with=version("parefront"),
        )
        storage, patience = open_storage(url), patience or Patience()

        def create() -> tuple[optuna.Study, StudyRecord]:
            study = optuna.create_study(
                study_name=name,
                storage=storage,
                directions=optuna_directions(list(directions(record).values())),
                load_if_exists=True,
            )
            found = study_record(study)
            if found is None:
                if study.get_trials(deepcopy=False):
                    raise StorageError(
                        f"the storage {shown(url)} has an Optuna study '{name}' that parefront "
                        "did not make; choose another name"
                    )
                study.set_user_attr(STUDY_KEY, record.model_dump(mode="json"))
                found = record
            return study, found

        study, found = patience(create)
        check_same(name, found.settings, settings)
        if found.data_digest != digest:
            raise StudyFileError(
                f"the data of the task changed since study '{name}' began, so its trials no longer "
                "compare; put the data back or give the study another name"
            )
        ledger = Ledger(study, storage, list(directions(found)), patience)
        return cls(found, ledger, study, patience)

    @property
    def facts(self) -> Mapping[str, Any]:
        """What is written about the study as a whole, by key.

        Raises:
            StorageError: If the storage fails.
        """
        return self.patience(lambda: self.optuna_study.user_attrs)

    @property
    def baseline(self) -> BaselineRecord | None:
        """The calibrated baseline, once there is one."""
        attrs = self.facts.get(BASELINE_KEY)
        return None if attrs is None else BaselineRecord.model_validate(attrs)

    @property
    def measured_again(self) -> dict[int, dict[str, Measurement]]:
        """What was measured again after the search, by trial and objective."""
        return {
            int(key.removeprefix(AGAIN_KEY)): {
                name: Measurement.model_validate(value) for name, value in found.items()
            }
            for key, found in self.facts.items()
            if key.startswith(AGAIN_KEY)
        }

    def keep_again(self, trial: int, found: Mapping[str, Measurement]) -> None:
        """Writes what was measured again of a trial."""
        self.keep(
            f"{AGAIN_KEY}{trial}",
            {name: measurement.model_dump(mode="json") for name, measurement in found.items()},
        )

    def entries(self) -> list[Entry]:
        """All trials, each with the newest measurements.

        Raises:
            StorageError: If the storage fails.
        """
        again = self.measured_again
        goals = {measure.name: measure.goal for measure in measures_of(self.record)}
        entries = []
        for entry in self.ledger.entries():
            found = again.get(entry.trial.number)
            if found and entry.outcome is not None:
                measured = {**entry.outcome.measurements, **found}
                outcome = entry.outcome.model_copy(
                    update={
                        "measurements": measured,
                        "violations": {
                            name: goals[name].violation(measured[name].value)
                            for name in entry.outcome.violations
                        },
                    }
                )
                entry = replace(entry, outcome=outcome)
            entries.append(entry)
        return entries

    def keep_baseline(self, record: BaselineRecord) -> None:
        """Writes the calibrated baseline."""
        self.keep(BASELINE_KEY, record.model_dump(mode="json"))

    def keep(self, key: str, value: object) -> None:
        """Writes a JSON-able fact about the study.

        Raises:
            StorageError: If the storage fails.
        """
        self.patience(lambda: self.optuna_study.set_user_attr(key, value))


def _without_passwords(settings: StudyFile) -> StudyFile:
    names = tuple(shown_study(name) for name in settings.study.warm_start)
    study = settings.study.model_copy(update={"warm_start": names})
    return settings.model_copy(update={"study": study})


def measures_of(record: StudyRecord) -> tuple[Measure, ...]:
    """What a study measures."""
    base = Path(record.task_base) if record.task_base else None
    return measures(record.settings.objectives, list(record.settings.targets), base)


def directions(record: StudyRecord) -> dict[str, Direction]:
    """Directions of the objectives that a study optimises, by name, in their common order."""
    return {
        measure.name: measure.direction(record.metric_direction)
        for measure in measures_of(record)
        if measure.goal.optimize
    }


def study_names(url: str) -> list[str]:
    """Names of parefront's studies in a storage, oldest first.

    Raises:
        StorageError: If the storage cannot be opened.
    """
    storage = open_storage(url, create=False)
    summaries = Patience()(
        lambda: optuna.get_all_study_summaries(storage, include_best_trial=False)
    )
    return [summary.study_name for summary in summaries if STUDY_KEY in summary.user_attrs]
