"""What a launch does before its first trial: the baseline is trained, built and calibrated once."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Any

from torch import nn

from parefront.errors import UsageError
from parefront.objectives.artifact import Artifact
from parefront.objectives.catalog import OBJECTIVES
from parefront.objectives.targets.catalog import runtime
from parefront.objectives.targets.device import Device
from parefront.objectives.targets.fingerprint import fingerprint_id
from parefront.objectives.targets.target import Target
from parefront.objectives.throughput import Throughput
from parefront.search.baseline import trained_baseline
from parefront.search.builder import Builder, tiled
from parefront.search.launch import Progress
from parefront.search.layer_clock import EFFORT, LayerClock
from parefront.search.opened import OpenedStudy, measures_of
from parefront.search.pipeline import Pipeline
from parefront.search.scenes import Devices, named, scenes
from parefront.search.seeds import derive_seed
from parefront.search.stage_cache import chained
from parefront.search.stage_code import Undescribed, object_digest, versions
from parefront.search.store import ArtifactStore
from parefront.search.study_record import BaselineRecord, Calibration, StudyRecord
from parefront.search.task import PreparedTask


def prepared_pipeline(
    study: OpenedStudy,
    untrained: Builder,
    store: ArtifactStore,
    weights: Path,
    devices: Devices,
    *,
    progress: Progress,
    tick: Callable[[], None],
    share: Callable[[bool], bool] = lambda fresh: False,  # noqa: ARG005
) -> Pipeline:
    """The pipeline of a launch, with the study's own baseline.

    The first launch trains, builds and calibrates the baseline; later ones find it. Callers hold
    the study's lock.

    Args:
        study: The study.
        untrained: A builder whose module has yet to be trained.
        store: Keeps the artifacts.
        weights: File of the baseline's weights.
        devices: Where artifacts are measured, by target.
        progress: Told what takes a while.
        tick: Called between short steps of work.
        share: Told that the weights are in their file, and whether they were not before; answers
            whether others are there now.

    Raises:
        UsageError: If the study was measured on another device.
        TrialError: If the baseline cannot be trained, built or measured.
    """
    task, target = untrained.task, untrained.target
    fresh = not weights.exists()
    if task.source.pretrain is not None and fresh:
        progress.phase("training the baseline")
    baseline_module = partial(
        trained_baseline,
        task,
        weights,
        seed=derive_seed(untrained.seed, "pretrain"),
        tick=tick,
        cache=untrained.cache,
    )
    module = baseline_module()
    if share(fresh):
        module = baseline_module()
    key = _key(task, module)
    cache = untrained.cache if key is not None else None
    builder = replace(untrained, module=module, cache=cache, key=key or "")
    settings = study.record.settings
    measures = measures_of(study.record)
    targets = settings.everywhere
    prints = {
        name: devices[name].fingerprint(each.runtime, each.threads)
        for name, each in targets.items()
    }
    form = runtime(target.runtime).format
    baseline = study.baseline
    if baseline is None:
        progress.phase("calibrating the baseline's latency")
        with store.scratch() as folder:
            path = folder / f"baseline.{form}"
            builder.build_baseline(path)
            artifact = store.add(path, form)
        throughput = {each.target for each in measures if isinstance(each.objective, Throughput)}
        found = {
            name: _calibrated(
                task,
                each,
                devices[name],
                artifact,
                prints[name],
                throughput=name in throughput,
                tick=tick,
            )
            for name, each in targets.items()
        }
        baseline = BaselineRecord(
            artifact_sha256=artifact.sha256,
            key=key or "",
            further={name: each for name, each in found.items() if name is not None},
            **found[None].model_dump(),
        )
        ready = pipeline_of(study.record, baseline, builder, store, devices)
        progress.phase("measuring the baseline")
        # What cannot be measured here at all is said before anything is searched.
        for each in measures:
            if each.objective not in OBJECTIVES:
                each.objective.measure(artifact, ready.scenes[each.target])
        if study.baseline is None:
            study.keep_baseline(baseline)
            return ready
        # Another launch was first, which a lock let in that was lost with the database.
        return prepared_pipeline(
            study, untrained, store, weights, devices, progress=progress, tick=tick, share=share
        )
    for name, facts in prints.items():
        recorded = baseline.on(name)
        if recorded.fingerprint_id != fingerprint_id(facts):
            raise UsageError(
                f"study '{settings.study.name}' was measured on another device "
                f"({_differences(recorded.fingerprint, facts)}), and latencies of two devices "
                "share no front; launch it there, or give the study another name"
            )
    return pipeline_of(study.record, baseline, builder, store, devices)


def pipeline_of(
    record: StudyRecord,
    baseline: BaselineRecord,
    builder: Builder,
    store: ArtifactStore,
    devices: Devices,
) -> Pipeline:
    """The pipeline of a study whose baseline is known.

    Args:
        record: What was written when the study was created.
        baseline: What was written when its baseline had been calibrated.
        builder: A builder with the trained baseline.
        store: Keeps the artifacts; it has the baseline's.
        devices: Where artifacts are measured, by target.

    Raises:
        ArtifactError: If the baseline's artifact is missing or damaged.
    """
    settings, task = record.settings, builder.task
    artifact = store.get(baseline.artifact_sha256, runtime(settings.target.runtime).format)
    clock = LayerClock(
        devices[None],
        settings.target,
        tiled(task.example, settings.target.batch_size),
        chained(baseline.fingerprint_id, settings.target.batch_size, asdict(EFFORT)),
    )
    return Pipeline(
        replace(builder, clock=clock),
        scenes(task, settings, task.validation, artifact, baseline, devices),
        store,
        measures_of(record),
    )


def _key(task: PreparedTask, module: nn.Module) -> str | None:
    """What the making of every candidate depends on, for the cache of stages.

    `None` when something of the task has state that cannot be told: then nothing is kept.
    """
    try:
        return chained(
            object_digest(module),
            task.digest(),
            object_digest(task.loss),
            [object_digest(teacher) for teacher in task.teachers],
            list(task.teacher_weights),
            [(str(x.dtype), list(x.shape[1:])) for x in task.example],
            list(task.input_names),
            *([{name: dict(axes) for name, axes in task.dynamic.items()}] if task.dynamic else ()),
            versions(),
        )
    except Undescribed:
        return None


def _calibrated(
    task: PreparedTask,
    target: Target,
    device: Device,
    baseline: Artifact,
    facts: Mapping[str, Any],
    *,
    throughput: bool,
    tick: Callable[[], None],
) -> Calibration:
    def reference_ms(batch_size: int) -> float:
        tick()
        return device.reference_ms(
            baseline.path,
            named(task, tiled(task.example, batch_size)),
            runtime=target.runtime,
            threads=target.threads,
            runs=target.runs,
        )

    return Calibration(
        reference_ms=reference_ms(target.batch_size),
        throughput_ms=reference_ms(target.throughput_batch_size) if throughput else 0.0,
        fingerprint=facts,
        fingerprint_id=fingerprint_id(facts),
    )


def _differences(before: object, now: object) -> str:
    if not isinstance(before, dict) or not isinstance(now, dict):
        return f"{before} then, {now} now"
    changed = [key for key in before if before[key] != now.get(key)]
    return ", ".join(f"{key} was {before[key]}, is {now.get(key)}" for key in changed[:2])
