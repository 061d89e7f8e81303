"""Bias correction: the mean error that quantisation makes, taken out of the biases.

Nagel et al. 2019, "Data-free quantization through weight equalization and bias correction",
section 4.2, in its empirical form (appendix D). Rounded weights and activations shift the mean of
an output channel; the shift is measured on calibration examples and subtracted from the bias. It
goes from the inputs to the outputs, so that each layer is corrected for what the corrected layers
before it leave.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import numpy_helper

from parefront.spaces.quantization.calibration import Feeds, observer
from parefront.spaces.quantization.graph import nodes_on_integers

Means = Mapping[str, NDArray[np.float64]]
"""Mean of each output channel, by the name of the node."""

CORRECTED = ("Conv", "Gemm")
_INT32 = np.iinfo(np.int32)


def give_biases(model: onnx.ModelProto) -> list[str]:
    """Gives each convolution and Gemm a bias of its own, in place; what it computes stays.

    Args:
        model: Model of floating-point numbers whose nodes have names.

    Returns:
        The names of the nodes whose bias can be corrected: those with a constant weight, and a
        bias that has one number for each output channel.
    """
    graph = model.graph
    tensors = {tensor.name: tensor for tensor in graph.initializer}
    taken = {*tensors, *(name for node in graph.node for name in node.output)}
    found = []
    for node in graph.node:
        weight = tensors.get(node.input[1]) if node.op_type in CORRECTED else None
        if node.domain or weight is None or weight.data_type != onnx.TensorProto.FLOAT:
            continue
        attributes = {each.name: each for each in node.attribute}
        if "beta" in attributes and attributes["beta"].f != 1:
            continue
        columns = node.op_type == "Gemm" and not ("transB" in attributes and attributes["transB"].i)
        channels = weight.dims[1 if columns else 0]
        values = np.zeros(channels, np.float32)
        if len(node.input) > 2 and node.input[2]:
            bias = tensors.get(node.input[2])
            if bias is None or list(bias.dims) != [channels]:
                continue
            values = numpy_helper.to_array(bias)
        name = f"{node.name}.bias"
        while name in taken:
            name += "_"
        taken.add(name)
        graph.initializer.append(numpy_helper.from_array(values, name))
        del node.input[2:]
        node.input.append(name)
        found.append(node.name)
    read = {name for node in graph.node for name in node.input}
    read.update(entry.name for entry in graph.output)
    nested = any(attribute.g.node for node in graph.node for attribute in node.attribute)
    if not nested:  # what is inside a node may read any tensor
        kept = [tensor for tensor in graph.initializer if tensor.name in read]
        graph.ClearField("initializer")
        graph.initializer.extend(kept)
    return found


def channel_means(
    model: onnx.ModelProto, nodes: Sequence[str], batches: Callable[[], Iterable[Feeds]]
) -> Means:
    """The mean of each output channel of some nodes, over examples and positions.

    Args:
        model: Model to run.
        nodes: Names of nodes whose output has its channels on axis 1.
        batches: Called for the pass over the examples.

    Raises:
        StageError: If ONNX Runtime cannot run the model on the examples.
    """
    if not nodes:
        return {}
    outputs = {node.name: node.output[0] for node in model.graph.node}
    run = observer(model, [outputs[name] for name in nodes])
    sums: dict[str, NDArray[np.float64]] = {}
    counts: dict[str, int] = defaultdict(int)
    for feeds in batches():
        for name, values in zip(nodes, run(feeds), strict=True):
            axes = (0, *range(2, values.ndim))
            total = values.sum(axis=axes, dtype=np.float64)
            sums[name] = sums[name] + total if name in sums else total
            counts[name] += values.size // max(values.shape[1], 1)
    return {name: total / max(counts[name], 1) for name, total in sums.items()}


def correct_biases(
    model: onnx.ModelProto, expected: Means, batches: Callable[[], Iterable[Feeds]]
) -> int:
    """Makes the means of a quantised model's layers those of the float model, in place.

    Each pass over the examples corrects all layers that have as many corrected ones before them.

    Args:
        model: Model after static quantisation, with the biases of `give_biases`; int32 biases are
            changed, and nothing else.
        expected: Means of the model before quantisation; layers that are not in it, or not
            quantised, stay.
        batches: Called for each pass over the examples.

    Returns:
        How many layers were corrected.

    Raises:
        StageError: If ONNX Runtime cannot run the model on the examples.
    """
    graph = model.graph
    tensors = {tensor.name: tensor for tensor in graph.initializer}
    dequantized = {n.output[0]: n for n in graph.node if n.op_type == "DequantizeLinear"}
    biases = {}
    for node in nodes_on_integers(model):
        source = dequantized.get(node.input[2]) if len(node.input) > 2 else None
        stored = tensors.get(source.input[0]) if source is not None else None
        if node.name in expected and source is not None and stored is not None:
            scale = numpy_helper.to_array(tensors[source.input[1]])
            biases[node.name] = stored, scale.astype(np.float64)
    for level in _levels(model, biases):
        found = channel_means(model, level, batches)
        for name in level:
            stored, scale = biases[name]
            steps = (found[name] - expected[name]) / scale
            values = numpy_helper.to_array(stored) - np.rint(np.where(np.isfinite(steps), steps, 0))
            values = np.clip(values, _INT32.min, _INT32.max).astype(np.int32)
            stored.CopyFrom(numpy_helper.from_array(values, stored.name))
    return len(biases)


def _levels(model: onnx.ModelProto, names: Iterable[str]) -> list[list[str]]:
    """The nodes, those first that have none of the others before them."""
    wanted = set(names)
    depth: dict[str, int] = {}
    levels: dict[int, list[str]] = defaultdict(list)
    for node in model.graph.node:
        before = max((depth.get(name, 0) for name in node.input), default=0)
        if node.name in wanted:
            levels[before].append(node.name)
            before += 1
        depth.update(dict.fromkeys(node.output, before))
    return [levels[index] for index in sorted(levels)]
