"""Movement pruning: weights that training moves towards zero go, whatever their size."""

from __future__ import annotations

import torch

from parefront.spaces.pruning.gradual import GradualMask, largest


class MovementMask(GradualMask):
    """A mask that closes by the cubic schedule and keeps the weights that moved away from zero.

    The score of a weight is the sum of -(gradient x weight) over the steps of the training, where
    the gradient is that of the masked weight and passes the mask as it is (straight-through), so
    that what was pruned goes on being scored and may come back (Sanh, Wolf, Rush, "Movement
    pruning: adaptive sparsity by fine-tuning", 2020, equation 4 with a constant learning rate of
    scores). Of equal scores, such as of weights that have no gradient, the larger weight stays.

    Args:
        keep: Flags of the weight's shape, true where it stays without training. How many they are
            is how many stay.
    """

    def __init__(self, keep: torch.Tensor) -> None:
        super().__init__(keep, "cubic")
        self.register_buffer("scores", torch.zeros(keep.shape))
        self.scores: torch.Tensor

    def chosen(self, weight: torch.Tensor, count: int) -> torch.Tensor:
        """Flags of so many weights that stay, flat: by score; of equal scores the largest."""
        scores = self.scores.flatten()
        if count == 0:
            return torch.zeros(len(scores), dtype=torch.bool)
        edge = scores.kthvalue(len(scores) - count + 1).values
        flags = scores > edge
        equal = (scores == edge).nonzero().flatten()
        sizes = weight.abs().flatten()[equal]
        flags[equal[largest(sizes, count - int(flags.sum()))]] = True
        return flags

    def forward(self, weight: torch.Tensor) -> torch.Tensor:
        """The weight, and zero where it is pruned by now; its gradient is scored in training."""
        made = super().forward(weight)
        if self.training and made.requires_grad:
            held = weight.detach()

            def score(gradient: torch.Tensor) -> None:
                self.scores.sub_(gradient * held)

            made.register_hook(score)  # type: ignore[no-untyped-call]
        return made
