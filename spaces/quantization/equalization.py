"""Cross-layer equalisation: channels of consecutive layers rescaled so that 8 bits lose less.

Nagel et al. 2019, "Data-free quantization through weight equalization and bias correction",
section 4.1. Where a layer's output reaches one other layer through nothing but operators that
commute with a positive factor for each channel, dividing an output channel of the first by `s` and
multiplying what the second reads of it by `s` leaves the result as it is. With
`s = sqrt(r1 * r2) / r2` both have the same largest weight in that channel, and one scale for a
whole tensor fits all channels.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Literal

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import numpy_helper

Floats = NDArray[np.float64]
Layout = Literal["images", "rows"]
"""Where channels are: `"images"` on axis 1, `"rows"` on the last axis."""

ANYWHERE = frozenset({"Relu", "LeakyRelu"})
"""f(s * x) = s * f(x) for s > 0, value by value."""
IN_IMAGES = frozenset({"MaxPool", "AveragePool", "GlobalAveragePool", "GlobalMaxPool"})
"""Each channel alone: a maximum (padding never wins it) or a mean (padding is zero or left out)."""
LINEAR = frozenset({"Gemm", "MatMul"})

TOLERANCE = 1e-4
"""Sweeps end when no factor is further from 1."""
SWEEPS = 100
LARGEST_FACTOR = 1e4
"""Bound of one factor: channels that are all but zero stay so."""
BIAS_GROWTH = 2.0
"""No bias becomes larger than this times the largest of its layer.

Else a channel whose weights are all but zero, but not its bias, would take the whole range of the
activations, which have one scale. The paper moves such biases to the next layer instead.
"""


@dataclass(frozen=True)
class _Pair:
    """Two layers between which channels can be rescaled.

    Attributes:
        first: Node whose output channels are rescaled.
        biased: Node and position of the input that is added to these channels, if there is one.
        second: Node that reads them.
        channels: Number of channels.
    """

    first: onnx.NodeProto
    biased: tuple[onnx.NodeProto, int] | None
    second: onnx.NodeProto
    channels: int


def equalize(model: onnx.ModelProto, tick: Callable[[], None] = lambda: None) -> int:
    """Rescales the weights and biases of a model in place; what it computes stays.

    Weights that several nodes share are left alone, as two copies would make the file larger.

    Args:
        model: Model with batch normalisation fused and constants folded; it is changed.
        tick: Called after each sweep over the pairs.

    Returns:
        Between how many pairs of layers channels were rescaled.
    """
    graph = model.graph
    pairs = list(_pairs(graph))
    if not pairs:
        return 0
    tensors = {tensor.name: tensor for tensor in graph.initializer}
    names = {node.input[1] for pair in pairs for node in (pair.first, pair.second)}
    weights = {name: _values(tensors[name]) for name in sorted(names)}
    biases = [
        _values(tensors[pair.biased[0].input[pair.biased[1]]]) if pair.biased else np.zeros(1)
        for pair in pairs
    ]
    limits = [BIAS_GROWTH * np.abs(bias).max() for bias in biases]
    for _ in range(SWEEPS):
        furthest = 0.0
        for index, pair in enumerate(pairs):
            rows = _outgoing(pair.first, weights[pair.first.input[1]])
            blocks = _incoming(pair.second, weights[pair.second.input[1]], pair.channels)
            factors = _factors(rows, blocks, biases[index], limits[index])
            rows /= factors[:, None]
            blocks *= factors.reshape(blocks.shape[0], 1, blocks.shape[2], 1)
            biases[index] = biases[index] / factors
            furthest = max(furthest, float(np.abs(np.log(factors)).max()))
        tick()
        if furthest <= TOLERANCE:
            break
    for name, values in weights.items():
        _write(tensors[name], values)
    for pair, bias in zip(pairs, biases, strict=True):
        if pair.biased:
            node, position = pair.biased
            _write(_own_initializer(graph, node, position), bias)
    return len(pairs)


def _own_initializer(
    graph: onnx.GraphProto, node: onnx.NodeProto, position: int
) -> onnx.TensorProto:
    """The initializer that a node reads, copied before if any other node reads it too.

    Exporters store equal tensors once, such as biases that are all zero.
    """
    name = node.input[position]
    tensor: onnx.TensorProto = next(each for each in graph.initializer if each.name == name)
    if _readers(graph)[name] == 1:
        return tensor
    taken = {each.name for each in graph.initializer} | {o for n in graph.node for o in n.output}
    fresh = f"{name}_{node.name}"
    while fresh in taken:
        fresh += "_"
    copy: onnx.TensorProto = graph.initializer.add()
    copy.CopyFrom(tensor)
    copy.name = fresh
    node.input[position] = fresh
    return copy


def _factors(rows: Floats, blocks: Floats, bias: Floats, limit: float) -> Floats:
    """The factor of each channel; 1 where one of the layers has no weight in it."""
    first, second = np.abs(rows).max(axis=1), np.abs(blocks).max(axis=(1, 3)).ravel()
    used = (first > 0) & (second > 0) & np.isfinite(first) & np.isfinite(second)
    factors = np.ones(len(first))
    np.divide(np.sqrt(first) * np.sqrt(second), second, out=factors, where=used)
    factors = np.clip(factors, 1 / LARGEST_FACTOR, LARGEST_FACTOR)
    if limit > 0:
        largest = np.abs(bias).reshape(-1, bias.shape[-1] if bias.ndim else 1).max(axis=0)
        factors = np.where(used, np.maximum(factors, largest / limit), factors)
    return factors


def _outgoing(node: onnx.NodeProto, weight: Floats) -> Floats:
    """A view of the weight of shape (output channels, all others)."""
    if node.op_type == "Conv":
        return weight.reshape(len(weight), -1)
    return weight if _attribute(node, "transB", 0) else weight.T


def _incoming(node: onnx.NodeProto, weight: Floats, channels: int) -> Floats:
    """A view of the weight of shape (a, any, b, any), with a * b input channels in order."""
    if node.op_type == "Conv":
        groups = _attribute(node, "group", 1)
        return weight.reshape(groups, len(weight) // groups, weight.shape[1], -1)
    columns = weight.T if _attribute(node, "transB", 0) else weight
    # Flattened images have as many columns for each channel as they have pixels.
    return columns.reshape(channels, len(columns) // channels, 1, -1)


def _pairs(graph: onnx.GraphProto) -> Iterator[_Pair]:
    """The pairs of layers, in the order of the graph."""
    readers = _readers(graph)
    reader = {name: node for node in graph.node for name in node.input}
    given = {entry.name for entry in graph.input}
    constants = {each.name: each for each in graph.initializer if each.name not in given}

    def layer(node: onnx.NodeProto) -> bool:
        """Whether a node multiplies a constant of its own."""
        if node.domain or not (node.op_type == "Conv" or node.op_type in LINEAR):
            return False
        weight = constants.get(node.input[1])
        return (
            weight is not None
            and weight.data_type == onnx.TensorProto.FLOAT
            and (node.op_type == "Conv" or len(weight.dims) == 2)
            and 0 not in weight.dims
            and readers[weight.name] == 1
            and not _attribute(node, "transA", 0)
        )

    def after(node: onnx.NodeProto) -> onnx.NodeProto | None:
        """The only node that reads the output of a node."""
        name = node.output[0]
        if readers[name] != 1 or any(node.output[1:]):
            return None
        return reader.get(name)

    for first in graph.node:
        if not layer(first):
            continue
        biased = (first, 2) if len(first.input) > 2 and first.input[2] else None
        following = after(first)
        if first.op_type == "MatMul" and following is not None and following.op_type == "Add":
            biased = (following, 0 if following.input[1] == first.output[0] else 1)
            following = after(following)
        channels = _outputs(first, constants[first.input[1]])
        if biased and not _adds(constants.get(biased[0].input[biased[1]]), channels):
            continue
        last = biased[0] if biased else first
        layout: Layout = "images" if first.op_type == "Conv" else "rows"
        flat = False
        while following is not None and not following.domain:
            if following.op_type == "Flatten" and layout == "images":
                if _attribute(following, "axis", 1) != 1:
                    break
                layout, flat = "rows", True
            elif following.op_type not in (ANYWHERE | (IN_IMAGES if layout == "images" else set())):
                break
            last, following = following, after(following)
        if following is None or not layer(following) or following.input[0] != last.output[0]:
            continue
        inputs = _inputs(following, constants[following.input[1]])
        fits = inputs % channels == 0 if flat else inputs == channels
        if fits and (layout == "images") == (following.op_type == "Conv"):
            yield _Pair(first, biased, following, channels)


def _adds(tensor: onnx.TensorProto | None, channels: int) -> bool:
    """Whether a tensor adds constant numbers to the channels on the last axis of its own."""
    return (
        tensor is not None
        and tensor.data_type == onnx.TensorProto.FLOAT
        and 0 not in tensor.dims
        and (not tensor.dims or tensor.dims[-1] in (1, channels))
    )


def _outputs(node: onnx.NodeProto, weight: onnx.TensorProto) -> int:
    first = node.op_type == "Conv" or _attribute(node, "transB", 0)
    return int(weight.dims[0 if first else 1])


def _inputs(node: onnx.NodeProto, weight: onnx.TensorProto) -> int:
    if node.op_type == "Conv":
        return int(weight.dims[1]) * _attribute(node, "group", 1)
    return int(weight.dims[1 if _attribute(node, "transB", 0) else 0])


def _readers(graph: onnx.GraphProto) -> Counter[str]:
    """How often each tensor is read, by nodes, the nodes inside them, or as an output."""
    found = Counter(entry.name for entry in graph.output)
    for node in graph.node:
        found.update(node.input)
        for attribute in node.attribute:
            for inner in (attribute.g, *attribute.graphs):
                found.update(_readers(inner))
    return found


def _attribute(node: onnx.NodeProto, name: str, default: int) -> int:
    return next((int(each.i) for each in node.attribute if each.name == name), default)


def _values(tensor: onnx.TensorProto) -> Floats:
    return numpy_helper.to_array(tensor).astype(np.float64)


def _write(tensor: onnx.TensorProto, values: Floats) -> None:
    tensor.CopyFrom(numpy_helper.from_array(values.astype(np.float32), tensor.name))
