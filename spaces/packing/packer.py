"""Stores each large tensor of an exported model in the smallest way that gives it back exactly."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence

import numpy as np
import onnx
from onnx import numpy_helper

from parefront.spaces.packing.codebook import Codebook, RowCodebooks
from parefront.spaces.packing.coding import Array, Coding, Pack, Packed
from parefront.spaces.packing.fixed_point import FixedPoint
from parefront.spaces.packing.halves import BFloat16, Float16
from parefront.spaces.packing.scaled import Scaled
from parefront.spaces.packing.sparse import Sparse

CODINGS: tuple[Coding, ...] = (
    Float16(), BFloat16(), FixedPoint(), Codebook(), RowCodebooks(), Scaled(), Sparse(),
)  # fmt: skip
LEAST = 256
"""Elements below which a tensor is left alone: the nodes would be larger than what they save."""
_TYPES = (np.float32, np.int8, np.uint8, np.int16, np.uint16)


def smallest(name: str, array: Array, codings: Sequence[Coding] = CODINGS) -> Packed:
    """The smallest way to store a tensor, which may be to store it as it is.

    Args:
        name: Name of the tensor.
        array: Any shape and type; what no coding knows is stored as it is.
        codings: Codings to choose from.
    """
    plain = Packed("none", (numpy_helper.from_array(np.array(array, order="C"), name),))
    if array.dtype not in _TYPES or array.size < LEAST:
        return plain
    found = (coding.pack(name, array, _within(coding, codings)) for coding in codings)
    return min(
        [plain, *(packed for packed in found if packed is not None)],
        key=lambda packed: packed.size,
    )


def _within(coding: Coding, codings: Sequence[Coding]) -> Pack:
    """Stores a part of what a coding stores: in another way, or it would never end."""
    others = [each for each in codings if each is not coding]
    return lambda name, array: smallest(name, array, others)


def pack(
    model: onnx.ModelProto,
    codings: Sequence[Coding] = CODINGS,
    tick: Callable[[], None] = lambda: None,
) -> tuple[onnx.ModelProto, dict[str, int]]:
    """A copy of a model that holds the same weights in fewer bytes.

    Zeros lose their sign: an exporter that multiplies pruned weights by the scales of batch
    normalisation leaves zeros of both signs, which would be two values. Weights within the bodies
    of loops and branches are left as they are.

    Args:
        model: An exported model.
        codings: Codings to choose from.
        tick: Called before each tensor; what it raises ends the work.

    Returns:
        The copy, and how many tensors are stored in each way but as they are.
    """
    packed = onnx.ModelProto()
    packed.CopyFrom(model)
    graph = packed.graph
    given = {each.name for each in graph.input}
    tensors = list(graph.initializer)
    nodes: list[onnx.NodeProto] = []
    counts: Counter[str] = Counter()
    del graph.initializer[:]
    for tensor in tensors:
        tick()
        if tensor.name in given or tensor.data_type not in _NUMPY:
            graph.initializer.append(tensor)
            continue
        array = numpy_helper.to_array(tensor)
        best = smallest(tensor.name, np.where(array == 0, np.zeros_like(array), array), codings)
        graph.initializer.extend(best.initializers)
        nodes += best.nodes
        counts[best.coding] += bool(best.nodes)
    rest = list(graph.node)
    del graph.node[:]
    graph.node.extend([*nodes, *rest])
    return packed, {coding: count for coding, count in counts.items() if count}


_NUMPY = {onnx.helper.np_dtype_to_tensor_dtype(np.dtype(each)) for each in _TYPES}
