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
AGAIN_KEY = "parefront:again:"
"""Followed by a trial's number."""
SAMPLER_KEY = "parefront:sampler"
WARM_KEY = "parefront:warm"
SENSITIVITY_KEY = "parefront:sensitivity"
FINAL_KEY = "parefront:final:"
"""Followed by a runtime, and for a candidate by its trial's number."""


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
        channel_multiple: What widths are rounded to, as the devices' profiles said.
        saturates: Whether a device needs weights of 7 bits in products of integers.
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
    channel_multiple: int
    saturates: bool
    created_with: str

    @staticmethod
    def new_id() -> str:
        """A fresh id."""
        return uuid.uuid4().hex


class Calibration(BaseModel):
    """What measurements on one target are taken against.

    Attributes:
        reference_ms: Calibrated latency of the baseline in milliseconds.
        throughput_ms: Its calibrated latency on a batch of the size throughput is measured at; 0
            where throughput is not measured.
        fingerprint: The device and its runtime.
        fingerprint_id: Short hash of the fingerprint.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    reference_ms: float
    throughput_ms: float
    fingerprint: Mapping[str, Any]
    fingerprint_id: str


class BaselineRecord(Calibration):
    """Written when the baseline of a study has been built and calibrated.

    Attributes:
        artifact_sha256: Hash of the baseline's artifact in the store.
        key: What the making of every candidate depends on; empty where some of it cannot be told.
        further: Calibrations on the further targets, by name.
    """

    artifact_sha256: str
    key: str = ""
    further: Mapping[str, Calibration] = {}

    def on(self, target: str | None) -> Calibration:
        """The calibration on a target, `None` for the main one."""
        return self if target is None else self.further[target]


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
    found["target"].pop("finalists")  # they come after the search, at any time
    found.pop("engine")
    found.pop("start")  # a further candidate of the user's is welcome at any time too
    return {
        "[study] task": study["task"],
        "[study] seed": study["seed"],
        **{f"[study] {key}": study[key] for key in ("sampler", "sensitivity", "files")},
        **{f"[{section}]": value for section, value in found.items()},
    }
