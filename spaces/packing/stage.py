"""The stage `pack`: an exported model that holds its weights compactly and unpacks itself."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import onnx
import optuna
from torch import nn

from parefront.spaces.packing.packer import pack
from parefront.spaces.stage import (
    Applied,
    Form,
    Stage,
    StageChoices,
    StageConfig,
    StageContext,
)


class PackingConfig(StageConfig):
    """There is one way to pack: the smallest of each tensor."""


class PackingChoices(StageChoices):
    """There is nothing to choose."""


class Packing(Stage[PackingConfig, onnx.ModelProto]):
    """Stores each weight in the smallest way that gives it back, but for the sign of zeros.

    On whenever another stage leaves weights that pack, and only then. `achieved` holds `tensors`,
    how many are stored in each way, and the `bytes` of the model `before` and `after`.
    """

    name: ClassVar[str] = "pack"
    form: ClassVar[Form] = Form.ONNX
    lossy: ClassVar[bool] = False
    choices_type: ClassVar[type[StageChoices]] = PackingChoices
    config_type: ClassVar[type[StageConfig]] = PackingConfig

    def nothing_to_do(self, model: nn.Module, context: StageContext) -> str | None:  # noqa: ARG002
        """Whether the model has no parameter at all."""
        return None if any(True for _ in model.parameters()) else "the model has no weights"

    def required(self, earlier: Sequence[type[Stage[Any, Any]]]) -> bool:
        """After stages that leave weights that pack."""
        return any(stage.packs for stage in earlier)

    def clashes(self, earlier: Sequence[type[Stage[Any, Any]]]) -> str | None:
        """After others there is nothing to pack."""
        return None if self.required(earlier) else "no stage before it leaves weights that pack"

    def draw(
        self,
        trial: optuna.trial.BaseTrial,  # noqa: ARG002
        earlier: Mapping[str, StageConfig],  # noqa: ARG002
    ) -> PackingConfig:
        """The one config."""
        return PackingConfig()

    def anchors(self) -> Sequence[PackingConfig]:
        """The one config."""
        return [PackingConfig()]

    def apply(
        self,
        model: onnx.ModelProto,
        config: PackingConfig,  # noqa: ARG002
        context: StageContext,
    ) -> Applied[onnx.ModelProto]:
        """Packs a copy of the model."""
        packed, counts = pack(model, tick=context.tick)
        sizes = {"before": model.ByteSize(), "after": packed.ByteSize()}
        return Applied(packed, {"tensors": counts, "bytes": sizes})
