"""The trial pipeline: from a candidate to an artifact to measurements."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import onnx
import torch
from google.protobuf.message import DecodeError
from torch import nn

from parefront.errors import ArtifactError, TrialError
from parefront.objectives.artifact import Artifact
from parefront.objectives.catalog import OBJECTIVES
from parefront.objectives.measurement import Measurement
from parefront.objectives.objective import Bound, Objective, Scene
from parefront.objectives.targets.catalog import runtime
from parefront.objectives.targets.runtime import Feeds
from parefront.objectives.targets.target import Target
from parefront.search.data import Split
from parefront.search.proposer import derive_seed
from parefront.search.records import Outcome, Status
from parefront.search.store import ArtifactStore
from parefront.search.task import PreparedTask
from parefront.spaces.space import AnyStage, Candidate, Space
from parefront.spaces.stage import Form, Inputs, StageContext, TargetTraits

SCORING_BATCH = 128
"""Examples in one run when accuracy is computed; fixed, so that figures repeat exactly."""


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


@dataclass(frozen=True, kw_only=True)
class Builder:
    """Turns candidates into artifacts.

    Attributes:
        task: The task.
        module: The trained baseline, in evaluation mode.
        space: The space of the candidates.
        target: Where artifacts run.
        seed: The study's seed.
    """

    task: PreparedTask
    module: nn.Module
    space: Space
    target: Target
    seed: int

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
        achieved: dict[str, Mapping[str, Any]] = {}
        stages = {stage.name: stage for stage in self.space.stages}
        module, graph = self.module, None
        for position, (name, config) in enumerate(candidate.configs):
            stage: AnyStage = stages[name]
            if stage.dear and not trained:
                continue
            context = self.context(candidate.prefix(position + 1), tick)
            tick()
            if stage.form == Form.MODULE:
                with watch.on("train" if stage.dear else "stages"):
                    applied = stage.apply(module, config, context)
                module = applied.model
            else:
                if graph is None:
                    graph = self._export(module, path, watch)
                with watch.on("stages"):
                    applied = stage.apply(graph, config, context)
                graph = applied.model
            achieved[name] = applied.achieved
        if graph is None:
            self._build(module, path, watch)
        else:
            with watch.on("build"):
                try:
                    path.write_bytes(graph.SerializeToString(deterministic=True))
                except OSError as error:
                    raise ArtifactError(f"cannot write {path}: {error}") from error
        return achieved

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
    reference_ms: float,
) -> Scene:
    """What objectives measure with, accuracy on the examples of `split`."""
    targets = split.targets.numpy()

    def score(outputs: Sequence[Any]) -> Measurement:
        return task.metric.measure(outputs, targets)

    return Scene(
        baseline=baseline,
        reference_ms=reference_ms,
        device=target.device(),
        runtime=target.runtime,
        threads=target.threads,
        runs=target.runs,
        batch=named(task, tiled(task.example, target.batch_size)),
        examples=split.feeds(task.input_names),
        batch_size=SCORING_BATCH,
        score=score,
    )


class Pipeline:
    """Evaluates candidates, cheap measurements before dear ones.

    Args:
        builder: Turns candidates into artifacts.
        scene: What objectives measure with.
        store: Keeps the artifacts.
        bounds: Bounds by objective name.
    """

    def __init__(
        self, builder: Builder, scene: Scene, store: ArtifactStore, bounds: Mapping[str, Bound]
    ) -> None:
        self.builder = builder
        self.scene = scene
        self.store = store
        self.bounds = bounds
        self._format = runtime(builder.target.runtime).format

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
                path = folder / f"candidate.{self._format}"
                return self._gated(candidate, path, watch, tick) or self._measured(
                    candidate, path, watch, tick
                )
        except Interrupted:
            raise
        except TrialError as error:
            return Outcome(status=Status.FAILED, reason=str(error), seconds=watch.seconds)
        except Exception as error:  # noqa: BLE001 - a failed trial is a result, whatever failed
            reason = f"{type(error).__name__}: {error}"
            return Outcome(status=Status.FAILED, reason=reason, seconds=watch.seconds)

    def _gated(
        self, candidate: Candidate, path: Path, watch: Watch, tick: Callable[[], None]
    ) -> Outcome | None:
        """The outcome of a candidate that breaks a bound which needs no training to know."""
        cheap = [o for o in OBJECTIVES if not o.dear and o.name in self.bounds]
        dear = {stage.name for stage in self.builder.space.stages if stage.dear}
        if not cheap or not any(name in dear for name, _ in candidate.configs):
            return None
        achieved = self.builder.build(candidate, path, trained=False, watch=watch, tick=tick)
        artifact = Artifact.of(path, self._format)
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
        artifact = self.store.add(path, self._format)
        ordered = sorted(OBJECTIVES, key=lambda objective: objective.dear)
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
        self, objectives: Sequence[Objective], artifact: Artifact, watch: Watch
    ) -> dict[str, Measurement]:
        with watch.on("measure"):
            return {o.name: o.measure(artifact, self.scene) for o in objectives}

    def _violations(self, measurements: Mapping[str, Measurement]) -> dict[str, float]:
        return {
            name: bound.violation(measurements[name].value)
            for name, bound in self.bounds.items()
            if name in measurements
        }


def traits(target: Target) -> TargetTraits:
    """What stages may know of a target."""
    chosen = runtime(target.runtime)
    return TargetTraits(format=chosen.format, channel_multiple=chosen.channel_multiple)
