"""The training loop that recovery and the training of a baseline share."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from itertools import islice

import numpy as np
import torch
from torch import nn

from parefront.errors import TrainingError
from parefront.spaces.stage import BatchSource, Inputs

BatchLoss = Callable[[Inputs, torch.Tensor, torch.Tensor], torch.Tensor]
"""Mean loss of a batch from its inputs, the model's outputs and the targets; lower is better."""

WARM_UP = 0.1
"""Share of the steps in which the learning rate rises."""

MAX_GRADIENT_NORM = 1.0
"""Gradients are scaled down to this Euclidean norm, over all parameters together."""


@dataclass(frozen=True)
class TrainingLog:
    """What a training run did.

    Attributes:
        epochs: Passes over the examples.
        steps: Updates of the parameters.
        final_loss: Mean loss of the batches of the last epoch; lower is better.
    """

    epochs: int
    steps: int
    final_loss: float


def rate_at(step: int, steps: int, peak: float) -> float:
    """Learning rate of a step: a linear rise to `peak`, then half a cosine down to almost zero.

    The one-cycle form of Smith and Topin, "Super-convergence" (2018), without its momentum.

    Args:
        step: Number of the step, from 0 to `steps - 1`.
        steps: Steps of the whole run.
        peak: Largest learning rate.
    """
    rise = max(1, round(WARM_UP * steps))
    if step < rise:
        return peak * (step + 1) / rise
    return peak * 0.5 * (1.0 + math.cos(math.pi * (step - rise + 1) / (steps - rise + 1)))


def train(
    module: nn.Module,
    data: BatchSource,
    loss: BatchLoss,
    *,
    epochs: int,
    learning_rate: float,
    batch_size: int,
    seed: int,
    tick: Callable[[], None],
) -> TrainingLog:
    """Trains a module in place with Adam and leaves it in evaluation mode.

    Parameters that need no gradient stay as they are; a parameter that several layers share is
    updated once. The seed alone decides the order of the examples and everything the module
    draws from torch's generator, whose state outside is left as it was. A last batch of a single
    example is left out, because batch normalisation cannot train on it.

    Args:
        module: Module to train; on return, even by an error, it is in evaluation mode.
        data: Training examples, shuffled anew in each epoch.
        loss: Mean loss of a batch from `(inputs, outputs, targets)`.
        epochs: Passes over the examples, at least 1.
        learning_rate: Largest learning rate of the one-cycle schedule.
        batch_size: Examples in a batch.
        seed: Seed of everything random, not negative.
        tick: Called after each batch; what it raises ends the training.

    Raises:
        TrainingError: If there is nothing to train or to train on, or if the loss or its
            gradient stops being finite.
    """
    parameters = [p for p in module.parameters() if p.requires_grad]
    if not parameters:
        raise TrainingError("expected a module with parameters to train, got none")
    lone = len(data) % batch_size == 1 and len(data) > 1
    in_epoch = math.ceil(len(data) / batch_size) - lone
    if in_epoch == 0:
        raise TrainingError("expected training examples, got none")
    steps = epochs * in_epoch
    optimizer = torch.optim.Adam(parameters, lr=learning_rate, fused=True)
    orders = np.random.SeedSequence(seed).generate_state(epochs).tolist()
    step, mean = 0, math.nan
    # Not `torch.manual_seed`, which would reseed the generators of accelerators as well.
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        module.train()
        try:
            for epoch, order in enumerate(orders, start=1):
                total = 0.0
                for inputs, targets in islice(data.batches(batch_size, seed=order), in_epoch):
                    rate = rate_at(step, steps, learning_rate)
                    step += 1
                    optimizer.param_groups[0]["lr"] = rate
                    optimizer.zero_grad()
                    value = loss(inputs, module(*inputs), targets)
                    value.backward()  # type: ignore[no-untyped-call]
                    norm = nn.utils.clip_grad_norm_(parameters, MAX_GRADIENT_NORM)
                    if not (math.isfinite(value.item()) and math.isfinite(norm.item())):
                        raise TrainingError(
                            f"training diverged in epoch {epoch} of {epochs}, step {step} of"
                            f" {steps}: loss {value.item():.4g}, gradient norm {norm.item():.4g},"
                            f" learning rate {rate:.3g}; try a lower learning rate"
                        )
                    optimizer.step()
                    total += value.item()
                    tick()
                mean = total / in_epoch
        finally:
            optimizer.zero_grad()
            module.eval()
    return TrainingLog(epochs, step, mean)
