"""More for the layers that need it, less for others: bits, weights or channels by sensitivity."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import islice, pairwise
from typing import TypeVar

import torch
from torch import nn

from parefront.spaces.stage import StageContext

_BATCHES = 4
_BATCH = 64
_WORST = 1e9
"""The growth of a loss that is not finite."""

L = TypeVar("L", int, float)
"""What a layer may be given for each of its weights or channels, such as bits."""


def sensitivities(
    model: nn.Module,
    levels: Mapping[str, Sequence[L]],
    changed: Callable[[str, L], nn.Module | None],
    context: StageContext,
    *,
    what: str,
) -> dict[str, dict[L, float]]:
    """How much the loss grows when one layer alone is compressed, before any training.

    Measured once for a model; the context remembers it.

    Args:
        model: The model; it is not changed.
        levels: By name of a layer, what is tried on it; more costs more and hurts less.
        changed: The model with that done to that layer alone, `None` if it cannot be.
        context: Gives the loss, and examples: 4 batches of those for calibration.
        what: What is done, and all else that what is measured depends on.

    Returns:
        By name and level, ascending, the mean loss beyond that of the model as it is; never below
        0, and never more for more, since a difference the other way is noise. What cannot be done
        is left out.
    """

    def measure() -> dict[str, dict[str, float]]:
        base = _loss(model, context)
        found: dict[str, dict[str, float]] = {}
        for name, each in levels.items():
            grown: dict[str, float] = {}
            for level in sorted(each):
                probe = changed(name, level)
                if probe is None:
                    continue
                growth = _loss(probe, context) - base
                worst = min(grown.values(), default=_WORST)
                grown[str(level)] = min(max(growth, 0.0), worst) if math.isfinite(growth) else worst
            found[name] = grown
        return found

    known = context.remember(json.dumps([what, levels]), measure)
    return {
        name: {
            level: known[name][str(level)] for level in sorted(each) if str(level) in known[name]
        }
        for name, each in levels.items()
    }


def allocated(
    grown: Mapping[str, Mapping[L, float]], sizes: Mapping[str, int], mean: float
) -> dict[str, L]:
    """Levels for each layer, so that the losses grow least in sum and the mean is kept.

    Begins with the least for all, and gives more to the layer whose loss falls most for what is
    spent, as long as the mean over all weights stays within `mean`. The order of gains is that of
    the lower convex hull of each layer, for which this is the best there is up to the last step
    (Shoham and Gersho, "Efficient bit allocation for an arbitrary set of quantizers", 1988).

    Args:
        grown: Growth of the loss by name and level, falling with the level.
        sizes: Number of weights by name.
        mean: What a weight is given on average.
    """
    given = {name: min(losses) for name, losses in grown.items()}
    left = mean * sum(sizes.values()) - sum(given[name] * sizes[name] for name in given)
    closed: set[str] = set()
    for cost, name, high in _steps(grown, sizes):
        if cost > left:
            closed.add(name)
        elif name not in closed:
            left -= cost
            given[name] = high
    return given


def shared_out(
    grown: Mapping[str, Mapping[float, float]], sizes: Mapping[str, int], mean: float
) -> dict[str, float]:
    """As `allocated`, where anything between two levels may be given as well.

    The last step is taken in part, so that the mean is what was asked for, and no other way to
    reach it has a lower sum of losses along the hulls. Everybody has the mean if it is less than
    the least levels are.
    """
    given = {name: min(losses) for name, losses in grown.items()}
    left = mean * sum(sizes.values()) - sum(given[name] * sizes[name] for name in given)
    if left < 0:
        return dict.fromkeys(grown, mean)
    for cost, name, high in _steps(grown, sizes):
        if cost > left:
            given[name] += left / sizes[name]
            break
        left -= cost
        given[name] = high
    return given


def by_loss(grown: Mapping[str, Mapping[float, float]]) -> dict[str, dict[str, float]]:
    """A JSON-able table of what was measured, by layer and share of it that goes, most first."""
    return {
        name: {f"{1 - s:.4g}": round(loss, 6) for s, loss in sorted(losses.items()) if s < 1}
        for name, losses in grown.items()
    }


def _steps(
    grown: Mapping[str, Mapping[L, float]], sizes: Mapping[str, int]
) -> Iterator[tuple[float, str, L]]:
    """Cost, name and level of each step along the hulls, those that gain most for it first."""
    steps = []
    for name, losses in grown.items():
        for low, high in pairwise(_hull(losses)):
            cost = (high - low) * sizes[name]
            steps.append(((losses[low] - losses[high]) / cost, cost, name, high))
    # The hull makes the gains of one layer fall, so its steps come in order.
    for _, cost, name, high in sorted(steps, key=lambda step: -step[0]):
        yield cost, name, high


def _hull(losses: Mapping[L, float]) -> list[L]:
    """Levels on the lower convex hull of the losses."""
    hull: list[L] = []
    for level in sorted(losses):
        while len(hull) > 1 and _slope(losses, hull[-2], hull[-1]) >= _slope(
            losses, hull[-2], level
        ):
            hull.pop()
        hull.append(level)
    return hull


def _slope(losses: Mapping[L, float], low: L, high: L) -> float:
    return (losses[high] - losses[low]) / (high - low)


@torch.no_grad()
def _loss(model: nn.Module, context: StageContext) -> float:
    modes = [(part, part.training) for part in model.modules()]
    model.eval()
    total = count = 0.0
    try:
        for inputs, targets in islice(context.calibration.batches(_BATCH), _BATCHES):
            context.tick()
            total += float(context.loss(model(*inputs), targets)) * len(targets)
            count += len(targets)
    finally:
        for part, mode in modes:
            part.training = mode
    return total / max(count, 1.0)
