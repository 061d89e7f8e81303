"""Losses on what a student answers: labels, and what its teachers answer."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal

import torch
from torch import nn
from torch.nn import functional

from parefront.errors import StageError
from parefront.spaces.distillation.training import BatchLoss
from parefront.spaces.stage import Inputs

SoftLoss = Literal["kl", "mse"]
Loss = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]


def distillation_loss(
    outputs: torch.Tensor, teacher: torch.Tensor, targets: torch.Tensor, temperature: float | None
) -> torch.Tensor:
    """How far outputs are from a teacher's; 0 when they agree, lower is better.

    Classifiers (integer targets) are compared as in Hinton, Vinyals and Dean, "Distilling the
    knowledge in a neural network" (2015): the Kullback-Leibler divergence of the softened
    distributions over the last dimension, in nats, times the temperature squared so that its
    gradient does not shrink with the temperature. Regressors (floating-point targets) are
    compared by their mean squared difference, and so are the logits of classifiers without a
    temperature (Ba and Caruana, "Do deep nets really need to be deep?", 2014).

    Args:
        outputs: The student's outputs; for classifiers logits of shape (..., classes).
        teacher: The teacher's outputs, of the same shape.
        targets: The targets, whose type tells the two cases apart.
        temperature: What logits are divided by; `None` compares them as they are.

    Returns:
        The mean over all but the last dimension for classifiers, over all for regressors.
    """
    if targets.is_floating_point() or temperature is None:
        return functional.mse_loss(outputs, teacher)
    divergence = functional.kl_div(
        functional.log_softmax(outputs / temperature, dim=-1),
        functional.log_softmax(teacher / temperature, dim=-1),
        reduction="none",
        log_target=True,
    )
    return divergence.sum(dim=-1).mean() * temperature**2


def smoothed(loss: Loss, share: float) -> Loss:
    """A loss of classifiers in which a share of each label goes to all classes alike.

    Szegedy et al., "Rethinking the Inception architecture" (2016). Classes are along the last
    dimension of the outputs, or along the second where the targets say so. Where targets are not
    class numbers, the loss stays as it is.

    Args:
        loss: The loss on the labels.
        share: The share, in [0, 1).
    """

    def smooth(outputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        plain = loss(outputs, targets)
        _needs_tensor(outputs, "smoothing")
        if targets.is_floating_point():
            return plain
        shapes = {-1: outputs.shape[:-1], 1: outputs.shape[:1] + outputs.shape[2:]}
        classes = next((at for at, shape in shapes.items() if shape == targets.shape), None)
        if classes is None or outputs.shape[classes] == 1:
            return plain
        everywhere = -functional.log_softmax(outputs, dim=classes).mean()
        return (1 - share) * plain + share * everywhere

    return smooth if share else loss


def blended(
    labels: Loss,
    teachers: Sequence[nn.Module],
    weight: float,
    temperature: float | None,
    features: Callable[[], torch.Tensor] | None = None,
    feature_weight: float = 0.0,
) -> BatchLoss:
    """The loss on labels, on the mean of the teachers' outputs, and on features.

    Args:
        labels: The loss on the labels.
        teachers: Models in evaluation mode; the first is the one whose features are compared.
        weight: Weight of the teachers' outputs; the labels have the rest.
        temperature: As `distillation_loss`.
        features: Loss of the latest forward passes, or `None`.
        feature_weight: What it is multiplied by.
    """

    def blend(inputs: Inputs, outputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        with torch.no_grad():
            answers = [teacher(*inputs) for teacher in (teachers if weight else teachers[:1])]
        loss = labels(outputs, targets)
        if weight:
            _needs_tensor(outputs, "soft_weight")
            teacher = torch.stack(answers).mean(dim=0)
            soft = distillation_loss(outputs, teacher, targets, temperature)
            loss = weight * soft + (1 - weight) * loss
        return loss if features is None else loss + feature_weight * features()

    return blend


def _needs_tensor(outputs: object, what: str) -> None:
    if not isinstance(outputs, torch.Tensor):
        raise StageError(
            f"expected a model whose output is one tensor for {what}, got "
            f"{type(outputs).__name__}; set {what} to 0 and leave the rest to the task's loss"
        )
