"""The contract of a coding: one way to store a tensor as ordinary ONNX.

A coding writes initializers that are smaller than the tensor, and nodes that make the tensor of
them, bit by bit. Nothing they read is an input of the model, so a runtime may compute them once,
when it loads the file; ONNX Runtime and OpenVINO do. A new coding is a new file and one line in
`parefront.spaces.packing.packer`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper, numpy_helper

Array = NDArray[Any]


@dataclass(frozen=True)
class Packed:
    """A tensor as it is stored.

    Attributes:
        coding: What it is stored as, such as `"sparse of codebook"`.
        initializers: What is stored.
        nodes: What makes the tensor of it; none if it is stored as it is.
    """

    coding: str
    initializers: tuple[onnx.TensorProto, ...]
    nodes: tuple[onnx.NodeProto, ...] = ()

    @property
    def size(self) -> int:
        """Bytes in a file, without the few that say where a part begins."""
        stored = sum(int(each.ByteSize()) for each in self.initializers)
        return stored + sum(int(each.ByteSize()) for each in self.nodes)


Pack = Callable[[str, Array], Packed]
"""Stores an array under a name as small as it can."""


class Coding(Protocol):
    """One way to store a tensor."""

    name: str

    def pack(self, name: str, array: Array, within: Pack) -> Packed | None:
        """Stores an array without loss.

        Args:
            name: Name of the tensor that the nodes make.
            array: Any shape; `float32` or integers.
            within: Stores a part of it, such as the values that are not zero.

        Returns:
            The stored tensor, or `None` if this coding does not fit the array.
        """
        ...


class Writer:
    """Writes the nodes and initializers of one tensor, with names of its own.

    Args:
        name: Name of the tensor; that of all others begins with it.
    """

    def __init__(self, name: str) -> None:
        self._name = name
        self._count = 0
        self.initializers: list[onnx.TensorProto] = []
        self.nodes: list[onnx.NodeProto] = []

    def part(self) -> str:
        """A new name."""
        self._count += 1
        return f"{self._name}.{self._count}"

    def store(self, array: Array) -> str:
        """Stores an array as it is; returns its name."""
        name = self.part()
        self.initializers.append(numpy_helper.from_array(np.array(array, order="C"), name))
        return name

    def take(self, array: Array, pack: Pack) -> tuple[str, str]:
        """Stores an array as small as it can be; returns its name and its coding."""
        name = self.part()
        packed = pack(name, array)
        self.initializers += packed.initializers
        self.nodes += packed.nodes
        return name, packed.coding

    def node(
        self,
        operator: str,
        *inputs: str,
        output: str | None = None,
        **attributes: int | Sequence[int] | onnx.TensorProto,
    ) -> str:
        """Adds a node with one output; returns the name of that."""
        made = output or self.part()
        node = helper.make_node(operator, list(inputs), [made])
        node.attribute.extend(helper.make_attribute(key, each) for key, each in attributes.items())
        self.nodes.append(node)
        return made

    def packed(self, coding: str) -> Packed:
        """What was written."""
        return Packed(coding, tuple(self.initializers), tuple(self.nodes))


def different(array: Array) -> tuple[Array, Array]:
    """The different values of an array, and which of them each is, flat.

    Floats are told apart by their bits: a zero with a sign is another, and a NaN is itself.
    """
    flat = np.ascontiguousarray(array).ravel()
    bits = flat.view(np.uint32) if flat.dtype == np.float32 else flat
    values, index = np.unique(bits, return_inverse=True)
    return values.view(flat.dtype), index.ravel()


def shape_of(shape: Sequence[int]) -> Array:
    """A shape as ONNX wants it."""
    return np.array(shape, dtype=np.int64)
