"""The last flips of adaptive rounding: levels changed one by one while the output error falls.

The squared error of what a linear layer or a convolution returns is a quadratic form of its
weights, with the second moments of its inputs, so what a flip changes is known without running it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TypeGuard

import torch
from torch import nn
from torch.nn.functional import unfold

_FLIPS = 200
"""Most flips of an output channel."""
_INPUTS = 8192
"""Most weights of an output channel: their second moments are a matrix."""


Solvable = nn.Linear | nn.Conv1d | nn.Conv2d


class Moments:
    """Sums over what a layer was given and should return.

    Args:
        layer: The layer.
        pairs: Inputs and wanted outputs of its calls.
    """

    def __init__(self, layer: Solvable, pairs: Iterable[tuple[torch.Tensor, torch.Tensor]]) -> None:
        weight = layer.weight
        inputs = weight[0].numel()
        self.second = torch.zeros(inputs, inputs, dtype=torch.float64)
        self.crossed = torch.zeros(len(weight), inputs, dtype=torch.float64)
        with torch.no_grad():
            for given, wanted in pairs:
                x = _columns(layer, given).double()
                y = (wanted if isinstance(layer, nn.Linear) else wanted.movedim(1, -1)).double()
                y = y.reshape(-1, len(weight))
                if layer.bias is not None:
                    y = y - layer.bias.double()
                self.second += x.T @ x
                self.crossed += y.T @ x

    def error(self, rows: torch.Tensor) -> torch.Tensor:
        """The squared error of each output channel, but for what no weight changes.

        Args:
            rows: `(channels, inputs)` weights.
        """
        return ((rows @ self.second - 2 * self.crossed) * rows).sum(dim=1)

    def descend(
        self,
        rows: torch.Tensor,
        others: torch.Tensor,
        tick: Callable[[], None],
    ) -> torch.Tensor:
        """Flips the weight of each channel that gains most, until none gains.

        Args:
            rows: `(channels, inputs)` weights to begin with.
            others: What each would be after its flip.
            tick: Called before each round of flips.
        """
        rows, others = rows.clone(), others.clone()
        slope = rows @ self.second - self.crossed
        curve = self.second.diagonal()
        every = torch.arange(len(rows))
        for _ in range(_FLIPS):
            tick()
            moves = others - rows
            gains = -(2 * slope + moves * curve) * moves
            gain, place = gains.max(dim=1)
            # Beyond what rounding errors could pretend.
            worth = gain > 1e-9 * (curve[place] * moves[every, place].square())
            if not worth.any():
                break
            where, which = every[worth], place[worth]
            slope[where] += moves[where, which, None] * self.second[which]
            rows[where, which], others[where, which] = others[where, which], rows[where, which]
        return rows


def solvable(layer: nn.Module) -> TypeGuard[Solvable]:
    """Whether the error of a layer is known by second moments that fit in memory."""
    if isinstance(layer, nn.Conv1d | nn.Conv2d):
        plain = layer.groups == 1 and layer.padding_mode == "zeros"
        if not plain or isinstance(layer.padding, str):
            return False
    elif not isinstance(layer, nn.Linear):
        return False
    return layer.weight[0].numel() <= _INPUTS


def _columns(layer: Solvable, given: torch.Tensor) -> torch.Tensor:
    """What meets the weights of one output: `(outputs, inputs)`."""
    if isinstance(layer, nn.Linear):
        return given.reshape(-1, given.shape[-1])
    kernel, dilation, stride = layer.kernel_size, layer.dilation, layer.stride
    padding = layer.padding
    if isinstance(layer, nn.Conv1d):  # a convolution along the second of two dimensions
        given = given.unsqueeze(-2)
        kernel, dilation, stride = (1, *kernel), (1, *dilation), (1, *stride)
        padding = (0, *padding)
    patches = unfold(given, kernel, dilation, padding, stride)  # type: ignore[arg-type]
    return patches.movedim(1, -1).reshape(-1, patches.shape[1])
