"""What a worker is told once, so that it can evaluate candidates of a study."""

from __future__ import annotations

import io
import os
import secrets
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path

import cloudpickle
import torch

from parefront.errors import EngineError, UsageError
from parefront.objectives.targets.device import Device
from parefront.search.attended import AttendedDevice
from parefront.search.builder import Builder
from parefront.search.files import StudyFiles
from parefront.search.launch import Stop
from parefront.search.opened import OpenedStudy
from parefront.search.pipeline import Pipeline
from parefront.search.plan import Plan
from parefront.search.preparation import pipeline_of
from parefront.search.storage import without_secrets
from parefront.search.stored_study import StoredStudy
from parefront.search.study_file import StudyFile
from parefront.search.study_record import BaselineRecord, StudyRecord
from parefront.search.task import prepare
from parefront.spaces.space import Space


@dataclass(frozen=True, kw_only=True)
class Mark:
    """A file by which a worker knows that it sees the folder which the launch sees.

    Attributes:
        path: The file.
        content: What is in it.
    """

    path: Path
    content: str

    @classmethod
    @contextmanager
    def set_in(cls, folder: Path) -> Iterator[Mark]:
        """A mark in a folder; gone afterwards.

        Raises:
            EngineError: If it cannot be written.
        """
        content = secrets.token_hex(16)
        mark = cls(path=folder.absolute() / f".mark-{content[:8]}", content=content)
        try:
            folder.mkdir(parents=True, exist_ok=True)
            mark.path.write_text(content)
        except OSError as error:
            raise EngineError(f"cannot write to {folder}: {error}") from error
        try:
            yield mark
        finally:
            with suppress(OSError):
                mark.path.unlink()

    def check(self) -> None:
        """Looks for it.

        Raises:
            EngineError: If it is not there.
        """
        try:
            found = self.path.read_text()
        except OSError:
            found = ""
        if found != self.content:
            raise EngineError(
                f"the workers on {os.uname().nodename} do not see {self.path.parent}; name a "
                "folder that all machines share, or a store such as s3://bucket/folder, as "
                "[study] files"
            )


@dataclass(frozen=True, kw_only=True)
class Job:
    """A study as a worker needs it; it is told to others by `packed`.

    Attributes:
        plan: The launch, without what only opens storages.
        record: What was written when the study was created, likewise.
        baseline: What was written when its baseline had been calibrated.
        space: The space of its candidates.
        key: What the baseline, the data and the versions are, for the cache of stages.
        caches: Whether what stages make is kept.
        weights: The trained baseline's.
        devices: Where artifacts are measured, by target.
        folder: Working folder of the launch.
        mark: Tells whether the worker sees the study's files, if they are in a folder.
        version: Of parefront.
    """

    plan: Plan
    record: StudyRecord
    baseline: BaselineRecord
    space: Space
    key: str
    caches: bool
    weights: bytes
    devices: Mapping[str | None, Device]
    folder: Path
    mark: Mark | None
    version: str

    @classmethod
    def of(
        cls, plan: Plan, pipeline: Pipeline, devices: Mapping[str | None, Device], mark: Mark | None
    ) -> Job:
        """The job of a launch whose pipeline is prepared.

        Raises:
            EngineError: If the study lost its baseline.
        """
        opened = OpenedStudy.find(plan.settings.study.name, plan.url)
        if opened.baseline is None:
            raise EngineError("the study has no baseline any more; give it another name")
        builder, weights = pipeline.builder, io.BytesIO()
        torch.save(builder.module.state_dict(), weights)
        return cls(
            plan=_plain(plan),
            record=opened.record.model_copy(update={"settings": _own(opened.record.settings)}),
            baseline=opened.baseline,
            space=builder.space,
            key=builder.key,
            caches=builder.cache is not None,
            weights=weights.getvalue(),
            devices=devices,
            folder=Path.cwd(),
            mark=mark,
            version=version("parefront"),
        )

    def packed(self) -> bytes:
        """The job as bytes; what is not in a module of its own goes by value.

        Raises:
            UsageError: If the task cannot be told to another process.
        """
        try:
            packed: bytes = cloudpickle.dumps(self)
            return packed
        except Exception as error:  # whatever a user's object raises
            raise UsageError(
                f"the task cannot be told to the workers ({error}); name it as "
                "path/to/file.py:name, or run the study with the engine 'inline'"
            ) from error

    @staticmethod
    def unpacked(content: bytes) -> Job:
        """The job of `packed`, of a launch that this worker serves."""
        job: Job = cloudpickle.loads(content)
        return job

    def pipeline(self, stop: Stop) -> Pipeline:
        """Makes the pipeline, in the worker.

        Args:
            stop: Shown that preparing and measurements go on.

        Raises:
            EngineError: If this machine is not prepared as the launch's.
            ParefrontError: If the task cannot be read here.
        """
        if version("parefront") != self.version:
            raise EngineError(
                f"{os.uname().nodename} has parefront {version('parefront')}, the launch "
                f"{self.version}; install the same on all machines"
            )
        if self.folder.is_dir():
            os.chdir(self.folder)  # files are named relative to it
        if self.mark is not None:
            self.mark.check()
        plan = self.plan
        files = StudyFiles.of(plan.settings, plan.url)
        study = StoredStudy.of(plan.settings, plan.task, plan.base, plan.url)
        source = study.task()
        stop.attend()
        task = prepare(source, seed=plan.settings.study.seed)
        stop.attend()
        if task.digest() != self.record.data_digest:
            raise EngineError(
                f"the data of the task are others on {os.uname().nodename} than those the study "
                "began with; put the same data on all machines"
            )
        task.baseline.load_state_dict(torch.load(io.BytesIO(self.weights), weights_only=True))
        builder = Builder(
            task=task,
            module=task.baseline.eval(),
            space=self.space,
            target=plan.settings.target,
            seed=plan.settings.study.seed,
            cache=files.cache(plan.settings.study.cache_mb) if self.caches else None,
            key=self.key,
        )
        devices = {name: AttendedDevice(each, stop) for name, each in self.devices.items()}
        return pipeline_of(self.record, self.baseline, builder, files.artifacts(), devices)


def _plain(plan: Plan) -> Plan:
    """The launch without passwords of storages, which workers do not open."""
    return replace(plan, url=without_secrets(plan.url), settings=_own(plan.settings))


def _own(settings: StudyFile) -> StudyFile:
    """The settings without the storages of earlier studies."""
    study = settings.study.model_copy(update={"warm_start": ()})
    return settings.model_copy(update={"study": study})
