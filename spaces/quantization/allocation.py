"""Mixed precision: more bits for the layers that need them, fewer for the others."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from itertools import islice, pairwise

import torch
from torch import nn

from parefront.spaces.ruled import Rule, Weights, with_rule
from parefront.spaces.stage import StageContext

BITS = (2, 3, 4, 6, 8)
"""Bits that a layer may get."""
_BATCHES = 4
_BATCH = 64


def sensitivities(
    model: nn.Module,
    layers: Sequence[Weights],
    rule: Callable[[Weights, int], Rule],
    context: StageContext,
) -> dict[str, dict[int, float]]:
    """How much the loss grows when one layer alone is rounded, before any training.

    Args:
        model: The model; it is not changed.
        layers: The layers.
        rule: Makes the rule that rounds a layer to so many bits.
        context: Gives the loss, and examples: 4 batches of those for calibration.

    Returns:
        By name and bits, the mean loss beyond that of the model as it is; never below 0, and never
        more for more bits, since a difference the other way is noise.
    """
    base = _loss(model, context)
    found: dict[str, dict[int, float]] = {}
    for each in layers:
        grown: dict[int, float] = {}
        for bits in BITS:
            probe = with_rule(copy.deepcopy(model), each.name, rule(each, bits))
            least = min(grown.values(), default=float("inf"))
            grown[bits] = min(max(_loss(probe, context) - base, 0.0), least)
        found[each.name] = grown
    return found


def allocated(
    grown: Mapping[str, Mapping[int, float]], sizes: Mapping[str, int], mean: float
) -> dict[str, int]:
    """Bits for each layer, so that the losses grow least in sum and the mean is kept.

    Begins with the fewest bits for all, and gives more to the layer whose loss falls most for each
    bit spent, as long as the mean over all weights stays within `mean`. The order of gains is that
    of the lower convex hull of each layer, for which this is the best there is up to the last step
    (Shoham and Gersho, "Efficient bit allocation for an arbitrary set of quantizers", 1988).

    Args:
        grown: Growth of the loss by name and bits, falling with the bits.
        sizes: Number of weights by name.
        mean: Bits of a weight on average.
    """
    bits = dict.fromkeys(grown, BITS[0])
    steps = []
    for name, losses in grown.items():
        for low, high in pairwise(_hull(losses)):
            cost = (high - low) * sizes[name]
            steps.append(((losses[low] - losses[high]) / cost, cost, name, high))
    left = (mean - BITS[0]) * sum(sizes.values())
    closed: set[str] = set()
    # The hull makes the gains of one layer fall, so its steps come in order.
    for _, cost, name, high in sorted(steps, key=lambda step: -step[0]):
        if cost > left:
            closed.add(name)
        elif name not in closed:
            left -= cost
            bits[name] = high
    return bits


def _hull(losses: Mapping[int, float]) -> list[int]:
    """Bits on the lower convex hull of the losses."""
    hull: list[int] = []
    for bits in sorted(losses):
        while len(hull) > 1 and _slope(losses, hull[-2], hull[-1]) >= _slope(
            losses, hull[-2], bits
        ):
            hull.pop()
        hull.append(bits)
    return hull


def _slope(losses: Mapping[int, float], low: int, high: int) -> float:
    return (losses[high] - losses[low]) / (high - low)


@torch.no_grad()
def _loss(model: nn.Module, context: StageContext) -> float:
    model.eval()
    total = count = 0.0
    for inputs, targets in islice(context.calibration.batches(_BATCH), _BATCHES):
        context.tick()
        total += float(context.loss(model(*inputs), targets)) * len(targets)
        count += len(targets)
    return total / max(count, 1.0)
