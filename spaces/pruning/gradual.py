"""Masks that close during training: prune, recover, prune again, up to the wanted sparsity."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Mapping
from typing import ClassVar, Literal

import torch

from parefront.spaces.pruning.mask import Mask

Rise = Literal["linear", "cubic"]
Schedule = Literal["once", "linear", "cubic", "rounds"]
_END = 0.7
"""Share of the training at which the last weight goes; the rest recovers from it."""

_RISE: Mapping[Rise, Callable[[float], float]] = {
    "linear": lambda t: t,
    "cubic": lambda t: 1.0 - (1.0 - t) ** 3,
}


class ClosingMask(Mask):
    """A mask that keeps fewer weights as the training goes on, and as many as given without.

    Args:
        keep: Flags of the weight's shape, true where it would stay if all was pruned at once.
    """

    paced: ClassVar[bool] = True

    def __init__(self, keep: torch.Tensor) -> None:
        super().__init__(keep)
        self.least = self._kept = int(keep.sum())

    @abstractmethod
    def wanted(self, share: float) -> int:
        """How many weights stay when so much of the training is done."""

    def chosen(self, weight: torch.Tensor, count: int) -> torch.Tensor:
        """Flags of so many weights that stay, flat: the largest, as they are by now."""
        return largest(weight.abs().flatten(), count)

    def progress(self, share: float, weight: torch.Tensor) -> None:
        """Closes as far as the share says; of equal weights those stay that come first."""
        wanted = self.wanted(share)
        if self._kept != wanted:
            self.keep.copy_(self.chosen(weight, wanted).reshape(weight.shape))
            self._kept = wanted


def largest(values: torch.Tensor, count: int) -> torch.Tensor:
    """Flags of the largest `count` of some values; of equals, those that come first.

    As a stable sort would choose, but in linear time, since it is asked for before each step.

    Args:
        values: `(n,)`, none NaN.
        count: From 0 to n.
    """
    flags = torch.zeros(len(values), dtype=torch.bool)
    if count == 0:
        return flags
    edge = values.kthvalue(len(values) - count + 1).values
    flags |= values > edge
    flags[(values == edge).nonzero().flatten()[: count - int(flags.sum())]] = True
    return flags


class GradualMask(ClosingMask):
    """A mask that begins with nothing pruned and ends with as much as it was given.

    At each step of the training so many of the largest weights are kept as the schedule says, as
    they are by then, so that what was pruned early may come back (Zhu and Gupta, "To prune, or not
    to prune", 2017, whose schedule is the cubic one). Without training it prunes what it was given.

    Args:
        keep: Flags of the weight's shape, true where it would stay if all was pruned at once.
        schedule: How sparsity rises with the training.
    """

    def __init__(self, keep: torch.Tensor, schedule: Rise) -> None:
        super().__init__(keep)
        self._schedule: Rise = schedule

    def wanted(self, share: float) -> int:
        """As the schedule says."""
        pruned = self.keep.numel() - self.least
        risen = _RISE[self._schedule](min(share / _END, 1.0))
        return self.keep.numel() - round(pruned * risen)
