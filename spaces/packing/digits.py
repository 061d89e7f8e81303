"""Small whole numbers as digits of larger ones: 5 of three values in a byte, 8 of two."""

from __future__ import annotations

import numpy as np
import onnx

from parefront.spaces.packing.coding import Array, Writer

_WORDS = (np.uint8, np.uint16, np.uint32)
"""Types of a word. Larger ones hold odd numbers of values with less waste: 6 of 32 in 4 bytes."""


def digits_in(base: int, bits: int) -> int:
    """How many digits fit into a word: the most for which `base ** digits <= 2 ** bits`."""
    count = 0
    while base ** (count + 1) <= 2**bits:
        count += 1
    return count


def write_digits(writer: Writer, symbols: Array, base: int) -> str:
    """Stores whole numbers; adds the nodes that make them again.

    Args:
        writer: Where to.
        symbols: `(n,)` numbers from 0 up to `base - 1`.
        base: How many different numbers there may be, from 1 to 65,536.

    Returns:
        Name of the numbers, `(n,)` of int32.
    """
    base = max(base, 2)
    word = min(
        (each for each in _WORDS if digits_in(base, 8 * np.dtype(each).itemsize)),
        key=lambda each: _bytes(len(symbols), base, each),
    )
    count = digits_in(base, 8 * np.dtype(word).itemsize)
    rows = -(-len(symbols) // count)
    padded = np.zeros(rows * count, dtype=np.uint64)
    padded[: len(symbols)] = symbols
    powers = np.array([base**place for place in range(count)], dtype=np.uint64)
    words = (padded.reshape(rows, count) * powers).sum(axis=1, dtype=np.uint64).astype(word)
    # Runtimes compute with signed numbers of 32 and 64 bits; 32 are too few for the largest word.
    long = word is np.uint32
    number = np.int64 if long else np.int32
    kinds = onnx.TensorProto
    stored = writer.store(words.reshape(rows, 1))
    name = writer.node("Cast", stored, to=kinds.INT64 if long else kinds.INT32)
    if count > 1:
        name = writer.node("Div", name, writer.store(powers.astype(number)))
        name = writer.node("Mod", name, writer.store(np.array(base, dtype=number)))
    if long:
        name = writer.node("Cast", name, to=kinds.INT32)
    name = writer.node("Reshape", name, writer.store(np.array([-1], dtype=np.int64)))
    if rows * count > len(symbols):
        ends = [writer.store(np.array([each], dtype=np.int64)) for each in (0, len(symbols))]
        name = writer.node("Slice", name, *ends)
    return name


def _bytes(count: int, base: int, word: type[np.unsignedinteger]) -> int:
    size = np.dtype(word).itemsize
    return -(-count // digits_in(base, 8 * size)) * size
