"""Weights that an exported file holds more than once, such as those of a layer used twice.

Exporters fold what follows a weight, such as a transposition or batch normalisation, into a new
one for each use, so that a layer that is used twice would be stored twice.
"""

from __future__ import annotations

import hashlib
import math

import onnx
from onnx import numpy_helper

from parefront.objectives.targets.runtime import Array

LEAST = 256
"""Elements below which a weight is left as it is: quantisers want small ones, such as biases, to
have one use each."""


def merge_equal_weights(graph: onnx.GraphProto) -> None:
    """Stores equal weights once, in place.

    Weights are equal when their types, shapes and bytes are. A matrix that is the transpose of one
    before it becomes a Transpose node, which depends on no input, so that a runtime computes it
    once when it loads the file. Graphs within which there are others are left alone, since these
    may refer to any name, and so are weights that are also inputs or outputs.
    """
    if any(attribute.HasField("g") for node in graph.node for attribute in node.attribute):
        return
    open_names = {entry.name for entry in (*graph.input, *graph.output)}
    known: dict[object, str] = {}
    same: dict[str, str] = {}
    turned: list[onnx.NodeProto] = []
    kept: list[onnx.TensorProto] = []
    for tensor in graph.initializer:
        if tensor.name in open_names or math.prod(tensor.dims) < LEAST:
            kept.append(tensor)
            continue
        array = numpy_helper.to_array(tensor)
        key = _key(tensor.data_type, array)
        if key in known:
            same[tensor.name] = known[key]
            continue
        if array.ndim == 2:
            across = _key(tensor.data_type, array.T)
            if across in known:
                turned.append(
                    onnx.helper.make_node(
                        "Transpose",
                        [known[across]],
                        [tensor.name],
                        name=f"{tensor.name}_turned",
                        perm=[1, 0],
                    )
                )
                continue
        known[key] = tensor.name
        kept.append(tensor)
    if not same and not turned:
        return
    for node in graph.node:
        for index, name in enumerate(node.input):
            node.input[index] = same.get(name, name)
    # Copies, because what is deleted from a message is gone.
    nodes = [onnx.NodeProto.FromString(n.SerializeToString()) for n in (*turned, *graph.node)]
    del graph.node[:]
    graph.node.extend(nodes)
    tensors = [onnx.TensorProto.FromString(tensor.SerializeToString()) for tensor in kept]
    del graph.initializer[:]
    graph.initializer.extend(tensors)


def _key(data_type: int, array: Array) -> object:
    return data_type, array.shape, hashlib.sha256(array.tobytes()).digest()
