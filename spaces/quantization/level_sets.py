"""Sets of levels that weights may be rounded to: whole numbers, to be scaled for each channel.

A new set is a function and a line in `LEVEL_SETS`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from itertools import product
from typing import Literal

LevelSet = Literal["uniform", "power_of_two", "additive", "ternary", "binary"]
Levels = tuple[int, ...]


def uniform(bits: int) -> Levels:
    """Symmetric and evenly spaced: `2 ** bits - 1` numbers around zero."""
    most = 2 ** (bits - 1) - 1
    return tuple(range(-most, most + 1))


def power_of_two(bits: int) -> Levels:
    """Zero and signed powers of two (Zhou et al., "Incremental network quantization", 2017)."""
    positive = [2**power for power in range(2 ** (bits - 1) - 1)]
    return _signed(positive)


def additive(bits: int) -> Levels:
    """Sums of two powers of two each (Li, Dong, Wang, "Additive powers-of-two quantization", 2020).

    A bit is the sign, and the others choose a power, or zero, from each of two sets that
    interleave, as in section 2.2 of the paper: denser near zero than evenly spaced levels, and
    wider than powers.
    """
    free = bits - 1
    first, second = free - free // 2, free // 2
    # Powers 0, -2, -4 ... for one set and -1, -3, -5 ... for the other, each with a zero.
    exponents = [
        [2 * place + odd for place in range(2**size - 1)] for odd, size in ((0, first), (1, second))
    ]
    deepest = max((each for group in exponents for each in group), default=0)
    terms = [[0, *(2 ** (deepest - each) for each in group)] for group in exponents]
    return _signed(sorted({a + b for a, b in product(*terms)} - {0}))


def ternary(bits: int) -> Levels:  # noqa: ARG001
    """-1, 0 and 1 (Li, Liu, "Ternary weight networks", 2016)."""
    return (-1, 0, 1)


def binary(bits: int) -> Levels:  # noqa: ARG001
    """-1 and 1 (Rastegari et al., "XNOR-Net", 2016)."""
    return (-1, 1)


def _signed(positive: list[int]) -> Levels:
    return (*(-each for each in reversed(positive)), 0, *positive)


LEVEL_SETS: Mapping[LevelSet, Callable[[int], Levels]] = {
    "uniform": uniform,
    "power_of_two": power_of_two,
    "additive": additive,
    "ternary": ternary,
    "binary": binary,
}
WITHOUT_BITS = ("ternary", "binary")
"""Sets that are what they are, whatever the bits."""
