"""Which heads to remove: importance scores, how many go, and which those are."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from itertools import islice
from typing import Literal

import torch
from torch import nn

from parefront.spaces.pruning.head_search import HeadGroup
from parefront.spaces.stage import StageContext

Importance = Literal["l2", "taylor", "random"]
Scope = Literal["global", "uniform"]
Scores = dict[str, torch.Tensor]
"""Importance of each head, by the name of its attention."""
_BATCHES = 8
_BATCH = 64


def l2(model: nn.Module, groups: Sequence[HeadGroup], context: StageContext) -> Scores:  # noqa: ARG001
    """Squares of a head's weights in all its projections, over their mean in the attention."""
    found = {}
    for group in groups:
        total = torch.zeros(group.heads)
        for slices in group.writers:
            rows = model.get_submodule(slices.layer).get_parameter("weight").detach()
            total += rows.square().sum(dim=1)[slices.places].sum(dim=1)
        columns = model.get_submodule(group.reader.layer).get_parameter("weight").detach()
        total += columns.square().sum(dim=0)[group.reader.places].sum(dim=1)
        found[group.name] = total / total.mean()
    return found


def taylor(model: nn.Module, groups: Sequence[HeadGroup], context: StageContext) -> Scores:
    """How much the loss of an example changes to first order when a head is silent.

    Michel et al., "Are sixteen heads really better than one?" (2019,
    https://arxiv.org/abs/1905.10650), equation 2: the mean size of the gradient of the loss with
    respect to a mask of the head, over 8 batches of 64 calibration examples, divided by the length
    of an attention's scores so that attentions can be compared. Examples that an attention does not
    see as first dimension are taken a batch at a time.
    """
    totals = {group.name: torch.zeros(group.heads) for group in groups}
    masks: dict[str, torch.Tensor] = {}
    size = 0

    def hook(group: HeadGroup) -> Callable[[nn.Module, tuple[torch.Tensor, ...]], object]:
        def mask(layer: nn.Module, inputs: tuple[torch.Tensor, ...]) -> object:  # noqa: ARG001
            seen = inputs[0]
            if group.name not in masks:  # a layer that runs twice has one mask
                rows = len(seen) if seen.dim() > 1 and len(seen) == size else 1
                masks[group.name] = torch.ones(rows, group.heads, requires_grad=True)
            order = torch.argsort(group.reader.places.flatten())
            channels = masks[group.name].repeat_interleave(group.reader.places.shape[1], dim=1)
            channels = channels[:, order]
            return (seen * channels.view(len(channels), *[1] * (seen.dim() - 2), -1),)

        return mask

    handles = [
        model.get_submodule(group.reader.layer).register_forward_pre_hook(hook(group))
        for group in groups
    ]
    try:
        for inputs, targets in islice(context.calibration.batches(_BATCH), _BATCHES):
            context.tick()
            masks.clear()
            size = len(targets)
            torch.default_generator.manual_seed(context.seed)  # for models that draw numbers
            with torch.enable_grad():
                loss = context.loss(model(*inputs), targets) * size
                slopes = torch.autograd.grad(loss, list(masks.values()), allow_unused=True)
            for name, slope in zip(masks, slopes, strict=True):
                if slope is not None:
                    totals[name] += slope.abs().sum(dim=0)
    finally:
        for handle in handles:
            handle.remove()
    return {name: total / total.norm() for name, total in totals.items()}


def random(model: nn.Module, groups: Sequence[HeadGroup], context: StageContext) -> Scores:  # noqa: ARG001
    """Nothing: the yardstick for the others."""
    generator = torch.Generator().manual_seed(context.seed)
    return {group.name: torch.rand(group.heads, generator=generator) for group in groups}


IMPORTANCES: Mapping[
    Importance, Callable[[nn.Module, Sequence[HeadGroup], StageContext], Scores]
] = {"l2": l2, "taylor": taylor, "random": random}
"""The importance of each head of a model in evaluation mode; the least important go first."""


def heads_to_remove(
    scores: Mapping[str, torch.Tensor], ratio: float, scope: Scope
) -> dict[str, list[int]]:
    """Heads to remove from each attention that loses any; one at least stays in each.

    Args:
        scores: Scores of the heads by the name of their attention; what is not a number counts as
            zero.
        ratio: Share of the heads that goes, rounded to the nearest number, of two equally near
            ones to the larger.
        scope: `"uniform"` removes the share from each attention, `"global"` from all together, the
            least important first.

    Returns:
        The heads in ascending order.
    """
    ranked = {
        name: score.nan_to_num(nan=0.0).argsort(stable=True).tolist()
        for name, score in scores.items()
    }
    if scope == "uniform":
        removed = {
            name: order[: min(_share(ratio, len(order)), len(order) - 1)]
            for name, order in ranked.items()
        }
    else:
        removed = {name: [] for name in ranked}
        weakest = sorted(
            (float(scores[name].nan_to_num(nan=0.0)[head]), at, name, head)
            for at, (name, order) in enumerate(ranked.items())
            for head in order[:-1]
        )
        for _, _, name, head in weakest[: _share(ratio, sum(map(len, ranked.values())))]:
            removed[name].append(head)
    return {name: sorted(heads) for name, heads in removed.items() if heads}


def _share(ratio: float, count: int) -> int:
    return math.floor(ratio * count + 0.5)
