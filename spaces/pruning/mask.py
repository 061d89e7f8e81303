"""The rule of pruned weights: zero, and zero they stay."""

from __future__ import annotations

import torch

from parefront.spaces.ruled import Rule


class Mask(Rule):
    """Zero where a weight was pruned.

    Args:
        keep: Flags of the weight's shape, true where it stays.
    """

    def __init__(self, keep: torch.Tensor) -> None:
        super().__init__()
        self.register_buffer("keep", keep)
        self.keep: torch.Tensor

    def forward(self, weight: torch.Tensor) -> torch.Tensor:
        """The weight, and zero where it was pruned."""
        return torch.where(self.keep, weight, torch.zeros_like(weight))
