"""Weights rounded to levels, with gradients that pass and a step that learns."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import nn

from parefront.spaces.ruled import Rule

_STEPS_TRIED = 40
"""Steps among which the first is chosen, of each channel."""


class _Nearest(torch.autograd.Function):
    """The nearest level; the gradient passes where a number is within them."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, levels: torch.Tensor) -> torch.Tensor:  # noqa: ANN401
        ctx.save_for_backward(x, levels)
        return _nearest(x, levels)

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> tuple[torch.Tensor, None]:  # noqa: ANN401
        x, levels = ctx.saved_tensors
        inside = (x >= levels[0]) & (x <= levels[-1])
        return gradient * inside, None


class _Slower(torch.autograd.Function):
    """The same number, its gradient multiplied."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, factor: float) -> torch.Tensor:  # noqa: ANN401
        ctx.factor = factor
        return x.clone()

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> tuple[torch.Tensor, None]:  # noqa: ANN401
        return gradient * ctx.factor, None


def _nearest(x: torch.Tensor, levels: torch.Tensor) -> torch.Tensor:
    edges = (levels[:-1] + levels[1:]) / 2
    return levels[torch.bucketize(x.contiguous(), edges)]


class Rounded(Rule):
    """Each weight is a level times the step of its channel.

    The gradient of a weight is that of its rounded value, while it is within the levels
    (straight-through estimator, Bengio et al. 2013); the step learns by the gradient of "Learned
    step size quantization" (Esser et al. 2020), scaled as there. The product is one
    multiplication, so that what is exported is exactly a whole number times the step.

    Args:
        weight: The weight as it is before.
        levels: Whole numbers, ascending.
        channels: Dimension that counts the channels.
    """

    def __init__(self, weight: torch.Tensor, levels: Sequence[int], channels: int) -> None:
        super().__init__()
        self.register_buffer("levels", torch.tensor(levels, dtype=weight.dtype))
        self.levels: torch.Tensor
        rows = weight.detach().movedim(channels, 0).flatten(1)
        shape = [1] * weight.ndim
        shape[channels] = -1
        steps = best_steps(rows.float(), self.levels.float()).to(weight.dtype).reshape(shape)
        self.step = nn.Parameter(steps)
        self._slower = 1.0 / math.sqrt(weight.numel() / len(rows) * max(levels))

    def forward(self, weight: torch.Tensor) -> torch.Tensor:
        """The levels times the steps."""
        step = _Slower.apply(self.step, self._slower)  # type: ignore[no-untyped-call]
        level = _Nearest.apply(weight / step, self.levels)  # type: ignore[no-untyped-call]
        # A step that training has turned around would turn its weights around, and that is well.
        result: torch.Tensor = level * step
        if 0 not in self.levels:  # a weight that was pruned stays so
            result = torch.where(weight == 0, torch.zeros_like(result), result)
        return result


def best_steps(rows: torch.Tensor, levels: torch.Tensor) -> torch.Tensor:
    """Steps that leave a small squared error, of each channel.

    For levels of one size, such as -1 and 1, the best is the mean of the absolute values of what is
    not zero, which is taken; else the best of 40 from the largest weight's down to a fortieth.

    Args:
        rows: `(channels, n)` weights.
        levels: `(k,)` ascending.

    Returns:
        `(channels,)` steps above zero.
    """
    most = float(levels[-1])
    sizes = rows.abs()
    if len(levels) == 2:
        means: torch.Tensor = sizes.sum(dim=1) / (rows != 0).sum(dim=1).clamp_min(1)
        return torch.where(means > 0, means, 1.0) / most
    largest = sizes.amax(dim=1)
    largest = torch.where(largest > 0, largest, 1.0)  # whatever the step of a channel of zeros
    best, error = largest / most, torch.full_like(largest, math.inf)
    for part in range(1, _STEPS_TRIED + 1):
        step = largest / most * (part / _STEPS_TRIED)
        made = _nearest(rows / step[:, None], levels) * step[:, None]
        lost = (made - rows).square().sum(dim=1)
        best = torch.where(lost < error, step, best)
        error = torch.minimum(lost, error)
    return best
