"""Round numbers to mark an axis with."""

from __future__ import annotations

import math

_STEPS = (1.0, 2.0, 5.0, 10.0)


def linear_ticks(low: float, high: float, count: int = 5) -> list[float]:
    """Multiples of 1, 2 or 5 times a power of ten from at most `low` to at least `high`.

    Args:
        low: Smallest value.
        high: Largest value.
        count: How many steps to aim for.
    """
    if not low < high:
        return [low]
    power = 10.0 ** math.floor(math.log10((high - low) / count))
    step = min(
        (factor * power for factor in _STEPS), key=lambda each: abs((high - low) / each - count)
    )
    # The slack keeps an end that is a multiple itself from gaining a further mark by rounding.
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [float(f"{index * step:.12g}") for index in range(first, last + 1)]


def log_ticks(low: float, high: float) -> list[float]:
    """The 1, 2 and 5 of each power of ten from at most `low` to at least `high`.

    Over more than four decades the powers of ten alone.

    Args:
        low: Smallest value, positive.
        high: Largest value.
    """
    factors = (1, 2, 5) if high / low < 1e4 else (1,)
    powers = range(math.floor(math.log10(low)) - 1, math.floor(math.log10(high)) + 2)
    marks = [float(f"{factor}e{power}") for power in powers for factor in factors]
    first = max(mark for mark in marks if mark <= low)
    last = min(mark for mark in marks if mark >= high)
    return [mark for mark in marks if first <= mark <= last]
