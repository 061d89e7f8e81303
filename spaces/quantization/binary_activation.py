"""Activations of one bit, for networks that are built for them."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn


class _Sign(torch.autograd.Function):
    """-1 below zero and 1 elsewhere; the gradient passes between -1 and 1."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor) -> torch.Tensor:  # noqa: ANN401
        ctx.save_for_backward(x)
        return _sign(x)

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> torch.Tensor:  # noqa: ANN401
        (x,) = ctx.saved_tensors
        passed: torch.Tensor = gradient * (x.abs() <= 1)
        return passed


def _sign(x: torch.Tensor) -> torch.Tensor:
    return torch.where(x >= 0, torch.ones_like(x), -torch.ones_like(x))


class BinaryActivation(nn.Module):
    """The sign of each number: -1 below zero, 1 from zero on.

    Its gradient is that of a line cut off at -1 and 1 (the straight-through estimator of
    Courbariaux et al., "Binarized neural networks", 2016; XNOR-Net, Rastegari et al.
    2016). Batch normalisation before it keeps numbers where the gradient passes. With
    `round = {levels = "binary"}` weights have one bit, too. The exported file holds ordinary
    operators, and computes in floating point.

    Example:
        >>> BinaryActivation()(torch.tensor([-0.3, 0.0, 2.0])).tolist()
        [-1.0, 1.0, 1.0]
    """

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Signs of the shape and type of `x`; what is not a number gives -1."""
        if torch.onnx.is_in_onnx_export() or torch.compiler.is_compiling():
            return _sign(x)  # an exporter writes the operators of this, and needs no gradient
        result: torch.Tensor = _Sign.apply(x)  # type: ignore[no-untyped-call]
        return result
