"""What a launch does before its first trial: the baseline is trained, built and calibrated once."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from parefront.errors import UsageError
from parefront.objectives.objective import Bound
from parefront.objectives.targets.catalog import runtime
from parefront.objectives.targets.fingerprint import fingerprint_id
from parefront.search.baseline import trained_baseline
from parefront.search.launch import Progress
from parefront.search.opened import OpenedStudy
from parefront.search.pipeline import Builder, Pipeline, named, scene, tiled
from parefront.search.proposer import derive_seed
from parefront.search.store import ArtifactStore
from parefront.search.study_record import BaselineRecord


def prepared_pipeline(
    study: OpenedStudy,
    untrained: Builder,
    store: ArtifactStore,
    weights: Path,
    *,
    progress: Progress,
    tick: Callable[[], None],
) -> Pipeline:
    """The pipeline of a launch, with the study's own baseline.

    The first launch trains, builds and calibrates the baseline; later ones find it. Callers hold
    the study's lock.

    Args:
        study: The study.
        untrained: A builder whose module has yet to be trained.
        store: Keeps the artifacts.
        weights: File of the baseline's weights.
        progress: Told what takes a while.
        tick: Called between short steps of work.

    Raises:
        UsageError: If the study was measured on another device.
        TrialError: If the baseline cannot be trained, built or measured.
    """
    task, target = untrained.task, untrained.target
    if task.source.pretrain is not None and not weights.exists():
        progress.phase("training the baseline")
    module = trained_baseline(
        task, weights, seed=derive_seed(untrained.seed, "pretrain"), tick=tick
    )
    builder = replace(untrained, module=module)
    device = target.device()
    fingerprint = device.fingerprint(target.runtime, target.threads)
    baseline = study.baseline
    if baseline is None:
        progress.phase("calibrating the baseline's latency")
        with store.scratch() as folder:
            path = folder / f"baseline.{runtime(target.runtime).format}"
            builder.build_baseline(path)
            artifact = store.add(path, runtime(target.runtime).format)
        baseline = BaselineRecord(
            artifact_sha256=artifact.sha256,
            reference_ms=device.reference_ms(
                artifact.path,
                named(task, tiled(task.example, target.batch_size)),
                runtime=target.runtime,
                threads=target.threads,
                runs=target.runs,
            ),
            fingerprint=fingerprint,
            fingerprint_id=fingerprint_id(fingerprint),
        )
        study.keep_baseline(baseline)
    elif baseline.fingerprint_id != fingerprint_id(fingerprint):
        raise UsageError(
            f"study '{study.record.settings.study.name}' was measured on another device "
            f"({_differences(baseline.fingerprint, fingerprint)}), and latencies of two devices "
            "share no front; launch it there, or give the study another name"
        )
    artifact = store.get(baseline.artifact_sha256, runtime(target.runtime).format)
    bounds = {n: b for n, b in study.record.settings.objectives.items() if b != Bound()}
    return Pipeline(
        builder,
        scene(task, target, task.validation, artifact, baseline.reference_ms),
        store,
        bounds,
    )


def _differences(before: object, now: object) -> str:
    if not isinstance(before, dict) or not isinstance(now, dict):
        return f"{before} then, {now} now"
    changed = [key for key in before if before[key] != now.get(key)]
    return ", ".join(f"{key} was {before[key]}, is {now.get(key)}" for key in changed[:2])
