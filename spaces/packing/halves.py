"""Floats that 16 bits hold exactly, as such."""

from __future__ import annotations

import numpy as np
import onnx

from parefront.spaces.packing.coding import Array, Pack, Packed, Writer


class Float16:
    """Half precision, IEEE 754: 10 bits of fraction, values up to 65,504."""

    name = "float16"

    def pack(self, name: str, array: Array, within: Pack) -> Packed | None:  # noqa: ARG002
        """Stores what half precision holds exactly."""
        if array.dtype != np.float32:
            return None
        with np.errstate(over="ignore"):
            halves = array.astype(np.float16)
        if not np.array_equal(halves.astype(np.float32).view(np.uint32), array.view(np.uint32)):
            return None
        writer = Writer(name)
        writer.node("Cast", writer.store(halves), output=name, to=onnx.TensorProto.FLOAT)
        return writer.packed(self.name)


class BFloat16:
    """Brain floating point: the upper half of a float32, 7 bits of fraction."""

    name = "bfloat16"

    def pack(self, name: str, array: Array, within: Pack) -> Packed | None:  # noqa: ARG002
        """Stores what has nothing in its lower half."""
        if array.dtype != np.float32:
            return None
        bits = np.ascontiguousarray(array).view(np.uint32)
        if (bits & 0xFFFF).any():
            return None
        writer = Writer(name)
        stored = onnx.TensorProto(
            name=writer.part(), data_type=onnx.TensorProto.BFLOAT16, dims=array.shape,
            raw_data=(bits >> 16).astype("<u2").tobytes(),
        )  # fmt: skip
        writer.initializers.append(stored)
        writer.node("Cast", stored.name, output=name, to=onnx.TensorProto.FLOAT)
        return writer.packed(self.name)
