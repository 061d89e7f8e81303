"""The best weights of a training, and when to stop waiting for better ones."""

from __future__ import annotations

import math

import torch
from torch import nn


class BestWeights:
    """The weights with which a module was best so far.

    Prechelt, "Early stopping, but when?" (1998), the criterion UP in its plainest form.

    Args:
        module: The module.

    Attributes:
        epoch: The epoch they are of; `None` before a number was finite.
        waited: Epochs since then.
    """

    def __init__(self, module: nn.Module) -> None:
        self._module = module
        self._lowest = math.inf
        self._kept: list[torch.Tensor] = []
        self.epoch: int | None = None
        self.waited = 0

    def look(self, epoch: int, value: float) -> None:
        """Takes in how good the module is after an epoch.

        Args:
            epoch: Number of the epoch.
            value: Lower is better; what is not finite is never the best.
        """
        if value < self._lowest:
            self._lowest, self.epoch, self.waited = value, epoch, 0
            self._kept = [tensor.detach().clone() for tensor in self._tensors()]
        else:
            self.waited += 1

    @torch.no_grad()
    def take(self) -> None:
        """Gives the module its best weights and buffers."""
        for tensor, kept in zip(self._tensors(), self._kept, strict=True):
            tensor.copy_(kept)

    def _tensors(self) -> list[torch.Tensor]:
        return [*self._module.parameters(), *self._module.buffers()]
