"""Values of one parameter: drawn, moved to a neighbour, fitted into a range."""

from __future__ import annotations

import math
from random import Random
from typing import Any

from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)

_NUMBERS = (int, float)
_OF_NUMBERS = (FloatDistribution, IntDistribution)
_JUMP = 0.2
"""How often a number is drawn anew rather than moved by a step."""
_STEPS = (0.02, 0.3)
"""Smallest and largest spread of a step, as a share of a number's range."""


def draw_value(distribution: BaseDistribution, random: Random) -> Any:  # noqa: ANN401
    """A value drawn uniformly, on the logarithmic scale where the distribution has one.

    Raises:
        TypeError: If the distribution is of an unknown kind.
    """
    if isinstance(distribution, CategoricalDistribution):
        return distribution.choices[random.randrange(len(distribution.choices))]
    return at_position(distribution, random.random())


def at_position(distribution: BaseDistribution, position: float) -> float | int:
    """The value at a share of a number's range; the inverse of `position_of`.

    Every step of a number with steps has the same share.

    Raises:
        TypeError: If the distribution is not one of numbers.
    """
    if not isinstance(distribution, _OF_NUMBERS):
        raise TypeError(f"expected a distribution of floats or integers, got {distribution}")
    low, high, step = distribution.low, distribution.high, distribution.step
    position = min(max(position, 0.0), 1.0)
    if distribution.log:
        half = 0.5 if isinstance(distribution, IntDistribution) else 0.0
        bottom, top = math.log(low - half), math.log(high + half)
        value = math.exp(bottom + position * (top - bottom))
    elif step is None:
        value = low + position * (high - low)
    else:
        count = round((high - low) / step) + 1
        value = low + min(int(position * count), count - 1) * step
    value = min(max(value, low), high)
    return round(value) if isinstance(distribution, IntDistribution) else float(value)


def position_of(distribution: BaseDistribution, value: Any) -> float:  # noqa: ANN401
    """Where a number lies within its range, in [0, 1]; the middle if the range is one value.

    Raises:
        TypeError: If the distribution is not one of numbers.
    """
    if not isinstance(distribution, _OF_NUMBERS):
        raise TypeError(f"expected a distribution of floats or integers, got {distribution}")
    low, high, step = float(distribution.low), float(distribution.high), distribution.step
    number = float(value)
    half = 0.0
    if distribution.log:
        half = 0.5 if isinstance(distribution, IntDistribution) else 0.0
        low, high, number = math.log(low - half), math.log(high + half), math.log(number)
    elif step is not None:
        low, high = low - step / 2, high + step / 2
    if high <= low:
        return 0.5
    return min(max((number - low) / (high - low), 0.0), 1.0)


def neighbour(distribution: BaseDistribution, value: Any, random: Random) -> Any:  # noqa: ANN401
    """Another value near a value, or the same if there is no other.

    Of categories any other one is near. A number moves by a step of random size, and now and then
    anywhere.
    """
    if isinstance(distribution, CategoricalDistribution):
        others = [choice for choice in distribution.choices if choice != value]
        return others[random.randrange(len(others))] if others else value
    if random.random() < _JUMP:
        return draw_value(distribution, random)
    low, high = _STEPS
    spread = low * (high / low) ** random.random()
    here = position_of(distribution, value)
    move = random.gauss(0.0, spread)
    # What would leave the range turns back at its end, where values would crowd otherwise.
    there = 1.0 - abs(1.0 - abs(here + move))
    moved = at_position(distribution, there)
    if moved == value and isinstance(distribution, _OF_NUMBERS):
        # A step smaller than the grid is one of the grid.
        step = distribution.step or 0.0
        on = value + math.copysign(step, move)
        if not distribution.low <= on <= distribution.high:
            on = value - math.copysign(step, move)
        if distribution.low <= on <= distribution.high:
            moved = type(value)(on)
    return moved


def fitting(distribution: BaseDistribution, value: Any) -> Any:  # noqa: ANN401
    """The value if the distribution allows it; `None` otherwise, which also draws anew.

    A number outside its range is moved to the nearest end: the range may depend on other values.
    """
    if isinstance(distribution, CategoricalDistribution):
        return value if value in distribution.choices else None
    if not isinstance(value, _NUMBERS) or isinstance(value, bool):
        return None
    if not isinstance(distribution, _OF_NUMBERS):
        return None
    low, high, step = distribution.low, distribution.high, distribution.step
    inside = min(max(value, low), high)
    if step is not None:
        inside = min(low + round((inside - low) / step) * step, high)
    return int(inside) if isinstance(distribution, IntDistribution) else float(inside)


def allows(distribution: BaseDistribution, value: Any) -> bool:  # noqa: ANN401
    """Whether a distribution could draw a value, but for rounding."""
    if isinstance(distribution, CategoricalDistribution):
        return value in distribution.choices
    near = fitting(distribution, value)
    return near is not None and math.isclose(near, value, rel_tol=1e-9, abs_tol=1e-12)
