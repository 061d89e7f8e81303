"""Multiply-accumulate operations of the artifact."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

from onnx import NodeProto

from parefront.errors import MeasurementError
from parefront.objectives.artifact import Artifact
from parefront.objectives.measurement import Direction, Measurement
from parefront.objectives.objective import Scene
from parefront.objectives.onnx_graph import (
    OnnxGraph,
    attribute,
    example_shapes,
    read_graph,
    subgraphs,
)
from parefront.objectives.onnx_shapes import Shapes, infer_shapes


def _convolution(weight: int) -> Callable[[NodeProto, Shapes], int]:
    def macs(node: NodeProto, known: Shapes) -> int:
        # Each output is the sum over (channels of a group, *kernel).
        kernel = known.of(node.input[weight])[1:]
        return math.prod(known.of(node.output[0])) * math.prod(kernel)

    return macs


def _transposed_convolution(node: NodeProto, known: Shapes) -> int:
    # Each input spreads over (channels of a group, *kernel).
    kernel = known.of(node.input[1])[1:]
    return math.prod(known.of(node.input[0])) * math.prod(kernel)


def _product(left: int) -> Callable[[NodeProto, Shapes], int]:
    def macs(node: NodeProto, known: Shapes) -> int:
        return math.prod(known.of(node.output[0])) * known.of(node.input[left])[-1]

    return macs


def _gemm(node: NodeProto, known: Shapes) -> int:
    rows, columns = known.of(node.input[0])
    inner = rows if attribute(node, "transA", 0) else columns
    return math.prod(known.of(node.output[0])) * inner


def _recurrent(node: NodeProto, known: Shapes) -> int:
    # Every step multiplies the input by W and the state by R, for each example.
    steps, examples, _ = known.of(node.input[0])  # in either order of the two
    weights = sum(math.prod(known.of(name)) for name in node.input[1:3])
    return steps * examples * weights


def _einsum(node: NodeProto, known: Shapes) -> int:
    equation = next(entry.s.decode() for entry in node.attribute if entry.name == "equation")
    terms = equation.replace(" ", "").split("->")[0].split(",")
    if len(terms) != 2 or "." in equation:
        raise MeasurementError(f"cannot count the products of the Einsum {equation!r}")
    sizes: dict[str, int] = {}
    for term, name in zip(terms, node.input, strict=True):
        for letter, size in zip(term, known.of(name), strict=True):
            sizes[letter] = max(size, sizes.get(letter, 1))  # 1 is stretched
    return math.prod(sizes.values())


COUNTED: Mapping[str, Callable[[NodeProto, Shapes], int]] = {
    "Conv": _convolution(1),
    "ConvInteger": _convolution(1),
    "QLinearConv": _convolution(3),
    "ConvTranspose": _transposed_convolution,
    "Gemm": _gemm,
    "MatMul": _product(0),
    "MatMulInteger": _product(0),
    "QLinearMatMul": _product(0),
    "LSTM": _recurrent,
    "GRU": _recurrent,
    "RNN": _recurrent,
    "Einsum": _einsum,
}
"""Operators whose products are counted; what works element by element is not."""

_NOT_COUNTED = frozenset({"Attention", "DeformConv", "STFT", "DFT"})
"""Operators that multiply and accumulate in ways that are not counted."""


def count_macs(graph: OnnxGraph, batch: Mapping[str, tuple[int, ...]]) -> float:
    """Counts the multiply-accumulate operations of one example.

    Args:
        graph: The graph.
        batch: Shape of each input, batch first, for sizes that the file leaves open.

    Raises:
        MeasurementError: If a shape does not follow from the graph, or it multiplies in ways
            that are not counted: in loops and branches, or by an operator of its own kind.
    """
    examples, shapes = example_shapes(graph.model.graph, batch)
    known = infer_shapes(graph.model, shapes)
    total = 0
    for node in graph.model.graph.node:
        inner = _inside(node)
        if inner or node.op_type in _NOT_COUNTED:
            where = f"{inner} inside {node.op_type}" if inner else node.op_type
            raise MeasurementError(f"cannot count the multiplications of {where}")
        if node.op_type in COUNTED and not graph.constants.issuperset(node.output):
            total += COUNTED[node.op_type](node, known)
    return total / examples


class Macs:
    """Multiply-accumulate operations of one example, a plain number; lower is better.

    It is a poor guide to latency, which depends on the runtime and the shapes of layers; it is
    what papers report.
    """

    name = "macs"
    column = "macs"
    unit = ""
    dear = False
    noisy = False
    on_device = False
    log = True

    def direction(self, metric: Direction) -> Direction:  # noqa: ARG002
        """Less work is better."""
        return Direction.MINIMIZE

    def measure(self, artifact: Artifact, scene: Scene) -> Measurement:
        """Counts the work in the graph, for inputs like the scene's.

        Raises:
            MeasurementError: If it is no ONNX file, cannot be counted, or multiplies nothing.
        """
        if artifact.format != "onnx":
            raise MeasurementError(
                f"MACs are counted in ONNX files only, got the format {artifact.format!r}"
            )
        shapes = {name: array.shape for name, array in scene.batch.items()}
        count = count_macs(read_graph(artifact.path), shapes)
        if count == 0:
            raise MeasurementError(
                f"{artifact.path.name} has none of the operators whose multiplications are "
                f"counted: {', '.join(COUNTED)}"
            )
        return Measurement.exact(count, self.unit, "counted in the graph")


def _inside(node: NodeProto) -> str | None:
    """An operator that multiplies in a graph that the node runs."""
    for graph in subgraphs(node):
        for each in graph.node:
            found = each.op_type if each.op_type in {*COUNTED, *_NOT_COUNTED} else _inside(each)
            if found:
                return found
    return None
