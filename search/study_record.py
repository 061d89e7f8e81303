"""What a study is, as its storage keeps it, and whether a launch still means the same."""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from typing import Any

import optuna
from pydantic import BaseModel, ConfigDict

from parefront.errors import StorageVersionError, StudyFileError
from parefront.objectives.measurement import Direction
from parefront.search.records import FORMAT
from parefront.search.study_file import StudyFile

STUDY_KEY = "parefront"
BASELINE_KEY = "parefront:baseline"


class StudyRecord(BaseModel):
    """Written when a study is created.

    Attributes:
        format: Version of what parefront writes.
        id: Random id, which tells apart two studies of one name in two storages.
        settings: The study file.
        task_base: Folder against which the task's path is resolved; `None` when the task was
            given as an object.
        data_digest: Hash of the task's splits.
        metric: Name of the metric.
        metric_direction: Which values of the metric are better.
        left_out: Why a stage is not in the space, by name.
        created_with: Version of parefront.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    format: int = FORMAT
    id: str
    settings: StudyFile
    task_base: str | None
    data_digest: str
    metric: str
    metric_direction: Direction
    left_out: Mapping[str, str]
    created_with: str

    @staticmethod
    def new_id() -> str:
        """A fresh id."""
        return uuid.uuid4().hex


class BaselineRecord(BaseModel):
    """Written when the baseline of a study has been built and calibrated.

    Attributes:
        artifact_sha256: Hash of the baseline's artifact in the store.
        reference_ms: Its calibrated latency in milliseconds.
        fingerprint: The device and its runtime.
        fingerprint_id: Short hash of the fingerprint.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    artifact_sha256: str
    reference_ms: float
    fingerprint: Mapping[str, Any]
    fingerprint_id: str


def study_record(study: optuna.Study) -> StudyRecord | None:
    """The record of a study; `None` for one that parefront did not make.

    Raises:
        StorageVersionError: If another version wrote it.
    """
    attrs = study.user_attrs.get(STUDY_KEY)
    if attrs is None:
        return None
    found = attrs.get("format")
    if found != FORMAT:
        raise StorageVersionError(
            f"study '{study.study_name}' was written in format {found} by parefront "
            f"{attrs.get('created_with', 'of unknown version')}, this version reads format "
            f"{FORMAT}; use that version, or begin a new study in another storage"
        )
    return StudyRecord.model_validate(attrs)


def check_same(name: str, recorded: StudyFile, given: StudyFile) -> None:
    """Checks that a launch means the study that is there; budgets may differ.

    Raises:
        StudyFileError: Naming what differs.
    """
    before, now = _comparable(recorded), _comparable(given)
    differs = [key for key in before if before[key] != now[key]]
    if differs:
        key = differs[0]
        raise StudyFileError(
            f"study '{name}' is in the storage with other settings: {key} was "
            f"{before[key]!r} and is now {now[key]!r}; put it back to go on, "
            "or give the new study another name"
        )


def _comparable(settings: StudyFile) -> dict[str, object]:
    found = settings.model_dump(mode="json")
    study = found.pop("study")
    return {
        "[study] task": study["task"],
        "[study] seed": study["seed"],
        "[study] sampler": study["sampler"],
        **{f"[{section}]": value for section, value in found.items()},
    }
