"""The stage `half`: weights of 16 bits."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Literal

import numpy as np
import onnx
import optuna
from onnx import numpy_helper
from torch import nn

from parefront.errors import StageError
from parefront.spaces.ranges import Choice
from parefront.spaces.ruled import LEAST
from parefront.spaces.stage import (
    Applied,
    Form,
    Stage,
    StageChoices,
    StageConfig,
    StageContext,
)

HalfFormat = Literal["float16", "bfloat16", "fixed16"]


class HalfConfig(StageConfig):
    """One way to halve weights.

    Attributes:
        format: `"float16"`, with 10 bits of fraction; `"bfloat16"`, with 7 and the range of 32
            bits; or `"fixed16"`, fixed point with one binary point for each tensor, the highest
            that holds its largest weight (Q0.15 for weights below 1).
    """

    format: HalfFormat


class HalfChoices(StageChoices):
    """What a study file may say about weights of 16 bits.

    Attributes:
        format: Formats to choose from.
    """

    format: Choice[HalfFormat] = Choice[HalfFormat](options=("float16",))


class HalfWeights(Stage[HalfConfig, onnx.ModelProto]):
    """Rounds the weights of an exported model to 16 bits; what is computed has 32 as before.

    Computing in 16 bits is slower on most processors without units for it; the file is half as
    large either way. `achieved` holds `tensors`, how many were rounded; `small`, how many were left
    alone because they have fewer than 256 elements; and `largest_error`, the largest change of a
    weight.
    """

    name: ClassVar[str] = "half"
    form: ClassVar[Form] = Form.ONNX
    packs: ClassVar[bool] = True
    rounds: ClassVar[bool] = True
    choices_type: ClassVar[type[StageChoices]] = HalfChoices
    config_type: ClassVar[type[StageConfig]] = HalfConfig
    choices: HalfChoices

    def nothing_to_do(self, model: nn.Module, context: StageContext) -> str | None:  # noqa: ARG002
        """Whether the model has no weight that is large enough."""
        if not any(p.is_floating_point() and p.numel() >= LEAST for p in model.parameters()):
            return "no weight is large enough"
        return None

    def clashes(self, earlier: Sequence[type[Stage[Any, Any]]]) -> str | None:
        """Weights of few values are smaller already."""
        few = [stage.name for stage in earlier if stage.packs]
        return f"the weights after {few[0]} are stored in fewer bits" if few else None

    def draw(
        self,
        trial: optuna.trial.BaseTrial,
        earlier: Mapping[str, StageConfig],  # noqa: ARG002
    ) -> HalfConfig:
        """Draws a format."""
        return HalfConfig(format=self.choices.format.suggest(trial, f"{self.name}.format"))

    def anchors(self) -> Sequence[HalfConfig]:
        """Each format."""
        return [HalfConfig(format=each) for each in self.choices.format.options]

    def apply(
        self, model: onnx.ModelProto, config: HalfConfig, context: StageContext
    ) -> Applied[onnx.ModelProto]:
        """Rounds the weights of a copy.

        Raises:
            StageError: If no weight is large enough that the format can hold.
        """
        result = onnx.ModelProto()
        result.CopyFrom(model)
        tensors, small, largest, left = 0, 0, 0.0, list[str]()
        for tensor in result.graph.initializer:
            context.tick()
            if tensor.data_type != onnx.TensorProto.FLOAT:
                continue
            array = numpy_helper.to_array(tensor)
            if array.size < LEAST:
                small += 1
                continue
            rounded = _ROUND[config.format](array)
            finite = np.isfinite(array)
            rest = np.array_equal(rounded[~finite], array[~finite], equal_nan=True)
            if not (rest and np.isfinite(rounded[finite]).all()):
                left.append(tensor.name)
                continue
            change = np.abs(rounded[finite] - array[finite])
            largest = max(largest, float(change.max(initial=0.0)))
            tensor.CopyFrom(numpy_helper.from_array(rounded, tensor.name))
            tensors += 1
        if not tensors:
            raise StageError(
                "no weight of the exported model is large enough to halve"
                + (
                    f", but for {', '.join(left)}, which {config.format} cannot hold"
                    if left
                    else ""
                )
            )
        return Applied(
            result, {"tensors": tensors, "small": small, "largest_error": largest, "left": left}
        )


def _float16(array: np.ndarray[Any, np.dtype[np.float32]]) -> np.ndarray[Any, np.dtype[np.float32]]:
    with np.errstate(over="ignore"):
        return array.astype(np.float16).astype(np.float32)


def _bfloat16(
    array: np.ndarray[Any, np.dtype[np.float32]],
) -> np.ndarray[Any, np.dtype[np.float32]]:
    """To the nearest, ties to even: adds just under half of what is cut off."""
    bits = np.ascontiguousarray(array).view(np.uint32)
    odd = (bits >> 16) & 1
    rounded = ((bits + 0x7FFF + odd) & 0xFFFF0000).astype(np.uint32)
    return np.where(np.isfinite(array), rounded.view(np.float32), array)


def _fixed16(
    array: np.ndarray[Any, np.dtype[np.float32]],
) -> np.ndarray[Any, np.dtype[np.float32]]:
    largest = float(np.abs(array).max())
    if not np.isfinite(largest):
        return np.full_like(array, np.nan)  # there is no binary point for it
    if not largest:
        return array
    # 15 bits beside the sign; what rounds up to the next power of two has its own binary point.
    step = 2.0 ** (np.frexp(largest)[1] - 15)
    if np.rint(largest / step) > np.iinfo(np.int16).max:
        step *= 2.0
    rounded = np.rint(array / np.float64(step)) * step
    # A zero without a sign, as whole numbers have it.
    result: np.ndarray[Any, np.dtype[np.float32]] = (rounded + 0.0).astype(np.float32)
    return result


_ROUND = {"float16": _float16, "bfloat16": _bfloat16, "fixed16": _fixed16}
