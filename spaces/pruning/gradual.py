"""Masks that close during training: prune, recover, prune again, up to the wanted sparsity."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Literal

import torch

from parefront.spaces.pruning.mask import Mask

Schedule = Literal["once", "linear", "cubic"]
_END = 0.7
"""Share of the training at which the last weight goes; the rest recovers from it."""

_RISE: Mapping[Schedule, Callable[[float], float]] = {
    "linear": lambda t: t,
    "cubic": lambda t: 1.0 - (1.0 - t) ** 3,
}


class GradualMask(Mask):
    """A mask that begins with nothing pruned and ends with as much as it was given.

    At each step of the training so many of the largest weights are kept as the schedule says, as
    they are by then, so that what was pruned early may come back (Zhu and Gupta, "To prune, or not
    to prune", 2017, whose schedule is the cubic one). Without training it prunes what it was given.

    Args:
        keep: Flags of the weight's shape, true where it would stay if all was pruned at once.
        schedule: How sparsity rises with the training.
    """

    def __init__(self, keep: torch.Tensor, schedule: Schedule) -> None:
        super().__init__(keep)
        self._schedule: Schedule = schedule
        self._least = self._wanted = self._kept = int(keep.sum())

    def advance(self, share: float) -> None:
        """Told how much of the training is done, from 0 to 1."""
        pruned = self.keep.numel() - self._least
        risen = _RISE[self._schedule](min(share / _END, 1.0))
        self._wanted = self.keep.numel() - round(pruned * risen)

    def forward(self, weight: torch.Tensor) -> torch.Tensor:
        """The weight, and zero where it is pruned by now."""
        if self._kept != self._wanted:
            with torch.no_grad():
                order = weight.abs().flatten().argsort(descending=True, stable=True)
                flags = torch.zeros(weight.numel(), dtype=torch.bool)
                flags[order[: self._wanted]] = True
                self.keep.copy_(flags.reshape(weight.shape))
            self._kept = self._wanted
        return super().forward(weight)
