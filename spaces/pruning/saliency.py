"""What makes a single weight important. A new saliency is a function and a line in `SALIENCIES`."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from itertools import islice
from typing import Literal

import torch
from torch import nn

from parefront.spaces.ruled import Weights, weights_of
from parefront.spaces.stage import StageContext

Saliency = Literal["magnitude", "gradient", "movement", "random"]
Scores = dict[str, torch.Tensor]
_BATCHES = 8
_BATCH = 64


def magnitude(model: nn.Module, layers: Sequence[Weights], context: StageContext) -> Scores:  # noqa: ARG001
    """Its absolute value, L1 or L2 alike: squares rank as it does (Han et al. 2015)."""
    return {each.name: each.weight.abs() for each in layers}


def gradient(model: nn.Module, layers: Sequence[Weights], context: StageContext) -> Scores:
    """How much the loss changes if it is removed, to first order: |weight x gradient|.

    The connection sensitivity of SNIP (Lee, Ajanthan, Torr 2019), on the trained model and over 8
    batches of the calibration examples.
    """
    probe = copy.deepcopy(model).eval().requires_grad_(True)
    for inputs, targets in islice(context.calibration.batches(_BATCH), _BATCHES):
        context.tick()
        context.loss(probe(*inputs), targets).backward()  # type: ignore[no-untyped-call]
    scores = {}
    probed = {each.name: each.held for each in weights_of(probe)[0]}
    for each in layers:
        weight = probed[each.name]
        slope = weight.grad if weight.grad is not None else torch.zeros_like(weight)
        scores[each.name] = (each.weight * slope).abs().detach()
    return scores


def random(model: nn.Module, layers: Sequence[Weights], context: StageContext) -> Scores:  # noqa: ARG001
    """Nothing: the yardstick for the others."""
    generator = torch.Generator().manual_seed(context.seed)
    return {each.name: torch.rand(each.weight.shape, generator=generator) for each in layers}


SALIENCIES: Mapping[Saliency, Callable[[nn.Module, Sequence[Weights], StageContext], Scores]] = {
    "magnitude": magnitude,
    "gradient": gradient,
    "movement": magnitude,  # until training tells; see `parefront.spaces.pruning.movement`
    "random": random,
}
