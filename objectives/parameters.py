"""Number of parameters in the artifact."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator

from onnx import NodeProto, TensorProto

from parefront.errors import MeasurementError
from parefront.objectives.artifact import Artifact
from parefront.objectives.measurement import Direction, Measurement
from parefront.objectives.objective import Scene
from parefront.objectives.onnx_graph import OnnxGraph, read_graph, subgraphs
from parefront.objectives.onnx_shapes import infer_shapes

_NUMBERS = frozenset(
    value
    for name, value in TensorProto.DataType.items()
    if name in {"FLOAT", "DOUBLE", "FLOAT16", "BFLOAT16", "INT8", "UINT8"}
    or name.startswith(("FLOAT8", "FLOAT4", "INT4", "UINT4", "INT2", "UINT2"))
)
"""Types of weights: floating point, and whole numbers of at most 8 bits."""

_NOT_WEIGHTS: dict[str, frozenset[int]] = {
    "QuantizeLinear": frozenset({1, 2}),
    "DequantizeLinear": frozenset({1, 2}),
    "MatMulInteger": frozenset({2, 3}),
    "ConvInteger": frozenset({2, 3}),
    "QLinearConv": frozenset({1, 2, 4, 5, 6, 7}),
    "QLinearMatMul": frozenset({1, 2, 4, 5, 6, 7}),
    "BatchNormalization": frozenset({3, 4}),
    "LSTM": frozenset({4, 5, 6}),
    "GRU": frozenset({4, 5}),
    "RNN": frozenset({4, 5}),
    "Resize": frozenset({1, 2}),
    "Upsample": frozenset({1}),
}
"""Inputs, by position, that are no weights: scales and zero points, the statistics of batch
normalisation, the first state of recurrent layers, and the scales of images."""

_ARITHMETIC = (
    *("Mul", "Div", "Sub", "Pow", "Mod", "Min", "Max", "Where"),
    *("Equal", "Greater", "GreaterOrEqual", "Less", "LessOrEqual"),
)
"""Operators whose constants of one element are settings of the model, such as a head's scale."""

_BIASES = {"QLinearConv": 8}
"""Inputs that are weights although they are 32-bit whole numbers."""


def count_parameters(graph: OnnxGraph) -> int:
    """Counts the weights a graph computes with.

    A weight is a constant of floating point or of at most 8 bits, with one dimension or more,
    that a node reads together with what depends on the inputs. A constant that is unpacked when
    the file is loaded counts as it is unpacked: dequantised, looked up in a codebook, scattered.
    One that is read several times, or transposed, counts once. Scalars, single numbers that are
    multiplied or compared, scales, zero points and running statistics do not count. Tables that
    torch calls buffers, such as codes of positions, do: the file does not tell them apart.

    Raises:
        MeasurementError: If the shape of a weight does not follow from the graph.
    """
    read = list(_read(graph, graph.model.graph.node))
    known = infer_shapes(graph.model, {})
    counted: dict[str, int] = {}
    for operator, index, name in read:
        if known.types.get(name) in _NUMBERS or _BIASES.get(operator) == index:
            shape = known.of(name)
            setting = not shape or (math.prod(shape) == 1 and operator in _ARITHMETIC)
            origin = graph.origin(name)
            counted[origin] = max(counted.get(origin, 0), 0 if setting else math.prod(shape))
    return sum(counted.values())


class Parameters:
    """Weights of an ONNX file as its graph uses them, a plain number; lower is better.

    It says nothing about speed or bytes; it is what papers report.
    """

    name = "parameters"
    column = "parameters"
    unit = ""
    dear = False
    noisy = False
    on_device = False
    log = True

    def direction(self, metric: Direction) -> Direction:  # noqa: ARG002
        """Fewer parameters are better."""
        return Direction.MINIMIZE

    def measure(self, artifact: Artifact, scene: Scene) -> Measurement:  # noqa: ARG002
        """Counts the weights in the file.

        Raises:
            MeasurementError: If it is no ONNX file, cannot be counted, or has no weights.
        """
        if artifact.format != "onnx":
            raise MeasurementError(
                f"parameters are counted in ONNX files only, got the format {artifact.format!r}"
            )
        count = count_parameters(read_graph(artifact.path))
        if count == 0:
            raise MeasurementError(f"{artifact.path.name} has no weights to count")
        return Measurement.exact(count, self.unit, "counted in the graph")


def _read(graph: OnnxGraph, nodes: Iterable[NodeProto]) -> Iterator[tuple[str, int, str]]:
    """Constants read besides what depends on the inputs: operator, position of the input, name."""
    scales = {
        node.output[1] for node in graph.model.graph.node if node.op_type == "DynamicQuantizeLinear"
    }
    for node in nodes:
        for inner in subgraphs(node):
            yield from _read(graph, inner.node)
        if graph.constants.issuperset(node.output):
            continue
        if node.op_type == "Mul" and scales.intersection(node.input):
            continue  # joins the scale of the weight to that of the input
        for index, name in enumerate(node.input):
            skipped = index in _NOT_WEIGHTS.get(node.op_type, frozenset())
            if name in graph.constants and not skipped:
                yield node.op_type, index, name
