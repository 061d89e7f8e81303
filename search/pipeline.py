"""The trial pipeline: from a candidate to an artifact to measurements."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import onnx
import torch
from google.protobuf.message import DecodeError
from torch import nn

from parefront.errors import AgentError, ArtifactError, TrialError
from parefront.objectives.artifact import Artifact
from parefront.objectives.measurement import Measurement
from parefront.objectives.objective import Scene
from parefront.objectives.targets.catalog import runtime
from parefront.objectives.targets.profile_cache import profiled_multiple
from parefront.objectives.targets.runtime import Feeds
from parefront.objectives.targets.target import Target
from parefront.search.data import Split
from parefront.search.measures import Measure
from parefront.search.proposer import derive_seed
from parefront.search.records import Outcome, Status
from parefront.search.stage_cache import Cached, Model, StageCache, chained
from parefront.search.stage_code import code_digest
from parefront.search.store import ArtifactStore
from parefront.search.study_file import StudyFile
from parefront.search.study_record import BaselineRecord, Calibration
from parefront.search.task import PreparedTask
from parefront.spaces.space import AnyStage, Candidate, Space
from parefront.spaces.stage import Form, Inputs, StageConfig, StageContext, TargetTraits

SCORING_BATCH = 128
"""Examples in one run when accuracy is computed; fixed, so that figures repeat exactly."""

WORTH_KEEPING = 0.1
"""Seconds from which what stages made is kept; what was trained always is."""

_code_digest = cache(code_digest)  # the code of a running process does not change


class Interrupted(Exception):  # noqa: N818 - not an error
    """The trial was told to stop; its candidate is to be tried again."""


@dataclass
class Watch:
    """Seconds by step."""

    seconds: dict[str, float] = field(default_factory=dict)

    @contextmanager
    def on(self, step: str) -> Iterator[None]:
        """Adds the time spent inside to a step."""
        start = time.perf_counter()
        try:
            yield
        finally:
            self.seconds[step] = self.seconds.get(step, 0.0) + time.perf_counter() - start


@dataclass(frozen=True)
class _Step:
    """A stage that is to be applied."""

    stage: AnyStage
    config: StageConfig
    context: StageContext
    key: str


@dataclass(frozen=True, kw_only=True)
class Builder:
    """Turns candidates into artifacts.

    Attributes:
        task: The task.
        module: The trained baseline, in evaluation mode.
        space: The space of the candidates.
        target: Where artifacts run.
        seed: The study's seed.
        cache: Keeps what stages made; `None` to run them anew each time.
        key: What the baseline, the data and the versions are, for the cache.
    """

    task: PreparedTask
    module: nn.Module
    space: Space
    target: Target
    seed: int
    cache: StageCache | None = None
    key: str = ""

    def context(
        self, candidate: Candidate, tick: Callable[[], None] = lambda: None
    ) -> StageContext:
        """What the last stage of `candidate` may use; its seed depends on the candidate alone."""
        return StageContext(
            example=self.task.example,
            train=self.task.train,
            calibration=self.task.calibration,
            loss=self.task.loss,
            teachers=(self.module, *self.task.teachers),
            seed=derive_seed(self.seed, "stage", candidate.id),
            input_names=self.task.input_names,
            tick=tick,
        )

    def build(
        self,
        candidate: Candidate,
        path: Path,
        *,
        trained: bool,
        watch: Watch | None = None,
        tick: Callable[[], None] = lambda: None,
    ) -> dict[str, Mapping[str, Any]]:
        """Writes the artifact of a candidate.

        Args:
            candidate: The candidate.
            path: File to write.
            trained: Whether dear stages are applied; without them the file has the same latency
                and size, but not the accuracy.
            watch: Takes the seconds of each step.
            tick: Called between short steps of work.

        Returns:
            What each stage achieved, by name.

        Raises:
            TrialError: If a stage or the export fails.
        """
        watch = watch or Watch()
        steps = self._steps(candidate, trained=trained, tick=tick)
        start, model, achieved = self._cached(steps)
        spent = 0.0
        for step in steps[start:]:
            tick()
            began = time.perf_counter()
            if step.stage.form == Form.ONNX and isinstance(model, nn.Module):
                model = self._export(model, path, watch)
            with watch.on("train" if step.stage.dear else "stages"):
                applied = step.stage.apply(model, step.config, step.context)
            model = applied.model
            achieved = {**achieved, step.stage.name: applied.achieved}
            spent += time.perf_counter() - began
            if self.cache is not None and (step.stage.dear or spent >= WORTH_KEEPING):
                self.cache.put(step.key, Cached(model, achieved), spent)
        if isinstance(model, nn.Module):
            self._build(model, path, watch)
        else:
            with watch.on("build"):
                try:
                    path.write_bytes(model.SerializeToString(deterministic=True))
                except OSError as error:
                    raise ArtifactError(f"cannot write {path}: {error}") from error
        return dict(achieved)

    def _steps(
        self, candidate: Candidate, *, trained: bool, tick: Callable[[], None]
    ) -> list[_Step]:
        """The stages to apply, each with the key of what it will have made."""
        stages = {stage.name: stage for stage in self.space.stages}
        steps, key = [], self.key
        for position, (name, config) in enumerate(candidate.configs):
            stage: AnyStage = stages[name]
            if stage.dear and not trained:
                continue
            context = self.context(candidate.prefix(position + 1), tick)
            if self.cache is not None:
                code = _code_digest(type(stage))
                key = chained(key, name, config.model_dump(mode="json"), code, context.seed)
                if stage.form == Form.ONNX:  # it begins with the exported file
                    key = chained(key, self.target.runtime, self.target.batch_size)
            steps.append(_Step(stage, config, context, key))
        return steps

    def _cached(self, steps: Sequence[_Step]) -> tuple[int, Model, Mapping[str, Any]]:
        """How many stages need not run, and what they have made."""
        if self.cache is not None:
            for count in range(len(steps), 0, -1):
                found = self.cache.get(steps[count - 1].key, steps[count - 1].stage.form)
                if found is not None:
                    return count, found.model, found.achieved
        return 0, self.module, {}

    def build_baseline(self, path: Path) -> None:
        """Writes the artifact of the unchanged baseline.

        Raises:
            BuildError: If it cannot be exported.
        """
        self.build(Candidate(), path, trained=True)

    def _build(self, module: nn.Module, path: Path, watch: Watch) -> None:
        with watch.on("build"):
            runtime(self.target.runtime).build(
                module,
                tiled(self.task.example, self.target.batch_size),
                self.task.input_names,
                path,
            )

    def _export(self, module: nn.Module, path: Path, watch: Watch) -> onnx.ModelProto:
        self._build(module, path, watch)
        try:
            return onnx.load(path)
        except (OSError, DecodeError) as error:
            raise ArtifactError(f"cannot read back {path}: {error}") from error


def tiled(example: Inputs, batch_size: int) -> Inputs:
    """A batch of `batch_size` copies of a batch of one."""
    return tuple(torch.cat([x[:1]] * batch_size) for x in example)


def named(task: PreparedTask, inputs: Inputs) -> Feeds:
    """Inputs as arrays by the names they have in an exported file."""
    return {name: x.numpy() for name, x in zip(task.input_names, inputs, strict=True)}


def scene(
    task: PreparedTask,
    target: Target,
    split: Split,
    baseline: Artifact,
    calibration: Calibration,
) -> Scene:
    """What objectives measure with on a target, accuracy on the examples of `split`."""
    targets = split.targets.numpy()

    def score(outputs: Sequence[Any]) -> Measurement:
        return task.metric.measure(outputs, targets)

    return Scene(
        baseline=baseline,
        reference_ms=calibration.reference_ms,
        device=target.open(),
        runtime=target.runtime,
        threads=target.threads,
        effort=target.effort,
        batch=named(task, tiled(task.example, target.batch_size)),
        throughput_batch=named(task, tiled(task.example, target.throughput_batch_size)),
        throughput_reference_ms=calibration.throughput_ms,
        examples=split.feeds(task.input_names),
        batch_size=SCORING_BATCH,
        score=score,
    )


def scenes(
    task: PreparedTask,
    settings: StudyFile,
    split: Split,
    baseline: Artifact,
    record: BaselineRecord,
) -> dict[str | None, Scene]:
    """A scene for each target, the main one under `None`."""
    return {
        name: scene(task, target, split, baseline, record.on(name))
        for name, target in settings.everywhere.items()
    }


class Pipeline:
    """Evaluates candidates, cheap measurements before dear ones.

    Args:
        builder: Turns candidates into artifacts.
        scenes: What objectives measure with, by target.
        store: Keeps the artifacts.
        measures: What is measured.
    """

    def __init__(
        self,
        builder: Builder,
        scenes: Mapping[str | None, Scene],
        store: ArtifactStore,
        measures: Sequence[Measure],
    ) -> None:
        self.builder = builder
        self.scenes = scenes
        self.store = store
        self.measures = measures
        self.bounds = {each.name: each.goal for each in measures if each.goal.bounded}
        self.format = runtime(builder.target.runtime).format

    def evaluate(self, candidate: Candidate, tick: Callable[[], None]) -> Outcome:
        """Builds and measures a candidate; whatever goes wrong is the outcome.

        Args:
            candidate: The candidate.
            tick: Called between short steps of work.

        Raises:
            Interrupted: If `tick` did.
        """
        watch = Watch()
        try:
            with self.store.scratch() as folder:
                path = folder / f"candidate.{self.format}"
                return self._gated(candidate, path, watch, tick) or self._measured(
                    candidate, path, watch, tick
                )
        except (Interrupted, AgentError):  # no other trial would fare better with such an agent
            raise
        except TrialError as error:
            return Outcome(status=Status.FAILED, reason=str(error), seconds=watch.seconds)
        except Exception as error:  # noqa: BLE001 - a failed trial is a result, whatever failed
            reason = f"{type(error).__name__}: {error}"
            return Outcome(status=Status.FAILED, reason=reason, seconds=watch.seconds)

    def measured(self, artifact: Artifact) -> Outcome:
        """Measures an artifact that is there already; whatever goes wrong is the outcome."""
        watch = Watch()
        try:
            measurements = self._measure(self.measures, artifact, watch)
        except TrialError as error:
            return Outcome(status=Status.FAILED, reason=str(error), seconds=watch.seconds)
        return Outcome(
            status=Status.COMPLETE,
            measurements=measurements,
            violations=self._violations(measurements),
            artifact_sha256=artifact.sha256,
            seconds=watch.seconds,
        )

    def _gated(
        self, candidate: Candidate, path: Path, watch: Watch, tick: Callable[[], None]
    ) -> Outcome | None:
        """The outcome of a candidate that breaks a bound which needs no training to know."""
        cheap = [m for m in self.measures if not m.objective.dear and m.goal.bounded]
        dear = {stage.name for stage in self.builder.space.stages if stage.dear}
        if not cheap or not any(name in dear for name, _ in candidate.configs):
            return None
        achieved = self.builder.build(candidate, path, trained=False, watch=watch, tick=tick)
        artifact = Artifact.of(path, self.format)
        measurements = self._measure(cheap, artifact, watch)
        violations = self._violations(measurements)
        # Only what is outside with its whole interval is not worth training.
        broken = [
            name
            for name, m in measurements.items()
            if min(self.bounds[name].violation(end) for end in (m.low, m.high)) > 0
        ]
        if not broken:
            return None
        return Outcome(
            status=Status.INFEASIBLE,
            reason="breaks the bound on " + " and ".join(broken) + " before training",
            measurements=measurements,
            violations=violations,
            achieved=achieved,
            seconds=watch.seconds,
        )

    def _measured(
        self, candidate: Candidate, path: Path, watch: Watch, tick: Callable[[], None]
    ) -> Outcome:
        achieved = self.builder.build(candidate, path, trained=True, watch=watch, tick=tick)
        artifact = self.store.add(path, self.format)
        ordered = sorted(self.measures, key=lambda measure: measure.objective.dear)
        measurements = self._measure(ordered, artifact, watch)
        return Outcome(
            status=Status.COMPLETE,
            measurements=measurements,
            violations=self._violations(measurements),
            artifact_sha256=artifact.sha256,
            achieved=achieved,
            seconds=watch.seconds,
        )

    def _measure(
        self, measures: Sequence[Measure], artifact: Artifact, watch: Watch
    ) -> dict[str, Measurement]:
        with watch.on("measure"):
            return {
                each.name: each.objective.measure(artifact, self.scenes[each.target])
                for each in measures
            }

    def _violations(self, measurements: Mapping[str, Measurement]) -> dict[str, float]:
        return {
            name: bound.violation(measurements[name].value)
            for name, bound in self.bounds.items()
            if name in measurements
        }


def traits(targets: Iterable[Target], home: Path) -> TargetTraits:
    """What stages may know of the targets of a search.

    Widths are rounded to what every device's profile asks for, or the runtime's usual multiple
    where the device was not profiled.

    Args:
        targets: The targets, the main one first; all run one format.
        home: Folder of the studies, where the profiles are.
    """
    each = list(targets)
    multiples = []
    for target in each:
        facts = target.open().fingerprint(target.runtime, target.threads)
        usual = runtime(target.runtime).channel_multiple
        multiples.append(profiled_multiple(home, facts) or usual)
    return TargetTraits(
        format=runtime(each[0].runtime).format, channel_multiple=math.lcm(*multiples)
    )
