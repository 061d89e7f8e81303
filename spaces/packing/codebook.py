"""Tensors of few different values: a table of them, and an index for each element.

The coding of Deep Compression (Han, Mao, Dally 2016), with fixed-length indices.
"""

from __future__ import annotations

import numpy as np

from parefront.spaces.packing.coding import Array, Pack, Packed, Writer, different, shape_of
from parefront.spaces.packing.digits import write_digits

_MOST = 1 << 16
"""Most values of a table: an index of 16 bits."""


class Codebook:
    """One table for the tensor."""

    name = "codebook"

    def pack(self, name: str, array: Array, within: Pack) -> Packed | None:  # noqa: ARG002
        """Stores a tensor of at most 65,536 values, and of fewer than half its elements."""
        values, indices = different(array)
        if len(values) > min(_MOST, array.size // 2):
            return None
        writer = Writer(name)
        index = write_digits(writer, indices, len(values))
        index = writer.node("Reshape", index, writer.store(shape_of(array.shape)))
        writer.node("Gather", writer.store(values), index, output=name)
        return writer.packed(self.name)


class RowCodebooks:
    """A table for each row or column, such as an output channel with a scale of its own."""

    name = "codebook of each channel"

    def pack(self, name: str, array: Array, within: Pack) -> Packed | None:  # noqa: ARG002
        """Stores a matrix or kernel with few values in each channel."""
        found = [
            packed
            for axis in range(min(array.ndim, 2))
            if array.ndim > 1 and (packed := self._along(name, array, axis)) is not None
        ]
        return min(found, key=lambda packed: packed.size, default=None)

    def _along(self, name: str, array: Array, axis: int) -> Packed | None:
        order = (axis, *(each for each in range(array.ndim) if each != axis))
        moved = array.transpose(order)
        rows = moved.reshape(len(moved), -1)
        tables = []
        for row in rows:
            tables.append(different(row))
            if len(tables[-1][0]) > rows.shape[1] // 2:
                return None
        most = max(len(values) for values, _ in tables)
        table = np.zeros((len(rows), most), dtype=array.dtype)
        indices = np.zeros(rows.shape, dtype=np.int64)
        for place, (values, index_of) in enumerate(tables):
            table[place, : len(values)] = values
            indices[place] = index_of
        writer = Writer(name)
        index = write_digits(writer, indices.ravel(), most)
        index = writer.node("Reshape", index, writer.store(shape_of(rows.shape)))
        last = name if axis == 0 and array.ndim == 2 else None
        made = writer.node("GatherElements", writer.store(table), index, output=last, axis=1)
        if array.ndim > 2:
            shape = writer.store(shape_of(moved.shape))
            made = writer.node("Reshape", made, shape, output=name if axis == 0 else None)
        if axis != 0:
            back = np.argsort(order).tolist()
            writer.node("Transpose", made, output=name, perm=back)
        return writer.packed(self.name)
