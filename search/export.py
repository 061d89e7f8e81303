"""Exporting a candidate as a bundle that runs, and proves itself, without parefront."""

from __future__ import annotations

import errno
import platform
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from parefront.errors import BundleError, StudyFileError, UsageError
from parefront.objectives.accuracy import Accuracy
from parefront.objectives.artifact import Artifact
from parefront.objectives.measurement import Measurement
from parefront.objectives.targets.catalog import runtime
from parefront.search.bundle import write_check, write_checksums, write_json
from parefront.search.card import model_card
from parefront.search.entry import Entry
from parefront.search.opened import measures_of
from parefront.search.records import Outcome
from parefront.search.remeasure import remeasured
from parefront.search.scenes import SCORING_BATCH, scene, scenes
from parefront.search.study_record import BaselineRecord, StudyRecord
from parefront.search.task import PreparedTask, prepare

if TYPE_CHECKING:
    from parefront.search.stored_study import StoredStudy

_CHECK_EXAMPLES = 8
_NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EROFS)


def export(study: StoredStudy, trial: int, directory: Path) -> Path:
    """Writes the bundle of a trial.

    The artifact is read back, run in clean processes, and measured again; the bundle appears only
    if everything agrees with the record. The test split is measured here for the first time.

    Args:
        study: The study.
        trial: Number of a trial that was measured.
        directory: New or empty folder.

    Returns:
        The folder.

    Raises:
        UsageError: If there is no such trial, it was not measured, or the folder is in use or
            cannot be made or filled.
        BundleError: If the artifact does not give what was recorded.
        ArtifactError: If the artifact is missing or damaged.
    """
    opened = study.opened()
    entries = opened.entries()
    entry, outcome = _measured(entries, trial)
    reference = next((e.outcome for e in entries if e.is_baseline), None)
    if opened.baseline is None or reference is None:
        raise UsageError(f"study '{study.name}' has no measured baseline; launch it first")
    try:
        if directory.exists() and (not directory.is_dir() or any(directory.iterdir())):
            raise UsageError(f"{directory} is not an empty folder; name a new one")
    except OSError as error:
        raise _unwritable(directory, error) from error
    task = checked_task(study)
    form = runtime(opened.record.settings.target.runtime).format
    source = study.store.get(str(outcome.artifact_sha256), form)
    base = study.store.get(opened.baseline.artifact_sha256, form)
    try:
        directory.parent.mkdir(parents=True, exist_ok=True)
        staging = Path(tempfile.mkdtemp(dir=directory.parent, prefix=".bundle-"))
    except OSError as error:
        raise _unwritable(directory, error) from error
    try:
        shipped = Artifact.of(Path(shutil.copy(source.path, staging / f"model.{form}")), form)
        _fill(
            staging,
            shipped,
            base,
            task=task,
            record=opened.record,
            baseline=opened.baseline,
            entry=entry,
            outcome=outcome,
            reference=reference,
            versions=dict(study.summary().versions),
        )
        _replay(staging)
        staging.chmod(0o755)
        staging.replace(directory)
    except OSError as error:
        if error.errno not in _NO_ROOM:
            raise  # such as of the task's own files
        raise _unwritable(directory, error) from error
    finally:
        shutil.rmtree(staging, ignore_errors=True)
    return directory


def checked_task(study: StoredStudy) -> PreparedTask:
    """The task of a study, with the data the study began with.

    Raises:
        TaskError: If the task cannot be loaded.
        StudyFileError: If its data changed.
    """
    record = study.opened().record
    task = prepare(study.task(), seed=record.settings.study.seed)
    if task.digest() != record.data_digest:
        raise StudyFileError(
            f"the data of the task changed since study '{study.name}' began, so its figures "
            "cannot be measured again; put the data back"
        )
    return task


def _unwritable(directory: Path, error: OSError) -> UsageError:
    return UsageError(
        f"cannot write {directory}: {error.strerror or error}; name a folder that can be made, "
        "where there is room"
    )


def _measured(entries: list[Entry], trial: int) -> tuple[Entry, Outcome]:
    for entry in entries:
        if entry.trial.number == trial:
            if entry.outcome is None or entry.outcome.artifact_sha256 is None:
                raise UsageError(
                    f"trial {trial} was not measured ({entry.status}), so there is no file to "
                    "export; 'parefront front' lists trials that can be"
                )
            return entry, entry.outcome
    raise UsageError(f"there is no trial {trial}; 'parefront front' lists trials to export")


def _fill(
    folder: Path,
    shipped: Artifact,
    base: Artifact,
    *,
    task: PreparedTask,
    record: StudyRecord,
    baseline: BaselineRecord,
    entry: Entry,
    outcome: Outcome,
    reference: Outcome,
    versions: dict[str, str],
) -> None:
    target = record.settings.target
    everywhere = scenes(task, record.settings, task.validation, base, baseline)
    on = everywhere[None]
    tested = scene(task, target, task.test, base, baseline)
    again, differences = remeasured(shipped, measures_of(record), everywhere, outcome.measurements)
    if differences:
        raise BundleError(
            f"trial {entry.trial.number} is not published, for its file does not give what was "
            "recorded: " + "; ".join(f"{name} {text}" for name, text in differences.items())
        )
    test = Accuracy().measure(shipped, tested)
    baseline_test = Accuracy().measure(base, tested)
    candidate = {name: dict(config) for name, config in entry.record.candidate.items()}
    write_json(
        folder / "metrics.json",
        {
            "metric": record.metric,
            "validation": _dump(outcome.measurements),
            "validation_again": _dump(again),
            "test": _dump({"accuracy": test}),
            "baseline": {
                "validation": _dump(reference.measurements),
                "test": _dump({"accuracy": baseline_test}),
            },
        },
    )
    write_json(
        folder / "config.json",
        {
            "candidate_id": entry.record.candidate_id,
            "candidate": candidate,
            "achieved": {name: dict(facts) for name, facts in outcome.achieved.items()},
        },
    )
    write_json(
        folder / "environment.json",
        {
            "fingerprint_id": baseline.fingerprint_id,
            "fingerprint": dict(baseline.fingerprint),
            "target": target.here().model_dump(mode="json"),
            "versions": {"python": platform.python_version(), **versions},
        },
    )
    write_json(
        folder / "lineage.json",
        {
            "study": record.settings.study.name,
            "study_id": record.id,
            "trial": entry.trial.number,
            "origin": str(entry.record.origin),
            "task": record.settings.study.task,
            "seed": record.settings.study.seed,
            "data_sha256": record.data_digest,
            "artifact_sha256": shipped.sha256,
            "baseline_sha256": base.sha256,
            "exported": datetime.now(UTC).isoformat(timespec="seconds"),
        },
    )
    few = {name: x[:_CHECK_EXAMPLES] for name, x in on.examples.items()}
    outputs = on.device.run(
        shipped.path,
        few,
        runtime=target.runtime,
        threads=target.threads,
        batch_size=SCORING_BATCH,
    )
    write_check(folder / "check.npz", few, outputs)
    chosen = runtime(target.runtime)
    (folder / "run.py").write_text(chosen.script())
    inputs = {
        name: (str(x.dtype).removeprefix("torch."), list(x.shape[1:]))
        for name, x in zip(task.input_names, task.validation.inputs, strict=True)
    }
    card = model_card(
        study=record,
        trial=entry.trial.number,
        artifact=shipped.path.name,
        candidate=candidate,
        validation=outcome.measurements,
        test=test,
        baseline=reference.measurements,
        baseline_test=baseline_test,
        inputs=inputs,
        splits={
            "train": task.train,
            "calibration": task.calibration,
            "validation": task.validation,
            "test": task.test,
        },
    )
    (folder / "README.md").write_text(card)
    write_checksums(folder)


def _dump(measurements: Mapping[str, Measurement]) -> dict[str, object]:
    return {name: m.model_dump(mode="json") for name, m in measurements.items()}


def _replay(folder: Path) -> None:
    """Runs the bundle's own script in a clean process."""
    done = subprocess.run(
        [sys.executable, "-I", "run.py"], cwd=folder, capture_output=True, text=True, check=False
    )
    if done.returncode:
        reason = (done.stderr or done.stdout).strip().splitlines()
        raise BundleError(
            f"the bundle is not published, for its run.py fails: {reason[-1] if reason else '?'}"
        )
