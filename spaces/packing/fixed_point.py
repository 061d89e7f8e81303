"""Floats that are whole multiples of one power of two: fixed-point numbers of 8 or 16 bits."""

from __future__ import annotations

import numpy as np
import onnx

from parefront.spaces.packing.coding import Array, Pack, Packed, Writer


class FixedPoint:
    """Integers with one binary point for the tensor."""

    name = "fixed point"

    def pack(self, name: str, array: Array, within: Pack) -> Packed | None:  # noqa: ARG002
        """Stores floats of which the smallest common power of two leaves 16 bits at most."""
        if array.dtype != np.float32 or not np.isfinite(array).all():
            return None
        if np.signbit(array[array == 0]).any() or not array.any():
            return None
        fraction, exponent = np.frexp(array[array != 0])
        # The fraction has 24 bits, and the lowest that is set is worth the step.
        whole = np.abs(fraction * 2.0**24).astype(np.int64)
        lowest = np.log2((whole & -whole).astype(np.float64)).astype(np.int64)
        place = int((exponent + lowest).min()) - 24
        step = np.float32(2.0**place)
        if not np.isfinite(step) or step < np.finfo(np.float32).tiny:
            return None
        multiples = np.rint(array.astype(np.float64) / float(step))
        for kind in (np.int8, np.int16):
            limits = np.iinfo(kind)
            if limits.min <= multiples.min() and multiples.max() <= limits.max:
                writer = Writer(name)
                stored = writer.store(multiples.astype(kind))
                number = writer.node("Cast", stored, to=onnx.TensorProto.FLOAT)
                writer.node("Mul", number, writer.store(np.array(step)), output=name)
                return writer.packed(self.name)
        return None
