"""Iterative pruning: prune, train, prune again, each time beginning anew."""

from __future__ import annotations

import math

import torch

from parefront.spaces.pruning.gradual import ClosingMask, largest


class RoundMask(ClosingMask):
    """A mask that closes at the beginning of each of some rounds of training.

    Each round prunes the same share of what is left, the smallest weights as training left them,
    and what is pruned never comes back (iterative magnitude pruning, Frankle and Carbin, "The
    lottery ticket hypothesis", 2019). Training restarts its schedule with each round; whether the
    weights return to what they were is `rewinds` (Renda, Frankle, Carbin, "Comparing rewinding and
    fine-tuning in neural network pruning", 2020). Without training it prunes what it was given.

    Args:
        keep: Flags of the weight's shape, true where it would stay if all was pruned at once.
        rounds: Number of rounds, at least 1.
        rewinds: Whether all weights return to what they were at the beginning of each round.

    Attributes:
        rounds: Number of rounds.
        rewinds: Whether weights return.
    """

    def __init__(self, keep: torch.Tensor, rounds: int, *, rewinds: bool) -> None:
        super().__init__(keep)
        self.rounds, self.rewinds = rounds, rewinds

    def wanted(self, share: float) -> int:
        """What the round leaves that the share is in."""
        # A share that begins a round may be a little less than that by rounding.
        done = min(int(share * self.rounds + 1e-9) + 1, self.rounds)
        total = self.keep.numel()
        if done == self.rounds:
            return self.least
        # A layer that keeps nothing in the end has something until then.
        return round(total * math.pow(max(self.least, 1) / total, done / self.rounds))

    def chosen(self, weight: torch.Tensor, count: int) -> torch.Tensor:
        """Flags of so many weights that stay, flat: the largest of those that are left."""
        return largest(torch.where(self.keep, weight.abs(), -1.0).flatten(), count)

    def progress(self, share: float, weight: torch.Tensor) -> None:
        """Prunes at the beginning of a round, in the first from all weights."""
        if share == 0:
            self.keep.fill_(True)
            self._kept = self.keep.numel()
        super().progress(share, weight)
