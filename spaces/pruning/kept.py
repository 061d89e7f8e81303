"""Which single weights stay, by their scores."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence

import torch
from torch import nn

from parefront.spaces.allocation import sensitivities
from parefront.spaces.pruning.mask import Mask
from parefront.spaces.ruled import Weights, with_rule
from parefront.spaces.stage import StageContext

SHARES = (0.01, 0.02, 0.05, 0.1, 0.2, 0.4)
"""Shares of a layer that are tried on it by itself."""


def kept_of_all(scores: Mapping[str, torch.Tensor], sparsity: float) -> dict[str, torch.Tensor]:
    """Keeps the most important weights of all together; of equals, those that come first.

    Args:
        scores: Importance of each weight, by layer.
        sparsity: Share that goes; one weight stays at least.

    Returns:
        Flags of the shapes of the scores, true where a weight stays.
    """
    flat = torch.cat([each.flatten() for each in scores.values()])
    kept = torch.zeros(len(flat), dtype=torch.bool)
    count = max(len(flat) - round(sparsity * len(flat)), 1)
    kept[torch.argsort(flat, descending=True, stable=True)[:count]] = True
    parts = torch.split(kept, [each.numel() for each in scores.values()])
    return {
        name: part.reshape(score.shape).clone()
        for (name, score), part in zip(scores.items(), parts, strict=True)
    }


def kept_of_neighbours(scores: torch.Tensor, weights: Weights, kept: int, of: int) -> torch.Tensor:
    """Keeps the most important of each group of neighbours, along all but the output channels."""
    moved = scores.movedim(weights.channels, 0)
    rows = moved.flatten(1)
    padded = nn.functional.pad(rows, (0, -rows.shape[1] % of), value=-torch.inf)
    groups = padded.reshape(len(rows), -1, of)
    order = torch.argsort(groups, dim=2, descending=True, stable=True)
    flags = torch.zeros(groups.shape, dtype=torch.bool).scatter(2, order[:, :, :kept], True)
    flags = flags.reshape(len(rows), -1)[:, : rows.shape[1]].reshape(moved.shape)
    return flags.movedim(0, weights.channels).contiguous()


def growth_by_share(
    model: nn.Module,
    layers: Sequence[Weights],
    scores: Mapping[str, torch.Tensor],
    context: StageContext,
    what: str,
) -> dict[str, dict[float, float]]:
    """How much the loss grows when a layer alone keeps so few weights, by layer and share kept.

    Args:
        model: The model; it is not changed.
        layers: The layers.
        scores: Importance of each weight, by layer.
        context: Gives the loss and examples.
        what: What the scores depend on besides the model.
    """

    def masked(name: str, share: float) -> nn.Module:
        keep = kept_of_all({name: scores[name]}, 1 - share)[name]
        return with_rule(copy.deepcopy(model), name, Mask(keep))

    levels = {each.name: SHARES for each in layers}
    grown = sensitivities(model, levels, masked, context, what=what)
    return {name: {**losses, 1.0: 0.0} for name, losses in grown.items()}
