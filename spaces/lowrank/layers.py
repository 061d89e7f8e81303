"""Linear and Conv2d layers in two low-rank factors."""

from __future__ import annotations

import torch
from torch import nn

from parefront.spaces.lowrank.matrix import truncate

Dense = nn.Linear | nn.Conv2d


def matrix_shape(layer: Dense) -> tuple[int, int]:
    """Rows and columns of the matrix that `factorize` decomposes."""
    if isinstance(layer, nn.Linear):
        return layer.out_features, layer.in_features
    height, width = layer.kernel_size
    return layer.out_channels * width, layer.in_channels * height


def as_matrix(layer: Dense) -> torch.Tensor:
    """The weight as the matrix that `factorize` decomposes."""
    if isinstance(layer, nn.Linear):
        return layer.weight
    return layer.weight.permute(0, 3, 1, 2).reshape(matrix_shape(layer))


def factorize(layer: Dense, rank: int) -> nn.Sequential:
    """Two layers that do what one did, as nearly as a rank allows.

    A Linear layer becomes two (truncated SVD). A convolution becomes a vertical one, `height` by
    1, and a horizontal one, 1 by `width` (Jaderberg et al. 2014,
    https://arxiv.org/abs/1405.3866); a 1x1 convolution becomes two. Strides, dilation, and
    padding of every mode split by direction without loss. The parts are plain torch layers with
    the original's dtype, device, mode and bias, which is the second part's.

    Args:
        layer: Linear layer, or Conv2d layer with one group.
        rank: Width between the parts.
    """
    # Parts are made without memory, and so without drawing from the global random state.
    with torch.no_grad():
        parts = _linears(layer, rank) if isinstance(layer, nn.Linear) else _convs(layer, rank)
    for part in parts:
        part.weight.requires_grad_(layer.weight.requires_grad)
    if layer.bias is not None:
        parts[1].bias = nn.Parameter(layer.bias.detach().clone(), layer.bias.requires_grad)
    return nn.Sequential(*parts).train(layer.training)


def _linears(layer: nn.Linear, rank: int) -> tuple[nn.Linear, nn.Linear]:
    left, right = truncate(layer.weight, rank)
    first = nn.Linear(layer.in_features, rank, bias=False, device="meta")
    second = nn.Linear(rank, layer.out_features, bias=False, device="meta")
    first.weight, second.weight = nn.Parameter(right), nn.Parameter(left)
    return first, second


def _convs(layer: nn.Conv2d, rank: int) -> tuple[nn.Conv2d, nn.Conv2d]:
    outputs, inputs, height, width = layer.weight.shape
    left, right = truncate(as_matrix(layer), rank)
    down, across = layer.stride
    tall, wide = layer.dilation
    padding = layer.padding  # "same" and "valid" hold for each direction
    vertical = nn.Conv2d(
        inputs,
        rank,
        (height, 1),
        stride=(down, 1),
        padding=padding if isinstance(padding, str) else (padding[0], 0),
        dilation=(tall, 1),
        bias=False,
        padding_mode=layer.padding_mode,
        device="meta",
    )
    horizontal = nn.Conv2d(
        rank,
        outputs,
        (1, width),
        stride=(1, across),
        padding=padding if isinstance(padding, str) else (0, padding[1]),
        dilation=(1, wide),
        bias=False,
        padding_mode=layer.padding_mode,
        device="meta",
    )
    vertical.weight = nn.Parameter(right.view(rank, inputs, height, 1))
    horizontal.weight = nn.Parameter(
        left.view(outputs, width, rank).permute(0, 2, 1).unsqueeze(2).contiguous()
    )
    return vertical, horizontal
