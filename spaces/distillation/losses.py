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

SoftLoss = Literal["kl", "mse", "hard"]
Loss = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]


def distillation_loss(
    outputs: torch.Tensor,
    teacher: torch.Tensor,
    targets: torch.Tensor,
    temperature: float | None,
    *,
    hard: bool = False,
) -> torch.Tensor:
    """How far outputs are from a teacher's; lower is better, and 0 when they agree but for `hard`.

    Classifiers (integer targets) are compared as in Hinton, Vinyals and Dean, "Distilling the
    knowledge in a neural network" (2015): the Kullback-Leibler divergence of the softened
    distributions over the last dimension, in nats, times the temperature squared so that its
    gradient does not shrink with the temperature. Regressors (floating-point targets) are
    compared by their mean squared difference, and so are the logits of classifiers without a
    temperature (Ba and Caruana, "Do deep nets really need to be deep?", 2014). With `hard` the
    class that the teacher is for is a label like another, for which the loss is the cross entropy
    (Touvron et al., "Training data-efficient image transformers", 2021).

    Args:
        outputs: The student's outputs; for classifiers logits of shape (..., classes).
        teacher: The teacher's outputs, of the same shape.
        targets: The targets, whose type tells the two cases apart.
        temperature: What logits are divided by; `None` compares them as they are.
        hard: Whether classifiers learn the teacher's class alone; the temperature has no use then.

    Returns:
        The mean over all but the last dimension for classifiers, over all for regressors.

    Raises:
        StageError: If a class is asked for and there are fewer than two.
    """
    if hard and not targets.is_floating_point():
        if outputs.ndim < 2 or outputs.shape[-1] < 2:
            raise StageError(
                "expected at least two classes along the last dimension for soft_loss 'hard', got "
                f"outputs of shape {tuple(outputs.shape)}; choose 'mse'"
            )
        return functional.cross_entropy(outputs.flatten(0, -2), teacher.argmax(dim=-1).flatten())
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


def heads(outputs: object) -> tuple[torch.Tensor, torch.Tensor]:
    """The outputs that learn the labels and those that learn the soft targets.

    Both are the output of most models. One with a distillation token (Touvron et al. 2021) gives a
    plain pair of them in training mode, and in evaluation mode their mean.

    Raises:
        StageError: If the output is neither a tensor nor a pair of tensors of one shape.
    """
    # A named pair has a meaning of its own, such as that of an auxiliary classifier.
    pair = outputs if type(outputs) is tuple else (outputs, outputs)
    if len(pair) == 2:
        own, taught = pair
        if (
            isinstance(own, torch.Tensor)
            and isinstance(taught, torch.Tensor)
            and own.shape == taught.shape
        ):
            return own, taught
    raise StageError(
        "expected a model that gives one tensor in training, or a class head and a distillation "
        f"head of one shape, for soft_weight, got {_told(outputs)}; set soft_weight to 0 and give "
        "the task a loss that takes this"
    )


def _told(outputs: object) -> str:
    """What a model gave, in a few words."""
    if type(outputs) is tuple:
        return f"({', '.join(map(_told, outputs))})"
    if isinstance(outputs, torch.Tensor):
        return f"a tensor of shape {tuple(outputs.shape)}"
    return type(outputs).__name__


def joined(outputs: object) -> torch.Tensor:
    """What a model answers: its output, or the mean of its two heads; see `heads`."""
    if isinstance(outputs, torch.Tensor):
        return outputs
    own, taught = heads(outputs)
    return (own + taught) / 2


def mixed(
    labels: Loss,
    both: tuple[torch.Tensor, torch.Tensor],
    answer: torch.Tensor,
    targets: torch.Tensor,
    weight: float,
    temperature: float | None,
    *,
    hard: bool,
) -> torch.Tensor:
    """The loss on labels and on what a teacher answered, each on the one of `heads` for it."""
    own, taught = both
    soft = distillation_loss(taught, answer, targets, temperature, hard=hard)
    return weight * soft + (1 - weight) * labels(own, targets)


def blended(
    labels: Loss,
    teachers: Sequence[nn.Module],
    weight: float,
    temperature: float | None,
    features: Callable[[], torch.Tensor] | None = None,
    feature_weight: float = 0.0,
    *,
    hard: bool = False,
    teacher_weights: Sequence[float] = (),
) -> BatchLoss:
    """The loss on labels, on the mean of the teachers' outputs, and on features.

    Args:
        labels: The loss on the labels.
        teachers: Models in evaluation mode; the first is the one whose features are compared.
        weight: Weight of the teachers' outputs; the labels have the rest.
        temperature: As `distillation_loss`.
        features: Loss of the latest forward passes, or `None`.
        feature_weight: What it is multiplied by.
        hard: As `distillation_loss`.
        teacher_weights: Weights of the teachers in their mean, which sum to 1; all alike if empty.
    """

    def blend(inputs: Inputs, outputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        with torch.no_grad():
            answers = [teacher(*inputs) for teacher in (teachers if weight else teachers[:1])]
        if weight:
            both = heads(outputs)
            teacher = _mean(answers, teacher_weights)
            loss = mixed(labels, both, teacher, targets, weight, temperature, hard=hard)
        else:
            loss = labels(outputs, targets)
        return loss if features is None else loss + feature_weight * features()

    return blend


def _mean(answers: Sequence[torch.Tensor], weights: Sequence[float]) -> torch.Tensor:
    """The mean of some teachers' outputs by their weights; all weigh alike if there are none."""
    if not weights:
        return torch.stack(list(answers)).mean(dim=0)
    return torch.stack([w * answer for w, answer in zip(weights, answers, strict=True)]).sum(dim=0)


def compared(
    loss: BatchLoss, teacher: nn.Module, features: Callable[[], torch.Tensor], weight: float
) -> BatchLoss:
    """A loss and, times a weight, that on the features of a student and its teacher."""

    def both(inputs: Inputs, outputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        with torch.no_grad():
            teacher(*inputs)
        return loss(inputs, outputs, targets) + weight * features()

    return both


def _needs_tensor(outputs: object, what: str) -> None:
    if not isinstance(outputs, torch.Tensor):
        raise StageError(
            f"expected a model whose output is one tensor for {what}, got "
            f"{type(outputs).__name__}; set {what} to 0 and leave the rest to the task's loss"
        )
