"""What an ONNX file says before anything is run: its graph, its constants and what reads them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import onnx
import onnx.inliner
from google.protobuf.message import DecodeError
from onnx import AttributeProto, GraphProto, ModelProto, NodeProto, TensorProto, helper

from parefront.errors import MeasurementError

_STANDARD = ("", "ai.onnx")
_LARGE = 1024
"""A tensor with more elements decides no shape; its values are dropped."""

_RANDOM = (
    *("RandomNormal", "RandomNormalLike", "RandomUniform", "RandomUniformLike"),
    *("Bernoulli", "Multinomial"),
)


@dataclass(frozen=True)
class OnnxGraph:
    """An ONNX file with standard operators only, without the values of large tensors.

    Attributes:
        model: The model; functions are inlined, and ONNX Runtime's own operators replaced by
            standard ones that multiply as much. Good for counting, not for running.
        constants: Names of the tensors that are the same in every run: initializers, and what is
            computed from nothing else.
        sources: For each computed constant that has the elements of another one in another shape,
            type or order, that one's name.
    """

    model: ModelProto
    constants: frozenset[str]
    sources: Mapping[str, str]

    def origin(self, name: str) -> str:
        """The constant that holds the elements of another."""
        while name in self.sources:
            name = self.sources[name]
        return name


_SAME_ELEMENTS = (
    *("Identity", "Reshape", "Transpose", "Squeeze", "Unsqueeze", "Flatten"),
    *("Cast", "QuantizeLinear", "DequantizeLinear"),
)
"""Operators whose output has an element for each of their first input's."""


def read_graph(path: Path) -> OnnxGraph:
    """Reads an ONNX file for counting.

    Raises:
        MeasurementError: If it cannot be read, is no ONNX file, or has operators of a domain
            that nothing is known about.
    """
    model = _standard(_inlined(_load(path), path.name))
    _drop_values(model.graph)
    constants = {tensor.name for tensor in model.graph.initializer}
    constants |= {tensor.values.name for tensor in model.graph.sparse_initializer}
    constants -= {entry.name for entry in model.graph.input}  # a default, not a constant
    sources: dict[str, str] = {}
    for node in model.graph.node:
        inputs = [name for name in node.input if name]
        if node.op_type in _RANDOM or subgraphs(node) or not constants.issuperset(inputs):
            continue
        constants.update(name for name in node.output if name)
        if node.op_type in _SAME_ELEMENTS:
            sources[node.output[0]] = node.input[0]
    return OnnxGraph(model, frozenset(constants), sources)


def fixed_batch(path: Path) -> int | None:
    """Examples that one run of an ONNX file must have, or `None` if any number will do.

    Raises:
        MeasurementError: If it cannot be read or is no ONNX file.
    """
    return _batch(_load(path).graph)


def inputs_of(graph: GraphProto) -> list[onnx.ValueInfoProto]:
    """The inputs that a run must feed."""
    defaults = {tensor.name for tensor in graph.initializer}
    return [entry for entry in graph.input if entry.name not in defaults]


def example_shapes(
    graph: GraphProto, batch: Mapping[str, Sequence[int]]
) -> tuple[int, dict[str, list[int]]]:
    """Shapes of the inputs for a run of as few examples as possible.

    Args:
        graph: The graph.
        batch: Shape of each input, batch first; only what the file leaves open is taken from it.

    Returns:
        Examples in the run, 1 unless the file fixes another number, and the shapes by name.

    Raises:
        MeasurementError: If an input is missing or has another number of dimensions.
    """
    examples = _batch(graph) or 1
    shapes = {}
    for entry in inputs_of(graph):
        own = entry.type.tensor_type.shape.dim
        given = batch.get(entry.name)
        if given is None or len(given) != len(own):
            raise MeasurementError(
                f"expected an input {entry.name!r} with {len(own)} dimensions, got "
                f"{'none' if given is None else f'one with {len(given)}'}"
            )
        shapes[entry.name] = [
            dim.dim_value if dim.HasField("dim_value") else examples if axis == 0 else size
            for axis, (dim, size) in enumerate(zip(own, given, strict=True))
        ]
    return examples, shapes


def subgraphs(node: NodeProto) -> list[GraphProto]:
    """The graphs that a control-flow operator runs."""
    single = [entry.g for entry in node.attribute if entry.type == AttributeProto.GRAPH]
    several = [entry.graphs for entry in node.attribute if entry.type == AttributeProto.GRAPHS]
    return [*single, *(graph for graphs in several for graph in graphs)]


def attribute(node: NodeProto, name: str, default: int) -> int:
    """A whole number that a node carries."""
    return next((entry.i for entry in node.attribute if entry.name == name), default)


def _load(path: Path) -> ModelProto:
    try:
        model = onnx.load(path, load_external_data=False)
    except (OSError, DecodeError) as error:
        raise MeasurementError(f"cannot read {path.name} as an ONNX file: {error}") from error
    if not model.graph.node:
        raise MeasurementError(f"cannot read {path.name} as an ONNX file: it has no operators")
    return model


def _batch(graph: GraphProto) -> int | None:
    first = [entry.type.tensor_type.shape.dim[:1] for entry in inputs_of(graph)]
    return next((dim.dim_value for dims in first for dim in dims if dim.dim_value > 0), None)


def _inlined(model: ModelProto, name: str) -> ModelProto:
    if not model.functions:
        return model
    try:
        return onnx.inliner.inline_local_functions(model)
    except Exception as error:
        raise MeasurementError(f"the functions of {name} cannot be resolved: {error}") from error


def _standard(model: ModelProto) -> ModelProto:
    """Replaces ONNX Runtime's own operators."""
    nodes: list[NodeProto] = []
    for node in model.graph.node:
        if node.domain in _STANDARD:
            nodes.append(node)
        elif node.op_type == "DynamicQuantizeLSTM":
            nodes.append(_lstm(node))
        elif node.op_type == "MatMulNBits":
            weight = f"{node.output[0]}::weight"
            model.graph.initializer.append(
                TensorProto(
                    name=weight,
                    data_type=TensorProto.FLOAT,
                    dims=[attribute(node, "K", 0), attribute(node, "N", 0)],
                )
            )
            nodes += _matmul(node, weight)
        else:
            raise MeasurementError(
                f"cannot count what the operator {node.domain}.{node.op_type} does: it is not "
                "one of ONNX's own"
            )
    kept = [NodeProto.FromString(node.SerializeToString()) for node in nodes]
    del model.graph.node[:]
    model.graph.node.extend(kept)
    return model


def _lstm(node: NodeProto) -> NodeProto:
    # Scales and zero points follow the inputs that an LSTM has too.
    known = [entry for entry in node.attribute if entry.name not in {"input_forget"}]
    lstm = helper.make_node("LSTM", list(node.input[:8]), list(node.output), name=node.name)
    lstm.attribute.extend(known)
    return lstm


def _matmul(node: NodeProto, weight: str) -> list[NodeProto]:
    product, bias = node.output[0], node.input[5] if len(node.input) > 5 else ""
    if not bias:
        return [helper.make_node("MatMul", [node.input[0], weight], [product], name=node.name)]
    before = f"{product}::before_bias"
    return [
        helper.make_node("MatMul", [node.input[0], weight], [before], name=node.name),
        helper.make_node("Add", [before, bias], [product]),
    ]


def _drop_values(graph: GraphProto) -> None:
    """Forgets the values of tensors too large to decide a shape, and shapes noted by others."""
    graph.ClearField("value_info")
    tensors = list(graph.initializer)
    for node in graph.node:
        tensors += [entry.t for entry in node.attribute if entry.type == AttributeProto.TENSOR]
    for tensor in tensors:
        count = 1
        for size in tensor.dims:
            count *= size
        if count > _LARGE:
            dims, kind, name = list(tensor.dims), tensor.data_type, tensor.name
            tensor.Clear()
            tensor.name, tensor.data_type = name, kind
            tensor.dims.extend(dims)
