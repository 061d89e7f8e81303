"""What ways to write a convolution as several have in common."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn


def sliding(layer: nn.Conv2d, inputs: int, outputs: int, groups: int = 1) -> nn.Conv2d:
    """A part that slides as the layer does: its kernel size, stride, padding and dilation.

    It has no bias, and no memory yet: see `chained`.

    Args:
        layer: The layer.
        inputs: Input channels of the part.
        outputs: Output channels of the part.
        groups: Groups of the part.
    """
    return nn.Conv2d(
        inputs,
        outputs,
        (layer.kernel_size[0], layer.kernel_size[1]),
        stride=(layer.stride[0], layer.stride[1]),
        padding=layer.padding
        if isinstance(layer.padding, str)
        else (layer.padding[0], layer.padding[1]),
        dilation=(layer.dilation[0], layer.dilation[1]),
        groups=groups,
        bias=False,
        padding_mode=layer.padding_mode,
        device="meta",
    )


def mixing(inputs: int, outputs: int) -> nn.Conv2d:
    """A 1x1 part without bias or memory: see `chained`."""
    # Parts are made without memory, and so without drawing from the global random state.
    return nn.Conv2d(inputs, outputs, 1, bias=False, device="meta")


def chained(
    layer: nn.Conv2d, parts: Sequence[nn.Conv2d], weights: Sequence[torch.Tensor]
) -> nn.Sequential:
    """The parts in a row, with the layer's dtype, device, mode and bias, which is the last's.

    Args:
        layer: The layer that they stand for.
        parts: Its parts, in the order in which they compute.
        weights: The weight of each.
    """
    for part, weight in zip(parts, weights, strict=True):
        part.weight = nn.Parameter(
            weight.to(layer.weight.dtype).contiguous(), layer.weight.requires_grad
        )
    if layer.bias is not None:
        parts[-1].bias = nn.Parameter(layer.bias.detach().clone(), layer.bias.requires_grad)
    return nn.Sequential(*parts).train(layer.training)
