"""Which channels to remove: importance scores, how many to keep, and which those are."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Literal

import torch
import torch_pruning as tp

from parefront.spaces.pruning.groups import ChannelGroup

Importance = Literal["l1", "l2", "random"]
Scope = Literal["global", "uniform"]


def scores(group: ChannelGroup, importance: Importance, generator: torch.Generator) -> torch.Tensor:
    """Importance of each channel of a block; the least important are removed first.

    `"l1"` and `"l2"` are the mean magnitudes, absolute or squared, of all weights that go with a
    channel (filters: Li et al. 2017, https://arxiv.org/abs/1608.08710; whole groups: Fang et al.
    2023, https://arxiv.org/abs/2301.12900), divided by their mean over the group so that groups
    can be compared. `"random"` draws from `generator`.

    Returns:
        Scores of shape `(width / blocks,)`: the channels at one place of all blocks go together.
    """
    if importance == "random":
        return torch.rand(group.width // group.blocks, generator=generator)
    magnitude = tp.importance.GroupMagnitudeImportance(p=1 if importance == "l1" else 2)
    channels: torch.Tensor = magnitude(group.traced).detach().cpu()
    # A group whose weights are all zero has no mean to divide by.
    return channels.nan_to_num(nan=0.0).view(group.blocks, -1).mean(dim=0)


def allowed_widths(width: int, blocks: int, multiple: int) -> list[int]:
    """Widths a group may have: multiples of `multiple` and of `blocks`, or its own; never 0."""
    return [*range(math.lcm(blocks, multiple), width, math.lcm(blocks, multiple)), width]


def channels_to_remove(
    groups: Mapping[str, tuple[ChannelGroup, torch.Tensor]],
    *,
    ratio: float,
    scope: Scope,
    multiple: int,
) -> dict[str, list[int]]:
    """Channels to remove from each group that loses any.

    The number kept in a group is the allowed width nearest to what the ratio asks for, the
    smaller of two equally near.

    Args:
        groups: Groups with their scores, by the name of their root.
        ratio: Share of channels to remove, of every group or of all groups together.
        scope: `"uniform"` removes the same share of every group, `"global"` the least important
            channels wherever they are.
        multiple: Multiple that widths are rounded to.

    Returns:
        Sorted output channels of each root.
    """
    wanted = _wanted(groups, ratio, scope)
    removed: dict[str, list[int]] = {}
    for root, (group, score) in groups.items():
        keep = min(
            allowed_widths(group.width, group.blocks, multiple),
            key=lambda width, root=root: abs(width - wanted[root]),  # type: ignore[misc]
        )
        size = group.width // group.blocks
        places = score.argsort(stable=True)[: (group.width - keep) // group.blocks].tolist()
        channels = sorted(block * size + place for block in range(group.blocks) for place in places)
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
