"""Tensors that are mostly zero: the distances between what is not, and its values.

As in Deep Compression (Han, Mao, Dally 2016): a distance too large for its digits is bridged by
zeros that are stored.
"""

from __future__ import annotations

import numpy as np
from onnx import numpy_helper

from parefront.spaces.packing.coding import Array, Pack, Packed, Writer, shape_of
from parefront.spaces.packing.digits import write_digits

_FURTHEST = (4, 8, 16, 32, 64, 256)
"""Largest distances to try: from one bit in two up to a byte."""


class Sparse:
    """Values that are not zero, and how far each is from the one before."""

    name = "sparse"

    def pack(self, name: str, array: Array, within: Pack) -> Packed | None:
        """Stores a tensor of which at least two fifths are zero."""
        flat = array.ravel()
        places = np.flatnonzero(flat)
        # A zero with a sign would lose it.
        if not len(places) or len(places) > 0.6 * array.size or _negative_zero(flat):
            return None
        found = (self._within(name, array, places, most, within) for most in _FURTHEST)
        return min(found, key=lambda packed: packed.size)

    def _within(self, name: str, array: Array, places: Array, most: int, within: Pack) -> Packed:
        steps = np.diff(places, prepend=-1)  # at least 1
        bridges = (steps - 1) // most
        ends = np.cumsum(bridges + 1) - 1
        distances = np.full(int(ends[-1]) + 1, most, dtype=np.int64)
        distances[ends] = steps - bridges * most
        values = np.zeros(len(distances), dtype=array.dtype)
        values[ends] = array.ravel()[places]
        writer = Writer(name)
        distance = write_digits(writer, distances - 1, most)
        one = writer.store(np.array(1, dtype=np.int32))
        distance = writer.node("Add", distance, one)
        place = writer.node("CumSum", distance, writer.store(np.array(0, dtype=np.int32)))
        place = writer.node("Sub", place, one)
        nothing = writer.node(
            "ConstantOfShape",
            writer.store(shape_of([array.size])),
            value=numpy_helper.from_array(np.zeros(1, dtype=array.dtype)),
        )
        stored, coding = writer.take(values, within)
        flat = writer.node("ScatterElements", nothing, place, stored, axis=0)
        writer.node("Reshape", flat, writer.store(shape_of(array.shape)), output=name)
        return writer.packed(self.name if coding == "none" else f"{self.name}, {coding}")


def _negative_zero(flat: Array) -> bool:
    return flat.dtype.kind == "f" and bool((np.signbit(flat) & (flat == 0)).any())
