"""Convolutions in three: fewer channels, the kernel among those, and all channels again."""

from __future__ import annotations

import math

import torch
from torch import nn

from parefront.spaces.lowrank.convolutions import chained, mixing, sliding

_ROUNDS = 3
"""Rounds of refinement: more did not lower the error of random and of trained kernels."""


def tucker_ranks(layer: nn.Conv2d, ratio: float, multiple: int) -> tuple[int, int] | None:
    """The ranks of inputs and outputs to keep, or `None` if none saves parameters.

    Both are the same share of their channels: as a fraction `ratio`, in (0, 1], of the share at
    which the three layers have as many parameters as the one. They are rounded down to multiples,
    but not to 0.
    """
    outputs, inputs, height, width = layer.weight.shape
    dense, ends = outputs * inputs * height * width, outputs**2 + inputs**2
    # dense * share ** 2 + ends * share = dense
    even = (math.sqrt(ends**2 + 4 * dense**2) - ends) / (2 * dense)
    first, second = (
        max(multiple, int(ratio * even * channels) // multiple * multiple)
        for channels in (inputs, outputs)
    )
    kept = inputs * first + first * second * height * width + second * outputs
    if kept >= dense or first > inputs or second > outputs:
        return None
    return first, second


def tucker(
    kernel: torch.Tensor, first: int, second: int
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Factors of a kernel along its channels (Tucker-2; Kim et al. 2016).

    https://arxiv.org/abs/1511.06530. Begins with the leading singular vectors of each side and
    refines them in turn (higher-order orthogonal iteration, De Lathauwer et al. 2000).

    Args:
        kernel: `(outputs, inputs, height, width)`.
        first: Rank of the inputs.
        second: Rank of the outputs.

    Returns:
        `(first, inputs)`, the core `(second, first, height, width)` and `(outputs, second)`, in the
        type of the kernel.
    """
    exact = kernel.double()
    inward = _leading(exact.movedim(1, 0), first)
    outward = _leading(exact, second)
    for _ in range(_ROUNDS):
        outward = _leading(torch.einsum("oihw,ir->orhw", exact, inward), second)
        inward = _leading(torch.einsum("oihw,os->ishw", exact, outward), first)
    core = torch.einsum("oihw,os,ir->srhw", exact, outward, inward)
    return inward.T.to(kernel.dtype), core.to(kernel.dtype), outward.to(kernel.dtype)


def _leading(tensor: torch.Tensor, rank: int) -> torch.Tensor:
    """The leading left singular vectors of a tensor as a matrix of its first dimension."""
    matrix = tensor.flatten(1)
    # Those of the small square matrix, which is all that is needed.
    _, vectors = torch.linalg.eigh(matrix @ matrix.T)
    leading: torch.Tensor = vectors.flip(1)[:, :rank]
    return leading


def factorize_tucker(layer: nn.Conv2d, first: int, second: int) -> nn.Sequential:
    """Three convolutions that do what one did, as nearly as the ranks allow.

    The middle one has the stride, padding and dilation. The parts are plain torch layers with the
    original's dtype, device, mode and bias, which is the last part's.

    Args:
        layer: Conv2d layer with one group.
        first: Rank of the inputs.
        second: Rank of the outputs.
    """
    with torch.no_grad():
        inward, core, outward = tucker(layer.weight, first, second)
    parts = [
        mixing(layer.in_channels, first),
        sliding(layer, first, second),
        mixing(second, layer.out_channels),
    ]
    return chained(layer, parts, (inward[..., None, None], core, outward[..., None, None]))
