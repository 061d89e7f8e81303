"""Verifying a bundle: it is what was exported, and still gives what it says."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from parefront.errors import BundleError, ParefrontError, StorageError, StorageUrlError
from parefront.objectives.artifact import Artifact
from parefront.objectives.measurement import Measurement
from parefront.objectives.objective import Scene
from parefront.objectives.targets.catalog import runtime
from parefront.objectives.targets.fingerprint import fingerprint_id
from parefront.objectives.targets.target import Target
from parefront.search.bundle import agree, check_checksums, read_check, read_json
from parefront.search.data import Split
from parefront.search.export import checked_task
from parefront.search.opened import measures_of
from parefront.search.remeasure import remeasured
from parefront.search.scenes import SCORING_BATCH, scene
from parefront.search.study import Study

REPLAY_TOLERANCE = 0.02
"""Largest difference of replayed outputs, relative to their magnitude.

Runtimes on different CPUs round int8 sums differently: 0.1 to 1.4 % of the logits was seen between
implementations. A damaged file is off by far more.
"""


@dataclass(frozen=True)
class Check:
    """One thing that was verified.

    Attributes:
        name: What it was.
        passed: Whether it held; `None` when it could not be checked here.
        text: What was found, or why it could not be checked.
    """

    name: str
    passed: bool | None
    text: str


def verify(directory: str | Path, *, study: Study | None = None) -> list[Check]:
    """Verifies a bundle.

    Files are compared with their checksums and the recorded inputs are replayed in a clean process.
    With the study at hand, accuracy on both splits, size and latency are measured again. Nothing
    that is in the bundle is executed but the artifact itself, by its runtime.

    Args:
        directory: The bundle.
        study: The study it came from, for the task's data and the baseline.

    Returns:
        What was checked. The bundle holds if no check has `passed=False`.

    Raises:
        BundleError: If the folder is not a bundle, or its files changed.
    """
    folder = Path(directory)
    if not folder.is_dir():
        raise BundleError(f"there is no folder {folder}")
    count = check_checksums(folder)
    checks = [Check("checksums", True, f"{count} files are what was exported")]
    environment, metrics = read_json(folder, "environment.json"), read_json(folder, "metrics.json")
    lineage = read_json(folder, "lineage.json")
    try:
        target = Target.model_validate(environment["target"]).here()
        validation = _measurements(metrics["validation"])
        test = _measurements(metrics["test"])
        form = runtime(target.runtime).format
        artifact = Artifact.of(folder / f"model.{form}", form)
    except (KeyError, TypeError, OSError, ValidationError) as error:
        raise BundleError(f"{folder} is not a bundle of this version: {error}") from error
    if runtime(target.runtime).native and not (study and _made(study, artifact)):
        why = f"a .{form} file may bring code of its own, and no study here knows this one"
        return [*checks, Check("replay", None, why)]
    checks.append(_replay(artifact, target, folder))
    if study is None:
        why = "the study it came from is not in the storage; name it with --storage"
        return [*checks, Check("measurements", None, why)]
    if study.opened().record.id != lineage.get("study_id"):
        why = f"study '{study.name}' in the storage is another one of the same name"
        return [*checks, Check("measurements", None, why)]
    target = study.settings.target
    return checks + _measured_again(artifact, target, study, validation, test, environment)


def _made(study: Study, artifact: Artifact) -> bool:
    """Whether a trial of a study made an artifact."""
    outcomes = (entry.outcome for entry in study.opened().ledger.entries())
    return any(o is not None and o.artifact_sha256 == artifact.sha256 for o in outcomes)


def _measurements(content: Mapping[str, Any]) -> dict[str, Measurement]:
    return {name: Measurement.model_validate(value) for name, value in content.items()}


def _replay(artifact: Artifact, target: Target, folder: Path) -> Check:
    inputs, expected = read_check(folder)
    outputs = target.open().run(
        artifact.path,
        inputs,
        runtime=target.runtime,
        threads=target.threads,
        batch_size=SCORING_BATCH,
    )
    worst = agree(outputs, expected)
    text = f"outputs of {len(next(iter(inputs.values())))} inputs differ by {worst:.2g} at most"
    return Check("replay", worst <= REPLAY_TOLERANCE, text)


def _measured_again(
    artifact: Artifact,
    target: Target,
    study: Study,
    validation: Mapping[str, Measurement],
    test: Mapping[str, Measurement],
    environment: Mapping[str, Any],
) -> list[Check]:
    baseline = study.opened().baseline
    measures = measures_of(study.opened().record)
    try:
        if baseline is None:
            raise BundleError("the study has no baseline")
        task = checked_task(study)
        base = study.store.get(baseline.artifact_sha256, artifact.format)
    except ParefrontError as error:
        return [Check("measurements", None, str(error))]

    def on(split: Split) -> dict[str | None, Scene]:
        return {None: scene(task, target, split, base, baseline)}

    here = fingerprint_id(target.open().fingerprint(target.runtime, target.threads))
    same = here == environment.get("fingerprint_id")
    checks = []
    for split, name, recorded in (
        (task.validation, "validation", validation),
        (task.test, "test", test),
    ):
        found, differences = remeasured(artifact, measures, on(split), recorded)
        for key, measurement in found.items():
            label = f"{key} ({name})" if key == "accuracy" else key
            exact = measurement.value == recorded[key].value
            number = str(measurement.value) if exact else f"{measurement.value:.6g}"
            value = f"{number} {measurement.unit}".rstrip()
            if key not in differences:
                checks.append(Check(label, True, value))
            elif same:
                checks.append(Check(label, False, differences[key]))
            else:
                other = f"{differences[key]}; this is another device"
                checks.append(Check(label, None, other))
    return checks


def origin_of(directory: Path, storage: str | None) -> Study | None:
    """The study a bundle came from, or `None` if the storage does not hold it.

    Only the name of the study is taken from the bundle; the task's place is taken from the
    storage, so that a bundle cannot name code to run.

    Raises:
        BundleError: If the folder is not a bundle.
        StorageUrlError: If what is given names no storage.
    """
    if not directory.is_dir():
        raise BundleError(f"there is no folder {directory}")
    name = read_json(directory, "lineage.json").get("study")
    try:
        return Study.load(str(name), storage=storage)
    except StorageUrlError:
        raise
    except StorageError:
        return None
