"""Ranks by energy: as few as hold a share of the squared sum of the singular values."""

from __future__ import annotations

import torch
from torch import nn

from parefront.spaces.lowrank.matrix import saves


def rank_holding(values: torch.Tensor, share: float) -> int:
    """The smallest rank whose leading singular values hold a share of the squared sum of all.

    By Eckart and Young (1936) the nearest matrix of that rank is away from the matrix by what the
    others hold: its squared error is at most `1 - share` of the matrix's squared norm.

    Args:
        values: `(n,)` singular values, descending, finite.
        share: Share to hold, in (0, 1].
    """
    held = values.double().square().cumsum(0)
    return min(int((held < share * held[-1]).sum()) + 1, len(values))


def energy_rank(matrix: torch.Tensor, share: float, multiple: int) -> int | None:
    """The rank to keep of a matrix, or `None` if none that holds the share saves parameters.

    Args:
        matrix: `(rows, columns)`, finite.
        share: Share of the energy to hold, in (0, 1].
        multiple: The rank is rounded up to a multiple of this, so that the share is held.
    """
    rows, columns = matrix.shape
    rank = _up(rank_holding(torch.linalg.svdvals(matrix.double()), share), multiple)
    return rank if saves(rows, columns, rank) else None


def energy_tucker_ranks(layer: nn.Conv2d, share: float, multiple: int) -> tuple[int, int] | None:
    """The ranks of inputs and outputs to keep, or `None` if none that hold the share save any.

    The squared errors of both sides add up at most (De Lathauwer et al. 2000), so each side may
    lose half of what may be lost.

    Args:
        layer: Conv2d layer with one group and a finite weight.
        share: Share of the energy to hold, in (0, 1].
        multiple: Ranks are rounded up to multiples of this, but not beyond the channels.
    """
    kernel = layer.weight.detach().double()
    outputs, inputs, height, width = kernel.shape
    first, second = (
        min(_up(rank_holding(torch.linalg.svdvals(side), (1 + share) / 2), multiple), len(side))
        for side in (kernel.movedim(1, 0).flatten(1), kernel.flatten(1))
    )
    kept = inputs * first + first * second * height * width + second * outputs
    return (first, second) if kept < kernel.numel() else None


def energy_separable_rank(layer: nn.Conv2d, share: float) -> int | None:
    """Kernels for each input channel that hold the share, or `None` if so many save no parameters.

    Args:
        layer: Conv2d layer with one group and a finite weight.
        share: Share of the energy of all input channels together to hold, in (0, 1].
    """
    outputs, inputs, height, width = layer.weight.shape
    matrices = layer.weight.detach().double().movedim(1, 0).flatten(2)
    pooled = torch.linalg.svdvals(matrices).square().sum(0).sqrt()
    rank = rank_holding(pooled, share)
    kept = rank * inputs * (height * width + outputs)
    return rank if kept < layer.weight.numel() else None


def _up(rank: int, multiple: int) -> int:
    return -(-rank // multiple) * multiple
