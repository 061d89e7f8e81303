"""The front on further runtimes, after the search: each finalist built and measured there."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import pandas as pd

from parefront.errors import ArtifactError, TrialError, UsageError
from parefront.objectives.catalog import OBJECTIVES
from parefront.objectives.objective import Scene
from parefront.objectives.targets.catalog import runtime
from parefront.objectives.targets.fingerprint import fingerprint_id
from parefront.search.builder import tiled
from parefront.search.goal import Goal
from parefront.search.measures import Measure, measures
from parefront.search.opened import OpenedStudy
from parefront.search.pipeline import Pipeline
from parefront.search.records import Outcome, Status
from parefront.search.scenes import named, scene
from parefront.search.study_record import FINAL_KEY, BaselineRecord
from parefront.spaces.space import Candidate
from parefront.spaces.stage import Form


def build_finals(
    opened: OpenedStudy,
    pipeline: Pipeline,
    trials: Sequence[int],
    *,
    stopped: Callable[[], bool],
    tick: Callable[[], None],
    phase: Callable[[str], None],
) -> None:
    """Builds and measures candidates on the runtimes that the target names as finalists.

    Accuracy, latency and size are measured against the baseline in the same runtime. What is in
    the storage already is not made again; what failed is tried again by the next launch, unless it
    cannot ever be built there. A runtime whose baseline fails is left out, and said so.

    Args:
        opened: The study.
        pipeline: What it was searched with.
        trials: Numbers of the finalists.
        stopped: Whether to end before the next.
        tick: Called between short steps of work; raises `Interrupted` when one must end.
        phase: Told what takes a while.

    Raises:
        UsageError: If a runtime is not installed, or its results are another device's.
        Interrupted: If `tick` did.
    """
    entries = {entry.trial.number: entry for entry in opened.ledger.entries()}
    for name in pipeline.builder.target.finalists:
        if stopped() or not trials:
            return
        try:
            there = _on(name, opened, pipeline, phase)
        except TrialError as error:
            phase(f"the front cannot be built for {name}: {error}")
            continue
        for trial in trials:
            key = f"{FINAL_KEY}{name}:{trial}"
            outcome = entries[trial].outcome
            kept = opened.facts.get(key)
            if outcome is None or (kept is not None and _final(Outcome.model_validate(kept))):
                continue
            if stopped():
                return
            phase(f"building trial {trial} for {name}")
            candidate = pipeline.builder.space.candidate(entries[trial].record.candidate)
            found = _evaluated(candidate, outcome, pipeline, there, tick)
            opened.keep(key, found.model_dump(mode="json"))


def _final(outcome: Outcome) -> bool:
    """Whether another try would end the same."""
    return outcome.status in (Status.COMPLETE, Status.INFEASIBLE)


def finals_frame(opened: OpenedStudy) -> pd.DataFrame:
    """One row a finalist and runtime.

    Columns: `runtime`, `trial`, `state`, `reason`, and for accuracy, latency and size the columns
    of the trials frame; `speedup` is against the baseline in the same runtime, and
    `speedup_runtime` is the candidate's latency on the study's own runtime divided by that here.
    """
    rows = []
    entries = {entry.trial.number: entry for entry in opened.entries()}
    for key, attrs in opened.facts.items():
        name, _, trial = key.removeprefix(FINAL_KEY).rpartition(":")
        if not key.startswith(FINAL_KEY) or not name:
            continue
        outcome = Outcome.model_validate(attrs)
        base = BaselineRecord.model_validate(opened.facts[FINAL_KEY + name])
        row: dict[str, object] = {
            "runtime": name,
            "trial": int(trial),
            "state": str(outcome.status),
            "reason": outcome.reason,
        }
        for objective in OBJECTIVES:
            found = outcome.measurements.get(objective.name)
            row[objective.column] = found.value if found else None
            row[f"{objective.column}_low"] = found.low if found else None
            row[f"{objective.column}_high"] = found.high if found else None
        latency = outcome.measurements.get("latency")
        here = entries[int(trial)].outcome
        if latency is not None and here is not None:
            row["speedup"] = base.reference_ms / latency.value
            row["speedup_runtime"] = here.measurements["latency"].value / latency.value
        rows.append(row)
    columns = ["runtime", "trial", "state", "reason"]
    columns += [f"{o.column}{end}" for o in OBJECTIVES for end in ("", "_low", "_high")]
    frame = pd.DataFrame(rows, columns=[*columns, "speedup", "speedup_runtime"])
    return frame.sort_values(["runtime", "trial"], ignore_index=True)


def _on(
    name: str, opened: OpenedStudy, pipeline: Pipeline, phase: Callable[[str], None]
) -> Pipeline:
    """The pipeline that measures on a runtime, with the baseline built for it."""
    target = pipeline.builder.target.model_copy(update={"runtime": name})
    builder = replace(pipeline.builder, target=target)
    task, store, form = builder.task, pipeline.store, runtime(name).format
    device = pipeline.scenes[None].device
    facts = device.fingerprint(name, target.threads)
    attrs = opened.facts.get(FINAL_KEY + name)
    if attrs is not None:
        record = BaselineRecord.model_validate(attrs)
        if record.fingerprint_id != fingerprint_id(facts):
            raise UsageError(
                f"the finalists on {name} were measured on another device or version; "
                "give the study another name"
            )
        artifact = store.get(record.artifact_sha256, form)
    else:
        phase(f"building the baseline for {name}")
        with store.scratch() as folder:
            path = folder / f"baseline.{form}"
            builder.build_baseline(path)
            artifact = store.add(path, form)
        record = BaselineRecord(
            artifact_sha256=artifact.sha256,
            reference_ms=device.reference_ms(
                artifact.path,
                named(task, tiled(task.example, target.batch_size)),
                runtime=name,
                threads=target.threads,
                runs=target.runs,
            ),
            throughput_ms=0.0,
            fingerprint=facts,
            fingerprint_id=fingerprint_id(facts),
        )
        opened.keep(FINAL_KEY + name, record.model_dump(mode="json"))
    scenes: dict[str | None, Scene] = {
        None: scene(task, target, task.validation, artifact, record, device)
    }
    return Pipeline(builder, scenes, store, _core())


def _core() -> tuple[Measure, ...]:
    return measures({objective.name: Goal() for objective in OBJECTIVES}, [])


def _evaluated(
    candidate: Candidate,
    outcome: Outcome,
    searched: Pipeline,
    there: Pipeline,
    tick: Callable[[], None],
) -> Outcome:
    if there.format == searched.format:
        try:
            artifact = searched.store.get(str(outcome.artifact_sha256), searched.format)
        except ArtifactError as error:
            return Outcome(status=Status.FAILED, reason=str(error))
        return there.measured(artifact)
    forms = {stage.name: stage.form for stage in there.builder.space.stages}
    after = [name for name, _ in candidate.configs if forms[name] == Form.ONNX]
    if after:
        return Outcome(
            status=Status.INFEASIBLE,
            reason=f"{', '.join(after)} changes the ONNX file, and "
            f"{there.builder.target.runtime} builds from the module",
        )
    return there.evaluate(candidate, tick)
