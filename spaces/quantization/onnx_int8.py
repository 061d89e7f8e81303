"""The stage `quantize`: 8-bit weights and activations, by ONNX Runtime's quantiser."""

from __future__ import annotations

import tempfile
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
import onnx
import optuna
from onnxruntime.quantization import (
    CalibrationMethod,
    QDQQuantizer,
    QuantType,
    TensorData,
    TensorsData,
    quantize_dynamic,
)
from pydantic import model_validator
from torch import nn

from parefront.errors import SpaceError, StageError
from parefront.spaces.quantization.calibration import (
    Calibration,
    activation_ranges,
    calibration_feeds,
)
from parefront.spaces.quantization.graph import (
    INTEGER_OPERATORS,
    keep_outputs_float,
    nodes_on_integers,
    prepared,
    quiet_quantiser,
    refusals,
    tidy,
)
from parefront.spaces.ranges import Choice
from parefront.spaces.stage import (
    Applied,
    Form,
    Stage,
    StageChoices,
    StageConfig,
    StageContext,
    TargetTraits,
)

Method = Literal["static", "dynamic"]

STATIC_OPERATORS = (
    *("Conv", "ConvTranspose", "Gemm", "MatMul", "Gather"),
    *("Add", "Mul", "Concat", "Relu", "LeakyRelu", "Clip", "Sigmoid"),
    *("MaxPool", "AveragePool", "GlobalAveragePool", "Pad", "Resize"),
    *("Reshape", "Flatten", "Squeeze", "Unsqueeze", "Transpose", "Split", "Slice"),
)
"""What works on 8 bits after static quantisation.

Softmax and normalisations stay in floating point: on a transformer their 8 bits made the error
a fifth to two fifths larger, and nothing faster.
"""

DYNAMIC_WEIGHTS: Mapping[QuantType, tuple[str, ...]] = {
    QuantType.QUInt8: ("Conv",),
    QuantType.QInt8: ("MatMul", "Gather", "LSTM"),
}
"""Type of the weights for each operator after dynamic quantisation.

ONNX Runtime's ConvInteger is four times slower with signed weights than with unsigned ones, and
its MatMulInteger is half as fast with unsigned ones. A Gemm becomes a MatMul and an Add.
"""

WEIGHTED = (
    *("Conv", "ConvTranspose", "Gemm", "MatMul", "LSTM", "GRU", "RNN"),
    *INTEGER_OPERATORS,
)
"""Operators that multiply weights."""

LARGEST_ACTIVATION = 65504.0
"""Beyond what half precision holds, values are masks such as -1e9, not activations.

One of them in the range of a tensor would leave no step for all the others.
"""


class OnnxInt8Config(StageConfig):
    """One way to quantise.

    Attributes:
        method: `"static"` fixes the ranges of activations beforehand, on calibration examples;
            `"dynamic"` computes them in each run, and only for matrix products, convolutions
            and LSTMs.
        calibration: How static quantisation chooses ranges; `None` for dynamic.
        per_channel: Whether each output channel of a weight has a scale of its own.

    Example:
        >>> OnnxInt8Config(method="static", calibration="minmax", per_channel=True)
        OnnxInt8Config(method='static', calibration='minmax', per_channel=True)
    """

    method: Method
    calibration: Calibration | None = None
    per_channel: bool

    @model_validator(mode="after")
    def _calibrates_only_static(self) -> OnnxInt8Config:
        if self.method == "static" and self.calibration is None:
            raise ValueError("expected a calibration for static quantisation, got none")
        if self.method == "dynamic" and self.calibration is not None:
            raise ValueError(
                f"expected no calibration for dynamic quantisation, got '{self.calibration}'"
            )
        return self


class OnnxInt8Choices(StageChoices):
    """What a study file may say about quantisation.

    Attributes:
        method: Methods to choose from.
        calibration: Calibrations to choose from, drawn only for static quantisation.
        per_channel: Whether weights may have one scale, or one for each channel.
    """

    method: Choice[Method] = Choice[Method](options=("static", "dynamic"))
    calibration: Choice[Calibration] = Choice[Calibration](
        options=("minmax", "entropy", "percentile")
    )
    per_channel: Choice[bool] = Choice[bool](options=(True, False))


class OnnxInt8(Stage[OnnxInt8Config, onnx.ModelProto]):
    """Quantises an exported model to 8 bits.

    Static quantisation writes weights as int8 and biases as int32, and rounds activations to
    uint8 by QuantizeLinear and DequantizeLinear pairs; int8 activations are slower than floating
    point on x86. Dynamic quantisation is fast on transformers and slow on convolutions.

    `achieved` holds `quantized_nodes` and `float_nodes`: how many nodes of each operator work on
    8 bits, and how many with weights, or products, do not.
    """

    name: ClassVar[str] = "quantize"
    form: ClassVar[Form] = Form.ONNX
    rounds: ClassVar[bool] = True
    choices_type: ClassVar[type[StageChoices]] = OnnxInt8Choices
    config_type: ClassVar[type[StageConfig]] = OnnxInt8Config
    choices: OnnxInt8Choices

    def __init__(self, choices: OnnxInt8Choices, target: TargetTraits) -> None:
        """Binds the stage to its ranges.

        Raises:
            SpaceError: If the target's artifacts are not ONNX files.
        """
        if target.format != "onnx":
            raise SpaceError(
                f"{self.name} needs a target that runs ONNX files, such as the runtime"
                f" 'onnxruntime', got the format '{target.format}'; choose another runtime or"
                f" leave {self.name} out of the space"
            )
        super().__init__(choices, target)

    def nothing_to_do(self, model: nn.Module, context: StageContext) -> str | None:  # noqa: ARG002
        """Whether the model has no weight to quantise."""
        if not any(parameter.ndim > 1 for parameter in model.parameters()):
            return "the model has no weight matrix or convolution kernel"
        return None

    def clashes(self, earlier: Sequence[type[Stage[Any, Any]]]) -> str | None:
        """Weights of 16 bits that were rounded again would only be worse."""
        rounded = any(stage.rounds and stage.form is Form.ONNX for stage in earlier)
        return "the weights have 16 bits already" if rounded else None

    def draw(
        self,
        trial: optuna.trial.BaseTrial,
        earlier: Mapping[str, StageConfig],  # noqa: ARG002
    ) -> OnnxInt8Config:
        """Draws a config; a calibration only for static quantisation."""
        choices = self.choices
        method = choices.method.suggest(trial, f"{self.name}.method")
        return OnnxInt8Config(
            method=method,
            calibration=choices.calibration.suggest(trial, f"{self.name}.calibration")
            if method == "static"
            else None,
            per_channel=choices.per_channel.suggest(trial, f"{self.name}.per_channel"),
        )

    def anchors(self) -> Sequence[OnnxInt8Config]:
        """Each method, by the plainest calibration and with a scale for each channel."""
        choices = self.choices
        return [
            OnnxInt8Config(
                method=method,
                calibration=choices.calibration.prefer("minmax") if method == "static" else None,
                per_channel=choices.per_channel.prefer(True),
            )
            for method in choices.method.options
        ]

    def apply(
        self, model: onnx.ModelProto, config: OnnxInt8Config, context: StageContext
    ) -> Applied[onnx.ModelProto]:
        """Quantises a copy of the model.

        Raises:
            StageError: If nothing in the model can be quantised, there is nothing to calibrate
                on, or ONNX Runtime refuses the model.
        """
        folded = prepared(model)
        context.tick()
        if config.calibration is None:
            result = _dynamic(folded, config.per_channel)
        else:
            result = _static(folded, config.per_channel, config.calibration, context)
        tidy(result)
        on_integers = Counter(node.op_type for node in nodes_on_integers(result))
        present = Counter(node.op_type for node in result.graph.node)
        quantized = {op: on_integers[op] for op in WEIGHTED if on_integers[op]}
        left = {
            op: present[op] - on_integers[op] for op in WEIGHTED if present[op] > on_integers[op]
        }
        if not quantized:
            raise StageError(
                f"{config.method} quantisation found nothing to quantise among the operators"
                f" {', '.join(sorted(present))}"
            )
        return Applied(result, {"quantized_nodes": quantized, "float_nodes": left})


def _static(
    model: onnx.ModelProto, per_channel: bool, calibration: Calibration, context: StageContext
) -> onnx.ModelProto:
    ranges = activation_ranges(
        model, _activations(model), lambda: calibration_feeds(model, context), calibration
    )
    masks = {
        name for name, (low, high) in ranges.items() if not high - low <= 2 * LARGEST_ACTIVATION
    }
    data = {
        name: TensorData(lowest=np.float32(low), highest=np.float32(high))
        for name, (low, high) in ranges.items()
        if name not in masks
    }
    excluded = [
        node.name for node in model.graph.node if masks.intersection((*node.input, *node.output))
    ]
    with refusals("quantise the exported model"), quiet_quantiser():
        quantizer = QDQQuantizer(
            model,
            per_channel,
            False,  # reduce_range
            QuantType.QInt8,
            QuantType.QUInt8,
            TensorsData(CalibrationMethod.MinMax, data),
            [],
            excluded,
            list(STATIC_OPERATORS),
            {},
        )
        quantizer.quantize_model()
        # The quantiser appends its nodes, while a file must list each after those it reads.
        quantizer.model.topological_sort()
        quantized: onnx.ModelProto = quantizer.model.model
    keep_outputs_float(quantized)
    return quantized


def _dynamic(model: onnx.ModelProto, per_channel: bool) -> onnx.ModelProto:
    with tempfile.TemporaryDirectory(prefix="parefront-") as folder:
        path = Path(folder, "model.onnx")
        # A file, because the quantiser would change a model it is given in memory.
        onnx.save(model, path)
        for weight_type, operators in DYNAMIC_WEIGHTS.items():
            with refusals("quantise the exported model"), quiet_quantiser():
                quantize_dynamic(
                    path,
                    path,
                    op_types_to_quantize=list(operators),
                    per_channel=per_channel,
                    weight_type=weight_type,
                )
        return onnx.load(path)


def _activations(model: onnx.ModelProto) -> list[str]:
    """The floating-point tensors, other than weights, that static quantisation may round."""
    graph = model.graph
    floats = {
        entry.name
        for entry in (*graph.input, *graph.output, *graph.value_info)
        if entry.type.tensor_type.elem_type == onnx.TensorProto.FLOAT
    } - {tensor.name for tensor in graph.initializer}
    touched = (
        name
        for node in graph.node
        if node.op_type in STATIC_OPERATORS
        for name in (*node.input, *node.output)
    )
    return [name for name in dict.fromkeys(touched) if name in floats]
