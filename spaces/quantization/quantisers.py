"""ONNX Runtime's quantiser to integers, static and dynamic."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
import onnx
from onnx import version_converter
from onnxruntime.quantization import (
    CalibrationMethod,
    QDQQuantizer,
    QuantType,
    TensorData,
    TensorsData,
    quantize_dynamic,
)

from parefront.spaces.quantization.bias_correction import (
    channel_means,
    correct_biases,
    give_biases,
)
from parefront.spaces.quantization.calibration import (
    Calibration,
    Feeds,
    activation_ranges,
    calibration_feeds,
)
from parefront.spaces.quantization.graph import keep_outputs_float, quiet_quantiser, refusals
from parefront.spaces.quantization.precision import OPSET, Precision
from parefront.spaces.stage import StageContext

STATIC_OPERATORS = (
    *("Conv", "ConvTranspose", "Gemm", "MatMul", "Gather"),
    *("Add", "Mul", "Concat", "Relu", "LeakyRelu", "Clip", "Sigmoid"),
    *("MaxPool", "AveragePool", "GlobalAveragePool", "Pad", "Resize"),
    *("Reshape", "Flatten", "Squeeze", "Unsqueeze", "Transpose", "Split", "Slice"),
)
"""What works on integers after static quantisation.

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

LARGEST_ACTIVATION = 65504.0
"""Beyond what half precision holds, values are masks such as -1e9, not activations.

One of them in the range of a tensor would leave no step for all the others.
"""


def static_int8(
    model: onnx.ModelProto,
    precision: Precision,
    calibration: Calibration,
    correct_bias: bool,
    context: StageContext,
) -> tuple[onnx.ModelProto, int]:
    """A model whose weights and activations are integers, with ranges fixed on examples.

    Args:
        model: Prepared model; the quantiser changes it.
        precision: How many bits there are, and where zero is.
        calibration: How ranges are chosen.
        correct_bias: Whether the mean error of each layer is taken out of its bias.
        context: Where the examples are.

    Returns:
        The quantised model, and how many biases were corrected.

    Raises:
        StageError: If there are no examples, or ONNX Runtime refuses the model.
    """
    if precision.wide:
        with refusals("quantise the exported model"):
            model = version_converter.convert_version(model, OPSET)

    def feeds() -> Iterator[Feeds]:
        return calibration_feeds(model, context)

    expected = channel_means(model, give_biases(model), feeds) if correct_bias else {}
    ranges = activation_ranges(
        model, _activations(model), feeds, calibration, precision.activations
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
            precision.per_channel,
            precision.reduce_range,
            precision.weight_type,
            precision.activation_type,
            TensorsData(CalibrationMethod.MinMax, data),
            [],
            excluded,
            list(STATIC_OPERATORS),
            precision.options,
        )
        quantizer.quantize_model()
        # The quantiser appends its nodes, while a file must list each after those it reads.
        quantizer.model.topological_sort()
        quantized: onnx.ModelProto = quantizer.model.model
    keep_outputs_float(quantized)
    return quantized, correct_biases(quantized, expected, feeds) if correct_bias else 0


def dynamic_int8(model: onnx.ModelProto, per_channel: bool, reduce_range: bool) -> onnx.ModelProto:
    """A model whose weights are on 8 bits, and activations in each run.

    Args:
        model: Prepared model, which stays as it is.
        per_channel: Whether each output channel of a weight has a scale of its own.
        reduce_range: Whether signed weights use 7 bits.

    Raises:
        StageError: If ONNX Runtime refuses the model.
    """
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
                    # Products of unsigned integers alone do not saturate.
                    reduce_range=reduce_range and weight_type == QuantType.QInt8,
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
