"""Which channels to remove: importance scores, how many to keep, and which those are."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from itertools import islice
from typing import Literal

import torch
import torch_pruning as tp
from torch import nn

from parefront.spaces.pruning.groups import ChannelGroup
from parefront.spaces.stage import StageContext

Importance = Literal["l1", "l2", "taylor", "bn_scale", "median", "random"]
Scope = Literal["global", "uniform", "sensitivity"]
_BATCHES = 8
_BATCH = 64


def scores(
    groups: Sequence[ChannelGroup], importance: Importance, context: StageContext
) -> dict[str, torch.Tensor]:
    """Importance of each channel of a block; the least important are removed first.

    All but `"random"` are means over the weights that go with a channel, divided by their mean over
    the group so that groups can be compared.

    - `"l1"`, `"l2"`: magnitudes, absolute or squared (filters: Li et al. 2017,
      https://arxiv.org/abs/1608.08710; whole groups: Fang et al. 2023,
      https://arxiv.org/abs/2301.12900).
    - `"taylor"`: how much the loss of 8 batches of the calibration examples changes to first order
      (Molchanov et al. 2019, https://arxiv.org/abs/1906.10771).
    - `"bn_scale"`: scales of batch normalisation (network slimming, Liu et al. 2017,
      https://arxiv.org/abs/1708.06519); `"l1"` for a group without.
    - `"median"`: the sum of the distances to the other filters, so that those go which others can
      stand in for (geometric median, He et al. 2019, https://arxiv.org/abs/1811.00250); `"l2"` for
      transposed convolutions in groups.
    - `"random"`: nothing, by the context's seed.

    Returns:
        By the name of a group's root, scores of shape `(width / blocks,)`: the channels at one
        place of all blocks go together.
    """
    if importance == "random":
        generator = torch.Generator().manual_seed(context.seed)
        return {g.root: torch.rand(g.width // g.blocks, generator=generator) for g in groups}
    if importance == "taylor" and groups:
        _with_gradients(groups[0].model, context)
    measure = _MEASURES[importance]
    found = {}
    for group in groups:
        context.tick()
        # A group whose weights are all zero has no mean to divide by.
        channels = measure(group).detach().cpu().nan_to_num(nan=0.0)
        found[group.root] = channels.view(group.blocks, -1).mean(dim=0)
    return found


def _with_gradients(model: nn.Module, context: StageContext) -> None:
    """Leaves the gradient of the loss at each weight."""
    model.zero_grad()
    modes = [(part, part.training) for part in model.modules()]
    model.eval()
    for inputs, targets in islice(context.calibration.batches(_BATCH), _BATCHES):
        context.tick()
        context.loss(model(*inputs), targets).backward()  # type: ignore[no-untyped-call]
    for part, mode in modes:
        part.training = mode
    for parameter in model.parameters():
        if parameter.grad is None:  # a weight that the loss does not see
            parameter.grad = torch.zeros_like(parameter)


def _magnitude(power: int) -> Callable[[ChannelGroup], torch.Tensor]:
    importance = tp.importance.GroupMagnitudeImportance(p=power)
    return lambda group: importance(group.traced)


def _taylor(group: ChannelGroup) -> torch.Tensor:
    found: torch.Tensor = tp.importance.GroupTaylorImportance()(group.traced)
    return found


def _bn_scale(group: ChannelGroup) -> torch.Tensor:
    found: torch.Tensor | None = tp.importance.BNScaleImportance()(group.traced)
    return _magnitude(1)(group) if found is None else found


def _median(group: ChannelGroup) -> torch.Tensor:
    total, count = torch.zeros(group.width), torch.zeros(group.width)
    for item in group.traced:
        if item.dep.handler not in _OUTPUTS:
            continue
        layer = item.dep.target.module
        weight = layer.weight.detach()
        if getattr(layer, "transposed", False):
            if layer.groups > 1:  # its outputs are in two dimensions
                continue
            weight = weight.transpose(0, 1)
        filters = weight[item.idxs].flatten(1)
        total[item.root_idxs] += torch.cdist(filters, filters).sum(dim=1)
        count[item.root_idxs] += 1
    if not count.all():
        return _magnitude(2)(group)
    mean = total / count
    return mean / mean.mean()


_OUTPUTS = (tp.prune_conv_out_channels, tp.prune_linear_out_channels)
_MEASURES: Mapping[str, Callable[[ChannelGroup], torch.Tensor]] = {
    "l1": _magnitude(1),
    "l2": _magnitude(2),
    "taylor": _taylor,
    "bn_scale": _bn_scale,
    "median": _median,
}


def allowed_widths(width: int, blocks: int, multiple: int) -> list[int]:
    """Widths a group may have: multiples of `multiple` and of `blocks`, or its own; never 0."""
    return [*range(math.lcm(blocks, multiple), width, math.lcm(blocks, multiple)), width]


def nearest_width(group: ChannelGroup, wanted: float, multiple: int) -> int:
    """The allowed width nearest to what is wanted, the smaller of two equally near."""
    allowed = allowed_widths(group.width, group.blocks, multiple)
    return min(allowed, key=lambda width: abs(width - wanted))


def least_important(group: ChannelGroup, score: torch.Tensor, keep: int) -> list[int]:
    """The channels that go so that so many stay: in all blocks the same, sorted."""
    size = group.width // group.blocks
    places = score.argsort(stable=True)[: (group.width - keep) // group.blocks].tolist()
    return sorted(block * size + place for block in range(group.blocks) for place in places)


def channels_to_remove(
    groups: Mapping[str, tuple[ChannelGroup, torch.Tensor]],
    *,
    ratio: float,
    scope: Scope,
    multiple: int,
    kept: Mapping[str, float] | None = None,
) -> dict[str, list[int]]:
    """Channels to remove from each group that loses any.

    The number kept in a group is the allowed width nearest to what the ratio asks for, the
    smaller of two equally near.

    Args:
        groups: Groups with their scores, by the name of their root.
        ratio: Share of channels to remove, of every group or of all groups together.
        scope: `"uniform"` removes the same share of every group, `"global"` the least important
            channels wherever they are, `"sensitivity"` all but `kept`.
        multiple: Multiple that widths are rounded to.
        kept: Share of its channels that each group keeps, for the scope `"sensitivity"`.

    Returns:
        Sorted output channels of each root.
    """
    if scope == "sensitivity" and kept is not None:
        wanted = {root: group.width * kept[root] for root, (group, _) in groups.items()}
    else:
        wanted = _wanted(groups, ratio, scope)
    removed: dict[str, list[int]] = {}
    for root, (group, score) in groups.items():
        channels = least_important(group, score, nearest_width(group, wanted[root], multiple))
        if channels:
            removed[root] = channels
    return removed


def _wanted(
    groups: Mapping[str, tuple[ChannelGroup, torch.Tensor]], ratio: float, scope: Scope
) -> dict[str, float]:
    """Channels that each group would keep without rounding."""
    if scope == "uniform":
        return {root: group.width * (1 - ratio) for root, (group, _) in groups.items()}
    every = torch.cat([score for _, score in groups.values()])
    gone = torch.zeros(len(every), dtype=torch.bool)
    gone[every.argsort(stable=True)[: round(len(every) * ratio)]] = True
    lost = torch.split(gone, [len(score) for _, score in groups.values()])
    return {
        root: group.width - group.blocks * int(share.sum())
        for (root, (group, _)), share in zip(groups.items(), lost, strict=True)
    }
