"""What each technique costs in accuracy by itself, before anything is trained."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from itertools import takewhile
from random import Random
from typing import Any

from optuna.distributions import BaseDistribution, CategoricalDistribution

from parefront.errors import AgentError, TrialError
from parefront.objectives.artifact import Artifact
from parefront.objectives.measurement import Direction, Finite, Measurement
from parefront.search.pipeline import Interrupted, Pipeline
from parefront.search.samplers.screening.drawn_space import DrawnSpace
from parefront.search.samplers.screening.values import at_position
from parefront.search.warm_start import Known, Observation, drawn
from parefront.spaces.space import AnyStage, Candidate, Space
from parefront.spaces.stage import StageConfig

POSITIONS = (0.0, 0.25, 0.5, 0.75, 1.0)
"""Where on the range of its first number a stage is probed."""
TOLERANCES = (0.01, 0.05, 0.2)
"""Drops that a combination may have in each stage, as shares of the largest drop that was seen."""


class Probe(Known):
    """One stage by itself at one strength, without training.

    Attributes:
        stage: Name of the stage.
        config: Its JSON-able config.
        candidate: Configs of the candidate of the space that this is a beginning of.
        trained: Whether that candidate is trained further, so that it ends up more accurate.
        accuracy: The task's metric on the validation examples.
        low: Lower end of its 95 % interval.
        high: Upper end of its 95 % interval.
        size_bytes: Bytes of the file.
        size_ratio: Bytes of the file as a share of the baseline's; smaller is stronger.
        drop: How much worse than the baseline's the metric is, in its unit; below 0 is better.
    """

    stage: str
    config: Mapping[str, Any]
    candidate: Mapping[str, Mapping[str, Any]]
    trained: bool
    accuracy: Finite
    low: Finite
    high: Finite
    size_bytes: int
    size_ratio: Finite
    drop: Finite


class FailedProbe(Known):
    """A stage that could not be probed at a strength.

    Attributes:
        stage: Name of the stage.
        config: Its JSON-able config.
        reason: What went wrong.
    """

    stage: str
    config: Mapping[str, Any]
    reason: str


class Sensitivity(Known):
    """How much each technique costs in accuracy, by its strength.

    Attributes:
        baseline: The metric of the unchanged baseline on the validation examples.
        probes: What was measured, stage by stage in the order of the space.
        failed: What could not be.
    """

    baseline: Finite
    probes: tuple[Probe, ...] = ()
    failed: tuple[FailedProbe, ...] = ()

    def candidates(self, space: Space) -> list[Candidate]:
        """Combinations worth trying first, the most careful first.

        For each tolerated drop, every stage at the strongest config that was probed within it,
        together with what these make necessary. A stage that makes nothing smaller within the
        tolerance is off.

        Args:
            space: The space that was probed.

        Returns:
            At most one candidate for each of `TOLERANCES`, all different, none the baseline, each
            such that the space can draw it.
        """
        worst = max((probe.drop for probe in self.probes), default=0.0)
        found = []
        for tolerance in TOLERANCES:
            chosen: dict[str, Probe] = {}
            for probe in self.probes:
                within = probe.drop <= tolerance * worst and probe.size_ratio < 1
                best = chosen.get(probe.stage)
                if within and (best is None or probe.size_ratio < best.size_ratio):
                    chosen[probe.stage] = probe
            # Of two that do not go together, the later is left out.
            candidate = space.completed(
                {
                    stage.name: stage.config_type.model_validate(chosen[stage.name].config)
                    for stage in space.stages
                    if stage.name in chosen
                }
            )
            if candidate.configs and drawn(candidate.as_dict(), space) is not None:
                found.append(candidate)
        return list(dict.fromkeys(found))

    def observations(self) -> list[Observation]:
        """What a surrogate may learn from the probes.

        The size of a candidate does not change in training and is told as measured. Its accuracy
        is told at fidelity 0, or at 1 where the candidate is not trained.
        """
        found = []
        for probe in self.probes:
            size, accuracy = {"size": float(probe.size_bytes)}, {"accuracy": probe.accuracy}
            parts = [(size, 1.0), (accuracy, 0.0)] if probe.trained else [(size | accuracy, 1.0)]
            found += [
                Observation(candidate=probe.candidate, values=values, fidelity=fidelity)
                for values, fidelity in parts
            ]
        return found


def probe(
    pipeline: Pipeline, *, tick: Callable[[], None], phase: Callable[[str], None]
) -> Sensitivity:
    """Probes each lossy stage of a space by itself, without training.

    A stage is probed at each of its anchors; where its config has a number to draw, with the first
    such number at five places of its range. The accuracy is that of the exported file.

    Args:
        pipeline: Builds and measures; its space is probed.
        tick: Called between short steps of work; what it raises ends the probing.
        phase: Told what is done.

    Returns:
        What was found; the same for the same study.

    Raises:
        AgentError: If the device agent cannot be used.
        TrialError: If the baseline cannot be measured.
    """
    space = pipeline.builder.space
    untouched = pipeline.scenes[None].baseline
    baseline = _accuracy(pipeline, untouched)
    maximize = pipeline.builder.task.metric.direction == Direction.MAXIMIZE
    dear = {stage.name for stage in space.stages if stage.dear}
    probes, failed = [], []
    for stage in space.stages:
        if not stage.lossy or stage.dear:
            continue
        phase(f"probing how sensitive the model is to {stage.name}")
        for config in _ladder(stage, space):
            tick()
            candidate = space.completed({stage.name: config})
            written = config.model_dump(mode="json")
            try:
                with pipeline.store.scratch() as folder:
                    path = folder / f"probe.{pipeline.format}"
                    pipeline.builder.build(candidate, path, trained=False, tick=tick)
                    artifact = Artifact.of(path, pipeline.format)
                    found = _accuracy(pipeline, artifact)
            except (Interrupted, AgentError):
                raise
            except TrialError as error:
                failed.append(FailedProbe(stage=stage.name, config=written, reason=str(error)))
                continue
            except Exception as error:  # noqa: BLE001 - as in a trial: a failure is a result
                reason = f"{type(error).__name__}: {error}"
                failed.append(FailedProbe(stage=stage.name, config=written, reason=reason))
                continue
            drop = baseline.value - found.value
            probes.append(
                Probe(
                    stage=stage.name,
                    config=written,
                    candidate=candidate.as_dict(),
                    trained=any(name in dear for name, _ in candidate.configs),
                    accuracy=found.value,
                    low=found.low,
                    high=found.high,
                    size_bytes=artifact.size_bytes,
                    size_ratio=artifact.size_bytes / untouched.size_bytes,
                    drop=drop if maximize else -drop,
                )
            )
    return Sensitivity(baseline=baseline.value, probes=tuple(probes), failed=tuple(failed))


def _ladder(stage: AnyStage, space: Space) -> Iterator[StageConfig]:
    """Configs of a stage from one end of its first number to the other, each once."""
    configs: dict[StageConfig, None] = {}
    for anchor in stage.anchors():
        wanted = {
            f"{stage.name}.{field}": value
            for field, value in anchor.model_dump(mode="json").items()
            if value is not None
        }
        alone = space.completed({stage.name: anchor}).configs
        before = dict(takewhile(lambda pair: pair[0] != stage.name, alone))
        config, distributions = _drawn(stage, before, wanted)
        number = next(
            (
                name
                for name, each in distributions.items()
                if not isinstance(each, CategoricalDistribution) and not each.single()
            ),
            None,
        )
        if number is None:
            configs[config] = None
        else:
            values = [at_position(distributions[number], position) for position in POSITIONS]
            for value in values:
                configs[_drawn(stage, before, wanted | {number: value})[0]] = None
    yield from configs


def _drawn(
    stage: AnyStage, before: Mapping[str, StageConfig], wanted: Mapping[str, Any]
) -> tuple[StageConfig, Mapping[str, BaseDistribution]]:
    """The config with wanted values, and what each of its parameters was drawn from."""
    found: list[StageConfig] = []
    source = DrawnSpace(lambda trial: found.append(stage.draw(trial, before)))
    distributions = source.draw(Random(0), wanted).distributions
    return found[0], distributions


def _accuracy(pipeline: Pipeline, artifact: Artifact) -> Measurement:
    measure = next(each for each in pipeline.measures if each.name == "accuracy")
    return measure.objective.measure(artifact, pipeline.scenes[None])
