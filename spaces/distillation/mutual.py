"""Deep mutual learning: two students that learn from each other, without a fixed teacher."""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import nn

from parefront.spaces.distillation.losses import Loss, heads, joined, mixed
from parefront.spaces.distillation.training import BatchLoss
from parefront.spaces.stage import Inputs

_NOISE = 0.1
"""Standard deviation of what each parameter of the peer is multiplied by, around 1."""


class Pair(nn.Module):
    """A student and its peer, which are trained as one module.

    Args:
        student: The student that is kept.
        peer: The one that is dropped.
    """

    def __init__(self, student: nn.Module, peer: nn.Module) -> None:
        super().__init__()
        self.student = student
        self.peer = peer

    def forward(self, *inputs: torch.Tensor) -> tuple[Any, Any]:
        """What both answer."""
        return self.student(*inputs), self.peer(*inputs)


@torch.no_grad()
def peer_of(student: nn.Module, seed: int, noise: float = _NOISE) -> nn.Module:
    """A copy of a student that begins elsewhere.

    Each of its parameters that is trained is multiplied by a number near 1 of its own, so that what
    is zero or shares a sign stays so. Its rules, such as masks, are those of the student.

    Args:
        student: The student; it is unchanged.
        seed: Seed of the noise.
        noise: Standard deviation of the factors; 0 gives an equal copy.
    """
    peer = copy.deepcopy(student)
    generator = torch.Generator().manual_seed(seed)
    for parameter in peer.parameters():
        if parameter.requires_grad:
            factors = torch.randn(parameter.shape, generator=generator, dtype=parameter.dtype)
            parameter.mul_(1.0 + noise * factors)
    return peer


def exchanged(
    labels: Loss, weight: float, temperature: float | None, *, hard: bool = False
) -> BatchLoss:
    """The losses of both students of a `Pair`, each on labels and on what the other answers.

    Zhang, Xiang, Hospedales, Lu, "Deep mutual learning" (2018). Both take a step at once, from the
    answers to the same batch; no gradient flows through what a student is compared with.

    Args:
        labels: The loss on the labels.
        weight: Weight of the other's answers; the labels have the rest.
        temperature: As `distillation_loss`.
        hard: As `distillation_loss`.

    Returns:
        The sum of the two losses.
    """

    def exchange(_: Inputs, outputs: Any, targets: torch.Tensor) -> torch.Tensor:  # noqa: ANN401
        one, other = (heads(each) for each in outputs)
        return torch.stack(
            [
                mixed(
                    labels, mine, joined(theirs).detach(), targets, weight, temperature, hard=hard
                )
                for mine, theirs in ((one, other), (other, one))
            ]
        ).sum()

    return exchange
