"""Channels of whole multiples of a step: the multiples, and a step for each channel.

Binary and ternary weights, and those of few bits, whatever the scale of their channel. The
multiples are few different values, and sparse where many weights are zero.
"""

from __future__ import annotations

import numpy as np

from parefront.spaces.packing.coding import Array, Pack, Packed, Writer

_DIVISORS = np.arange(1, 9, dtype=np.float32)
"""The smallest value of a channel is taken for so many steps: not every channel has a 1."""
_MOST = 256
"""Most different multiples."""


class Scaled:
    """A step for each channel."""

    name = "steps of each channel"

    def pack(self, name: str, array: Array, within: Pack) -> Packed | None:
        """Stores floats that are exactly whole numbers times their channel's step."""
        if array.dtype != np.float32 or array.ndim < 2 or not np.isfinite(array).all():
            return None
        ways: list[tuple[int, ...]] = [(0,), (1,)]
        if array.ndim == 3 and len(array) == 2:
            ways.append((0, 1))  # both directions of a recurrent layer
        made = (self._along(name, array, axes, within) for axes in ways)
        found = [packed for packed in made if packed is not None]
        return min(found, key=lambda packed: packed.size, default=None)

    def _along(self, name: str, array: Array, axes: tuple[int, ...], within: Pack) -> Packed | None:
        first = tuple(range(len(axes)))
        moved = np.moveaxis(array, axes, first)
        shape = [size if axis in axes else 1 for axis, size in enumerate(array.shape)]
        rows = moved.reshape(int(np.prod(shape)), -1)
        steps = np.empty(len(rows), dtype=np.float32)
        multiples = np.empty(rows.shape, dtype=np.int64)
        for index, row in enumerate(rows):
            found = _whole(row)
            if found is None:
                return None
            steps[index], multiples[index] = found
        ordered = np.moveaxis(multiples.reshape(moved.shape), first, axes)
        if len(np.unique(ordered)) > _MOST:
            return None
        writer = Writer(name)
        number, coding = writer.take(ordered.astype(np.float32), within)
        writer.node("Mul", number, writer.store(steps.reshape(shape)), output=name)
        return writer.packed(f"{self.name}, {coding}")


def _whole(row: Array) -> tuple[np.float32, Array] | None:
    """The step of a channel and its whole multiples, if there is one."""
    sizes = np.abs(row[row != 0])
    if not len(sizes):
        return None if np.signbit(row).any() else (np.float32(1), np.zeros(len(row), np.int64))
    for step in sizes.min() / _DIVISORS:
        if sizes.max() / step > _MOST:
            return None
        multiples = np.rint(row / step)
        made = (multiples.astype(np.int64).astype(np.float32) * step).astype(np.float32)
        if np.array_equal(made.view(np.uint32), np.ascontiguousarray(row).view(np.uint32)):
            return step, multiples.astype(np.int64)
    return None
