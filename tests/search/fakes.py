"""Stages and outcomes that cost nothing, for tests of the search alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import ClassVar

import optuna
from torch import nn

from parefront.objectives.measurement import Measurement
from parefront.search.records import Outcome, Status
from parefront.spaces.ranges import Choice, FloatRange
from parefront.spaces.space import Candidate, Space
from parefront.spaces.stage import (
    Applied,
    Form,
    Stage,
    StageChoices,
    StageConfig,
    StageContext,
    TargetTraits,
)

TRAITS = TargetTraits(format="onnx", channel_multiple=8)


class WidthConfig(StageConfig):
    ratio: float
    kind: str


class WidthChoices(StageChoices):
    ratio: FloatRange = FloatRange(low=0.0, high=1.0)
    kind: Choice[str] = Choice(options=("a", "b"))


class Width(Stage[WidthConfig, nn.Module]):
    name = "width"
    form = Form.MODULE
    choices_type = WidthChoices
    config_type = WidthConfig
    choices: WidthChoices

    def nothing_to_do(self, model: nn.Module, context: StageContext) -> str | None:
        return None if list(model.parameters()) else "the model has no parameters"

    def draw(
        self, trial: optuna.trial.BaseTrial, earlier: Mapping[str, StageConfig]
    ) -> WidthConfig:
        return WidthConfig(
            ratio=self.choices.ratio.suggest(trial, f"{self.name}.ratio"),
            kind=self.choices.kind.suggest(trial, f"{self.name}.kind"),
        )

    def anchors(self) -> Sequence[WidthConfig]:
        return [WidthConfig(ratio=self.choices.ratio.clip(0.5), kind=self.choices.kind.prefer("b"))]

    def apply(
        self, model: nn.Module, config: WidthConfig, context: StageContext
    ) -> Applied[nn.Module]:
        return Applied(model, {"ratio": config.ratio})


class RepairConfig(StageConfig):
    steps: float


class RepairChoices(StageChoices):
    steps: FloatRange = FloatRange(low=1.0, high=2.0)


class Repair(Stage[RepairConfig, nn.Module]):
    """Needed wherever `Width` is on."""

    name = "repair"
    form = Form.MODULE
    lossy = False
    dear: ClassVar[bool] = True
    choices_type = RepairChoices
    config_type = RepairConfig
    choices: RepairChoices

    def nothing_to_do(self, model: nn.Module, context: StageContext) -> str | None:
        return None

    def draw(
        self, trial: optuna.trial.BaseTrial, earlier: Mapping[str, StageConfig]
    ) -> RepairConfig:
        return RepairConfig(steps=self.choices.steps.suggest(trial, f"{self.name}.steps"))

    def anchors(self) -> Sequence[RepairConfig]:
        return [RepairConfig(steps=self.choices.steps.clip(1.5))]

    def apply(
        self, model: nn.Module, config: RepairConfig, context: StageContext
    ) -> Applied[nn.Module]:
        return Applied(model)

    def required(self, earlier: Sequence[type[Stage[StageConfig, object]]]) -> bool:
        return any(stage.lossy for stage in earlier)


def space(width: WidthChoices | None = None, repair: RepairChoices | None = None) -> Space:
    return Space(
        [Width(width or WidthChoices(), TRAITS), Repair(repair or RepairChoices(), TRAITS)]
    )


def outcome(candidate: Candidate, *, latency: float | None = None) -> Outcome:
    """A complete outcome whose values depend on the candidate alone."""
    digest = int(candidate.id, 16)
    values = {
        "accuracy": (digest % 997) / 997,
        "latency": latency if latency is not None else 1 + (digest % 991) / 991,
        "size": float(1000 + digest % 983),
    }
    return Outcome(
        status=Status.COMPLETE,
        measurements={
            name: Measurement.exact(value, "", "made up") for name, value in values.items()
        },
        artifact_sha256="0" * 64,
    )
