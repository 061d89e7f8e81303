"""From a candidate to an artifact: stages in order, each beginning kept and never made twice."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import cache, partial
from pathlib import Path
from typing import Any

import onnx
import torch
from google.protobuf.message import DecodeError
from torch import nn

from parefront.errors import ArtifactError
from parefront.objectives.targets.catalog import runtime
from parefront.objectives.targets.target import Target
from parefront.search.layer_clock import LayerClock
from parefront.search.seeds import derive_seed
from parefront.search.stage_cache import Cached, Model, StageCache, chained
from parefront.search.stage_code import code_digest
from parefront.search.task import PreparedTask
from parefront.spaces.ruled import baked
from parefront.spaces.space import AnyStage, Candidate, Space
from parefront.spaces.stage import Facts, Find, Form, Inputs, StageConfig, StageContext

WORTH_KEEPING = 0.1
"""Seconds from which what stages made is kept; what was trained always is."""

Report = Callable[[float, nn.Module], None]
"""Told the share of a training that is done, and the module as it is then."""

_code_digest = cache(code_digest)  # the code of a running process does not change


@dataclass
class Watch:
    """Seconds by step, and since it began."""

    seconds: dict[str, float] = field(default_factory=dict)
    began: float = field(default_factory=time.perf_counter)

    @property
    def elapsed(self) -> float:
        """Seconds since it began."""
        return time.perf_counter() - self.began

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
        clock: Times layers on the target's device; `None` before that is known.
    """

    task: PreparedTask
    module: nn.Module
    space: Space
    target: Target
    seed: int
    cache: StageCache | None = None
    key: str = ""
    clock: LayerClock | None = None

    def context(
        self,
        candidate: Candidate,
        tick: Callable[[], None] = lambda: None,
        rungs: tuple[float, ...] = (),
        report: Report = lambda share, module: None,  # noqa: ARG005
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
            rungs=rungs,
            report=report,
            teacher_weights=self.task.teacher_weights,
            clock=self.clock,
        )

    def timed(self, candidate: Candidate) -> bool:
        """Whether a stage of a candidate may time layers."""
        stages: dict[str, AnyStage] = {stage.name: stage for stage in self.space.stages}
        return any(stages[name].timed(config) for name, config in candidate.configs)

    def training(self, candidate: Candidate) -> str | None:
        """The key of what the last dear stage of a candidate makes; `None` if none is on."""
        steps = self._steps(candidate, trained=True)
        return next((step.key for step in reversed(steps) if step.stage.dear), None)

    def build(
        self,
        candidate: Candidate,
        path: Path,
        *,
        trained: bool,
        watch: Watch | None = None,
        tick: Callable[[], None] = lambda: None,
        rungs: tuple[float, ...] = (),
        report: Report = lambda share, module: None,  # noqa: ARG005
    ) -> dict[str, Mapping[str, Any]]:
        """Writes the artifact of a candidate.

        Args:
            candidate: The candidate.
            path: File to write.
            trained: Whether dear stages are applied; without them the file has the same latency
                and size, but not the accuracy.
            watch: Takes the seconds of each step.
            tick: Called between short steps of work.
            rungs: Shares of a training at which it is reported.
            report: Called with such a share and the module under training; raises to end it.

        Returns:
            What each stage achieved, by name.

        Raises:
            TrialError: If a stage or the export fails.
        """
        watch = watch or Watch()
        steps = self._steps(candidate, trained=trained, tick=tick, rungs=rungs, report=report)
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
        self,
        candidate: Candidate,
        *,
        trained: bool,
        tick: Callable[[], None] = lambda: None,
        rungs: tuple[float, ...] = (),
        report: Report = lambda share, module: None,  # noqa: ARG005
    ) -> list[_Step]:
        """The stages to apply, each with the key of what it will have made."""
        stages = {stage.name: stage for stage in self.space.stages}
        steps, key = [], self.key
        for position, (name, config) in enumerate(candidate.configs):
            stage: AnyStage = stages[name]
            if stage.dear and not trained:
                continue
            context = self.context(candidate.prefix(position + 1), tick, rungs, report)
            if self.cache is not None:
                code = _code_digest(type(stage))
                if self.clock is not None and stage.timed(config):
                    key = chained(key, self.clock.key)
                known = partial(self._remembered, chained(key, name, code))
                context = replace(context, remember=known)
                key = chained(key, name, config.model_dump(mode="json"), code, context.seed)
                if stage.form == Form.ONNX:  # it begins with the exported file
                    key = chained(key, self.target.runtime, self.target.batch_size)
            steps.append(_Step(stage, config, context, key))
        return steps

    def _remembered(self, key: str, name: str, find: Find) -> Facts:
        """Facts of what a stage is given, found once and kept in the cache."""
        if self.cache is None:
            return find()
        key = chained(key, name)
        known = self.cache.facts(key)
        if not known:
            began = time.perf_counter()
            known = find()
            self.cache.put_facts(key, known, time.perf_counter() - began)
        return known

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
                baked(module),
                tiled(self.task.example, self.target.batch_size),
                self.task.input_names,
                path,
                dynamic=self.task.dynamic,
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
