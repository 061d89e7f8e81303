"""Convolutions in two: a few kernels for each input channel, and a mixture of what they give."""

from __future__ import annotations

import torch
from torch import nn

from parefront.spaces.lowrank.convolutions import chained, mixing, sliding


def separable_rank(layer: nn.Conv2d, ratio: float) -> int | None:
    """Kernels for each input channel, or `None` if one is more than what saves parameters.

    Args:
        layer: Conv2d layer with one group.
        ratio: Kernels wanted, as a fraction in (0, 1] of the number at which both layers have as
            many parameters as the one; rounded down, but at least 1.
    """
    outputs, inputs, height, width = layer.weight.shape
    dense, each = outputs * inputs * height * width, inputs * (height * width + outputs)
    rank = max(1, min(int(ratio * dense / each), height * width))
    return rank if rank * each < dense else None


def factorize_separable(layer: nn.Conv2d, rank: int) -> nn.Sequential:
    """A depthwise and a pointwise convolution that do what one did, as nearly as the rank allows.

    Depthwise-separable convolutions (Howard et al., "MobileNets", 2017) with as many kernels for
    each input channel as the rank. For each input channel the kernels to all outputs are a matrix,
    whose nearest of that rank is its truncated singular value decomposition (Guo et al., "Network
    decoupling", 2018). The first part has the stride, padding and dilation, the second the bias;
    both are plain torch layers with the original's dtype, device and mode.

    Args:
        layer: Conv2d layer with one group.
        rank: Kernels for each input channel, from 1 to the kernel's size.
    """
    outputs, inputs, height, width = layer.weight.shape
    with torch.no_grad():
        matrices = layer.weight.permute(1, 0, 2, 3).reshape(inputs, outputs, -1).double()
        u, s, vh = torch.linalg.svd(matrices, full_matrices=False)
        root = s[:, :rank].sqrt()
        kept = root.shape[1]  # no more than the smaller side
        kernels = (root[:, :, None] * vh[:, :kept]).reshape(inputs * kept, 1, height, width)
        mixture = (u[:, :, :kept] * root[:, None]).permute(1, 0, 2).reshape(outputs, -1, 1, 1)
    parts = [sliding(layer, inputs, inputs * kept, inputs), mixing(inputs * kept, outputs)]
    return chained(layer, parts, (kernels, mixture))
