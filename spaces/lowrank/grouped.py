"""Convolutions in two: kernels that see one group of channels each, and a mixture of them.

With one group and fewer kernels than outputs it is a bottleneck: the layer with fewer outputs, and
a 1x1 convolution back to all of them (Zhang et al. 2016, https://arxiv.org/abs/1505.06798). With
several groups and as many kernels as outputs it is filter group approximation (Peng et al. 2018,
https://openaccess.thecvf.com/content_ECCV_2018/html/Bo_Peng_Extreme_Network_Compression_ECCV_2018_paper.html).
"""

from __future__ import annotations

import math

import torch
from torch import nn

from parefront.spaces.lowrank.convolutions import chained, mixing, sliding


def groupings(layer: nn.Conv2d, multiple: int) -> list[int]:
    """Numbers of groups that save parameters, ascending; empty if there are none.

    Each group has whole multiples of `multiple` channels of inputs and outputs.

    Args:
        layer: Conv2d layer with one group.
        multiple: Widths that are multiples of this run well on the target.
    """
    most = math.gcd(layer.in_channels, layer.out_channels) // multiple
    return [
        groups
        for groups in range(2, most + 1)
        if layer.in_channels % (groups * multiple) == 0
        and layer.out_channels % (groups * multiple) == 0
        and grouped_size(layer, groups) < layer.weight.numel()
    ]


def grouped_size(layer: nn.Conv2d, groups: int) -> int:
    """Weights of both parts, with as many kernels as outputs."""
    return layer.weight.numel() // groups + layer.out_channels**2


def energy_held(layer: nn.Conv2d, groups: int) -> float:
    """Share of the squared weights that the two parts hold, with as many kernels as outputs."""
    matrices = _matrices(layer, groups)
    values = torch.linalg.svdvals(matrices)[:, : layer.out_channels // groups]
    whole = matrices.square().sum()
    return float(values.square().sum() / whole) if whole else 1.0


def factorize_grouped(layer: nn.Conv2d, groups: int, kernels: int) -> nn.Sequential:
    """Two convolutions that do what one did, as nearly as groups and kernels allow.

    For each group of input channels the kernels to all outputs are a matrix, whose nearest of
    rank `kernels / groups` is its truncated singular value decomposition (Eckart and Young 1936);
    the errors of the groups add up. With one group and as many kernels as outputs nothing is
    lost. The first part has the stride, padding and dilation, the second the bias; both are plain
    torch layers with the original's dtype, device and mode.

    Args:
        layer: Conv2d layer with one group.
        groups: Groups of the first part, a divisor of the input channels.
        kernels: Output channels of the first part, a multiple of `groups`; fewer are made
            where fewer lose nothing.
    """
    outputs, inputs, height, width = layer.weight.shape
    u, s, vh = torch.linalg.svd(_matrices(layer, groups), full_matrices=False)
    rank = min(kernels // groups, s.shape[1])
    kernels = rank * groups
    root = s[:, :rank].sqrt()
    first = (root[:, :, None] * vh[:, :rank]).reshape(kernels, inputs // groups, height, width)
    second = (u[:, :, :rank] * root[:, None]).movedim(1, 0).reshape(outputs, kernels, 1, 1)
    parts = [sliding(layer, inputs, kernels, groups), mixing(kernels, outputs)]
    return chained(layer, parts, (first, second))


def _matrices(layer: nn.Conv2d, groups: int) -> torch.Tensor:
    """For each group of inputs a matrix of the outputs by what a kernel of the group sees."""
    outputs, inputs = layer.weight.shape[:2]
    kernel = layer.weight.detach().double().reshape(outputs, groups, inputs // groups, -1)
    return kernel.movedim(1, 0).flatten(2)
