"""A study as it is in its storage: its trials as a frame, its front, and what is made of them."""

from __future__ import annotations

from datetime import datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any, Self, get_args

import pandas as pd

from parefront.errors import TaskError, UsageError
from parefront.objectives.objective import Bound
from parefront.search.budget import Budget
from parefront.search.export import export
from parefront.search.files import StudyFiles
from parefront.search.finals import finals_frame
from parefront.search.frame import Which, front_rows, trials_frame
from parefront.search.loading import load_task
from parefront.search.opened import OpenedStudy, measures_of
from parefront.search.picks import pick
from parefront.search.storage import url_of
from parefront.search.store import ArtifactStore
from parefront.search.study_file import StudyFile
from parefront.search.study_record import StudyRecord
from parefront.search.summary import ObjectiveSummary, Summary
from parefront.search.task import Task

OBJECT = "(a Python object)"
"""Stands for the name of a task that was passed as a Python object."""
_LIBRARIES = ("parefront", "torch", "onnx", "onnxruntime", "optuna", "torch-pruning", "numpy")


class StoredStudy:
    """What can be read of a study, whether or not it is searched on.

    Attributes:
        settings: The settings.
        storage: URL of its Optuna storage.
    """

    settings: StudyFile
    storage: str

    @classmethod
    def of(
        cls,
        settings: StudyFile,
        task: Task | None,
        base: Path | None,
        storage: str | None,
        opened: OpenedStudy | None = None,
    ) -> Self:
        """The study of some settings.

        Args:
            settings: The settings.
            task: The task if it is a Python object.
            base: Folder against which the task's file is resolved.
            storage: Optuna storage URL; the SQLite file under `.parefront/` by default.
            opened: The study in its storage, if it is open already.
        """
        study = cls.__new__(cls)
        study._set(settings, task, base, storage)
        study._opened = opened
        return study

    def _set(
        self, settings: StudyFile, task: Task | None, base: Path | None, storage: str | None
    ) -> None:
        self.settings = settings
        self.storage = url_of(storage)
        self._task = task
        self._base = base
        self._opened: OpenedStudy | None = None

    @property
    def name(self) -> str:
        """Name of the study in its storage."""
        return self.settings.study.name

    @property
    def store(self) -> ArtifactStore:
        """Where the artifacts of the study are."""
        return StudyFiles.of(self.settings, self.storage).artifacts()

    def task(self) -> Task:
        """The task, imported if it was named.

        Raises:
            TaskError: If it cannot be imported, or was given as an object in another program.
        """
        if self._task is not None:
            return self._task
        if self._base is None or self.settings.study.task == OBJECT:
            raise TaskError(
                f"the task of study '{self.name}' was given as a Python object, which only the "
                "program that made it has; go on there, or name the task as path/to/file.py:name"
            )
        return load_task(self.settings.study.task, self._base)

    def budget(self, trials: int | None = None, time: float | None = None) -> Budget:
        """What the study may spend, with limits that take the place of its own."""
        return Budget(
            trials if trials is not None else self.settings.study.trials,
            time if time is not None else self.settings.study.time,
        )

    def frame(self) -> pd.DataFrame:
        """One row a trial; see `parefront.search.frame.trials_frame` for the columns.

        Raises:
            StudyNotFoundError: If the study was never launched.
        """
        opened = self.opened()
        return trials_frame(opened.entries(), summaries(opened.record))

    def front(self, target: str | None = None, which: Which = "on") -> pd.DataFrame:
        """The rows of `frame` that nothing beats on a target, best accuracy first.

        Args:
            target: Name of a further target, `None` for the main one.
            which: `"on"` for what no other beats beyond the intervals, `"certain"` for what of that
                has a probability of at least 0.95 that nothing beats it, `"possible"` for that and
                whatever has one of at least 0.05.

        Raises:
            UsageError: If the study has no such target, or there is no such part of a front.
        """
        if which not in get_args(Which):
            raise UsageError(
                f"expected one of {', '.join(get_args(Which))} for the part of the front, "
                f"got '{which}'"
            )
        known = self.opened().record.settings.targets
        if target is not None and target not in known:
            raise UsageError(
                f"study '{self.name}' has no further target '{target}'; it has "
                f"{', '.join(known) or 'none'}"
            )
        frame = self.frame()
        end = f"_{target}" if target else ""
        ascending = not self.summary().accuracy.maximize
        return frame[front_rows(frame, which, target)].sort_values(
            ["accuracy", f"latency_ms{end}"], ascending=[ascending, True], ignore_index=True
        )

    def finals(self) -> pd.DataFrame:
        """The finalists on further runtimes; see `parefront.search.finals.finals_frame`."""
        return finals_frame(self.opened())

    def pick(self, wanted: str, target: str | None = None) -> pd.Series[Any]:
        """One row of a front.

        Args:
            wanted: `"knee"`, weights such as `"accuracy=3 latency=1"`, bounds such as
                `"latency_ms<=0.5 and size_kb<=200"`, or one of the first two with bounds, joined
                by `and`; see `parefront.search.picks.pick`.
            target: Name of the further target whose front it is, `None` for the main one.

        Raises:
            PickError: If nothing matches.
        """
        return pick(self.front(target), wanted, summaries(self.opened().record), target)

    def export(self, trial: int, directory: str | Path) -> Path:
        """Writes the bundle of a trial; see `parefront.search.export.export`.

        Args:
            trial: Number of a trial that was measured.
            directory: New or empty folder.

        Returns:
            The folder.

        Raises:
            BundleError: If the artifact is not what was measured.
        """
        return export(self, trial, Path(directory))

    def summary(self) -> Summary:
        """The study without its trials."""
        opened = self.opened()
        record, baseline = opened.record, opened.baseline
        measured = [entry for entry in opened.ledger.entries() if entry.is_baseline]
        return Summary(
            study=self.name,
            objectives=summaries(record),
            targets=tuple(record.settings.targets),
            baseline=measured[0].trial.number if measured else None,
            seed=record.settings.study.seed,
            budget=str(self.budget()),
            protocol=record.settings.target.describe(),
            fingerprint=baseline.fingerprint if baseline else {},
            versions={library: version(library) for library in _LIBRARIES},
            stages_left_out=record.left_out,
            generated=datetime.now().astimezone(),
        )

    def opened(self) -> OpenedStudy:
        """The study in its storage.

        Raises:
            StudyNotFoundError: If the study was never launched.
        """
        if self._opened is None:
            self._opened = OpenedStudy.find(self.name, self.storage)
        return self._opened


def summaries(record: StudyRecord) -> tuple[ObjectiveSummary, ...]:
    """How to read the columns of a study."""
    return tuple(
        ObjectiveSummary(
            name=measure.name,
            column=measure.column,
            unit=measure.objective.unit,
            direction=measure.direction(record.metric_direction),
            label=record.metric if measure.name == "accuracy" else measure.name.replace("_", " "),
            bound=Bound(at_least=measure.goal.at_least, at_most=measure.goal.at_most),
            optimized=measure.goal.optimize,
            log=measure.objective.log,
            target=measure.target,
            on_device=measure.objective.on_device,
        )
        for measure in measures_of(record)
    )
