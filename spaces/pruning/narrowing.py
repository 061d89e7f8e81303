"""How much the loss grows when a group of channels alone is narrowed."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import nn

from parefront.errors import StageError
from parefront.spaces.allocation import sensitivities
from parefront.spaces.pruning.groups import ChannelGroup, remove
from parefront.spaces.pruning.ranking import least_important, nearest_width
from parefront.spaces.stage import StageContext

SHARES = (0.1, 0.25, 0.5, 0.75)
"""Shares of the channels of a group that are tried on it by itself."""


def growth_by_width(
    model: nn.Module,
    groups: Mapping[str, tuple[ChannelGroup, torch.Tensor]],
    multiple: int,
    context: StageContext,
    what: str,
) -> dict[str, dict[float, float]]:
    """How much the loss grows when a group alone keeps so many of its channels.

    The channels are really removed; widths are rounded as they are in the end.

    Args:
        model: The model; it is not changed.
        groups: Groups with the scores of their channels, by the name of their root.
        multiple: Multiple that widths are rounded to.
        context: Gives the loss and examples.
        what: What the scores depend on besides the model.

    Returns:
        By root and share of the channels kept. Nothing for a group without which the model does not
        run.
    """
    levels = {}
    for root, (group, _) in groups.items():
        widths = {nearest_width(group, group.width * share, multiple) for share in SHARES}
        levels[root] = [width / group.width for width in sorted(widths - {group.width})]

    def narrowed(root: str, share: float) -> nn.Module | None:
        context.tick()
        group, score = groups[root]
        gone = least_important(group, score, round(group.width * share))
        try:
            return remove(model, context.example, {root: gone})
        except StageError:
            return None

    grown = sensitivities(model, levels, narrowed, context, what=what)
    return {
        root: {**losses, 1.0: 0.0}
        for root, losses in grown.items()
        if losses or not levels[root]  # what is too narrow to be narrowed stays as it is
    }
