"""Shapes of all tensors of an ONNX graph, given those of its inputs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import AttributeProto, ModelProto, NodeProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator

from parefront.errors import MeasurementError
from parefront.objectives.onnx_graph import inputs_of

Value = NDArray[np.generic]

_SHAPE_ARITHMETIC = (
    *("Constant", "Identity", "Gather", "Slice", "Concat", "Unsqueeze", "Squeeze", "Reshape"),
    *("Cast", "Add", "Sub", "Mul", "Div", "Mod", "Neg", "Floor", "Ceil", "Sqrt", "Min", "Max"),
    *("Equal", "Where", "ReduceProd", "Transpose"),
)
"""Operators that exporters compute shapes with; none makes a large tensor of small ones."""
_SMALL = 64
"""More numbers than any shape has."""


@dataclass(frozen=True)
class Shapes:
    """What is known of the tensors of a graph.

    Attributes:
        shapes: Shape of each tensor, where every dimension of it is known.
        types: Element type of each tensor, as a number of `TensorProto.DataType`.
    """

    shapes: Mapping[str, tuple[int, ...]]
    types: Mapping[str, int]

    def of(self, name: str) -> tuple[int, ...]:
        """The shape of a tensor.

        Raises:
            MeasurementError: If it depends on more than the shapes of the inputs.
        """
        if name not in self.shapes:
            raise MeasurementError(
                f"the shape of the tensor {name!r} does not follow from the graph"
            )
        return self.shapes[name]


def infer_shapes(model: ModelProto, inputs: Mapping[str, Sequence[int]]) -> Shapes:
    """Infers shapes, following the arithmetic that a graph does with them.

    ONNX's own inference knows the additions and products of sizes, not their quotients. Where it
    stops, the nodes that compute a shape are evaluated and replaced by what they give.

    Args:
        model: The model; it is changed.
        inputs: Shape of each input; one that is missing keeps what the file says of it.

    Raises:
        MeasurementError: If the graph is malformed.
    """
    for entry in inputs_of(model.graph):
        if entry.name in inputs:
            kind = entry.type.tensor_type.elem_type
            entry.CopyFrom(helper.make_tensor_value_info(entry.name, kind, inputs[entry.name]))
    for entry in model.graph.output:
        entry.type.tensor_type.ClearField("shape")  # it names other sizes
    while True:
        found = _infer(model)
        if not _fold(model, found.shapes):
            return found


def _infer(model: ModelProto) -> Shapes:
    try:
        inferred = onnx.shape_inference.infer_shapes(model, data_prop=True)
    except Exception as error:
        lines = str(error).strip().splitlines() or [type(error).__name__]
        raise MeasurementError(f"shapes cannot be inferred: {lines[0][:400]}") from error
    graph = inferred.graph
    shapes: dict[str, tuple[int, ...]] = {}
    types: dict[str, int] = {}
    for entry in (*graph.value_info, *graph.input, *graph.output):
        tensor = entry.type.tensor_type
        types[entry.name] = tensor.elem_type
        if tensor.HasField("shape") and all(d.HasField("dim_value") for d in tensor.shape.dim):
            shapes[entry.name] = tuple(dim.dim_value for dim in tensor.shape.dim)
    for tensor in graph.initializer:
        shapes[tensor.name], types[tensor.name] = tuple(tensor.dims), tensor.data_type
    for sparse in graph.sparse_initializer:
        name = sparse.values.name
        shapes[name], types[name] = tuple(sparse.dims), sparse.values.data_type
    return Shapes(shapes, types)


def _fold(model: ModelProto, shapes: Mapping[str, tuple[int, ...]]) -> bool:
    """Replaces nodes that compute shapes by their values; returns whether there were any."""
    graph = model.graph
    kept = {entry.name for entry in graph.output}
    values = {
        tensor.name: numpy_helper.to_array(tensor)
        for tensor in graph.initializer
        if int(np.prod(tensor.dims, dtype=np.int64)) <= _SMALL
    }
    folded = False
    nodes = []
    for node in graph.node:
        value = None if kept.intersection(node.output) else _value(node, values, shapes, model)
        if value is None or value.size > _SMALL:
            nodes.append(NodeProto.FromString(node.SerializeToString()))
            continue
        values[node.output[0]] = value
        graph.initializer.append(numpy_helper.from_array(value, node.output[0]))
        folded = True
    del graph.node[:]
    graph.node.extend(nodes)
    return folded


def _value(
    node: NodeProto,
    values: Mapping[str, Value],
    shapes: Mapping[str, tuple[int, ...]],
    model: ModelProto,
) -> Value | None:
    """What a node gives in every run, if it does arithmetic on shapes."""
    if node.op_type in ("Shape", "Size") and node.input[0] in shapes:
        shape = np.array(shapes[node.input[0]], dtype=np.int64)
        if node.op_type == "Size":
            return np.array(shape.prod(), dtype=np.int64)
        bounds = {entry.name: entry.i for entry in node.attribute}
        return shape[bounds.get("start", 0) : bounds.get("end", len(shape))]
    names = [name for name in node.input if name]
    if node.op_type not in _SHAPE_ARITHMETIC or any(name not in values for name in names):
        return None
    if any(entry.type == AttributeProto.TENSOR and _size(entry) > _SMALL
           for entry in node.attribute):  # fmt: skip
        return None
    unknown = onnx.TypeProto()
    graph = helper.make_graph(
        [node],
        "shape",
        [helper.make_value_info(name, unknown) for name in dict.fromkeys(names)],
        [helper.make_value_info(node.output[0], unknown)],
    )
    try:
        single = helper.make_model(graph, opset_imports=model.opset_import)
        feeds = {name: values[name] for name in names}
        (value,) = ReferenceEvaluator(single).run(None, feeds)
        return np.asarray(value)
    except Exception:  # noqa: BLE001 - a node it cannot evaluate is left as it is
        return None


def _size(attribute: AttributeProto) -> int:
    return int(np.prod(attribute.t.dims, dtype=np.int64))
