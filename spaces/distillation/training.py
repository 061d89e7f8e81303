"""The training loop that recovery and the training of a baseline share."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from itertools import islice, pairwise
from typing import Literal, Protocol, runtime_checkable

import numpy as np
import torch
from torch import nn

from parefront.errors import TrainingError
from parefront.spaces.distillation.averaging import RunningAverage
from parefront.spaces.distillation.stopping import BestWeights
from parefront.spaces.stage import BatchSource, Inputs

BatchLoss = Callable[[Inputs, torch.Tensor, torch.Tensor], torch.Tensor]
"""Mean loss of a batch from its inputs, the model's outputs and the targets; lower is better."""

WARM_UP = 0.1
"""Share of the steps in which the learning rate rises."""

MAX_GRADIENT_NORM = 1.0
"""Gradients are scaled down to this Euclidean norm, over all parameters together."""


@runtime_checkable
class Paced(Protocol):
    """A part of a module that may change with its training, such as a mask that closes.

    Attributes:
        paced: Whether it does.
    """

    @property
    def paced(self) -> bool:
        """See above."""
        ...

    def advance(self, share: float) -> None:
        """Told before each step how much of the training is done, and 1 at its end."""
        ...


def is_paced(module: nn.Module) -> bool:
    """Whether a part of a module changes with its training."""
    return bool(_paced(module))


def _paced(module: nn.Module) -> list[Paced]:
    return [part for part in module.modules() if isinstance(part, Paced) and part.paced]


@runtime_checkable
class InRounds(Protocol):
    """A part of a module that is trained in rounds, each with all of the schedule.

    Attributes:
        rounds: Number of rounds that the steps are split over.
        rewinds: Whether the parameters return to their first values at each round but the first.
    """

    rounds: int
    rewinds: bool


Schedule = Literal["one_cycle", "cosine", "constant"]
Optimizer = Literal["adam", "adamw", "sgd"]
_OPTIMIZERS: Mapping[
    Optimizer, Callable[[Sequence[nn.Parameter], float], torch.optim.Optimizer]
] = {
    "adam": lambda parameters, rate: torch.optim.Adam(parameters, lr=rate, fused=True),
    "adamw": lambda parameters, rate: torch.optim.AdamW(
        parameters, lr=rate, weight_decay=0.01, fused=True
    ),
    "sgd": lambda parameters, rate: torch.optim.SGD(
        parameters, lr=rate, momentum=0.9, nesterov=True, fused=True
    ),
}


@dataclass(frozen=True)
class TrainingLog:
    """What a training run did.

    Attributes:
        epochs: Passes over the examples that were made.
        steps: Updates of the parameters.
        final_loss: Mean loss of the batches of the last epoch; lower is better.
        best_epoch: The epoch whose weights were left, where that was watched; else `None`.
    """

    epochs: int
    steps: int
    final_loss: float
    best_epoch: int | None = None


def rate_at(step: int, steps: int, peak: float, schedule: Schedule = "one_cycle") -> float:
    """Learning rate of a step.

    Args:
        step: Number of the step, from 0 to `steps - 1`.
        steps: Steps of the whole run.
        peak: Largest learning rate.
        schedule: `"one_cycle"`, a linear rise to `peak`, then half a cosine down to almost zero,
            which is the form of Smith and Topin, "Super-convergence" (2018), without its momentum;
            `"cosine"`, the half cosine alone (Loshchilov and Hutter, "SGDR", 2017, without
            restarts); or `"constant"`.
    """
    if schedule == "constant":
        return peak
    if schedule == "cosine":
        return peak * 0.5 * (1.0 + math.cos(math.pi * step / steps))
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
    rungs: Sequence[float] = (),
    report: Callable[[float, nn.Module], None] = lambda share, module: None,  # noqa: ARG005
    optimizer: Optimizer = "adam",
    average: float | None = None,
    beside: Sequence[nn.Parameter] = (),
    schedule: Schedule = "one_cycle",
    patience: int = 0,
    watch: Callable[[nn.Module], float] = lambda module: math.nan,  # noqa: ARG005
) -> TrainingLog:
    """Trains a module in place and leaves it in evaluation mode.

    Parameters that need no gradient stay as they are; a parameter that several layers share is
    updated once. The seed alone decides the order of the examples and everything the module
    draws from torch's generator, whose state outside is left as it was. A last batch of a single
    example is left out, because batch normalisation cannot train on it. What is trained does not
    depend on whether anything is reported on the way.

    Where a part of the module asks for rounds (`InRounds`; the most that any asks for), each begins
    with a new optimiser, average and learning rate schedule, after parts that are `Paced` are told.

    Args:
        module: Module to train; on return, even by an error, it is in evaluation mode.
        data: Training examples, shuffled anew in each epoch.
        loss: Mean loss of a batch from `(inputs, outputs, targets)`.
        epochs: Passes over the examples, at least 1.
        learning_rate: Largest learning rate of the schedule.
        batch_size: Examples in a batch.
        seed: Seed of everything random, not negative.
        tick: Called after each batch; what it raises ends the training.
        rungs: Shares of all steps, ascending in (0, 1), at which `report` is called. Of shares that
            so short a training reaches in one step the last counts, and none in its last step.
        report: Called with a share and the module, in evaluation mode and without gradients,
            after the step that reaches the share; what it raises ends the training. It may not
            change the module's parameters.
        optimizer: `"adam"`; `"adamw"` with a weight decay of 0.01; or `"sgd"` with Nesterov's
            momentum of 0.9.
        average: Decay of a running average of the parameters over the steps, in (0, 1), which is
            what is reported and what is left; `None` leaves the last parameters.
        beside: Parameters of the loss, trained with the module's.
        schedule: How the learning rate goes, as `rate_at`; it does not know of `patience`.
        patience: Epochs in a row without a lower `watch` after which the training ends; what is
            left is as it was after the best epoch. 0 trains all epochs and leaves the last.
        watch: How good the module is, which it is given in evaluation mode and without gradients
            after each epoch; lower is better. Called only with a `patience`.

    Raises:
        ValueError: If the rungs are not ascending in (0, 1), or there is a `patience` for a module
            with parts that are `Paced`, which are not what they have to be in an early epoch.
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
    due = _steps_of(rungs, steps)
    trained = [*parameters, *beside]
    updates = _OPTIMIZERS[optimizer](trained, learning_rate)
    paced = _paced(module)
    if patience and paced:
        raise ValueError("expected no patience for a module with parts that are paced")
    best = BestWeights(module) if patience else None
    averaged = None if average is None else RunningAverage(parameters, average)
    asked = [part for part in module.modules() if isinstance(part, InRounds)]
    starts = _starts(steps, max((part.rounds for part in asked), default=1))
    begin, length = 0, starts[0]
    rewinds = any(part.rewinds for part in asked)
    first = [parameter.detach().clone() for parameter in parameters] if rewinds else []
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
                    for part in paced:
                        part.advance(step / steps)
                    if step > 0 and step in starts:
                        begin, length = step, starts[step]
                        updates = _OPTIMIZERS[optimizer](trained, learning_rate)
                        averaged = None if average is None else RunningAverage(parameters, average)
                        if rewinds:
                            _rewind(parameters, first)
                    rate = rate_at(step - begin, length, learning_rate, schedule)
                    step += 1
                    updates.param_groups[0]["lr"] = rate
                    updates.zero_grad()
                    value = loss(inputs, module(*inputs), targets)
                    value.backward()  # type: ignore[no-untyped-call]
                    norm = nn.utils.clip_grad_norm_(trained, MAX_GRADIENT_NORM)
                    if not (math.isfinite(value.item()) and math.isfinite(norm.item())):
                        raise TrainingError(
                            f"training diverged in epoch {epoch} of {epochs}, step {step} of"
                            f" {steps}: loss {value.item():.4g}, gradient norm {norm.item():.4g},"
                            f" learning rate {rate:.3g}; try a lower learning rate"
                        )
                    updates.step()
                    if averaged is not None:
                        averaged.update()
                    total += value.item()
                    tick()
                    if step in due:
                        with averaged.taken() if averaged else nullcontext(), _looked_at(module):
                            report(due[step], module)
                mean = total / in_epoch
                if best is not None:
                    with averaged.taken() if averaged else nullcontext(), _looked_at(module):
                        best.look(epoch, watch(module))
                    if best.waited >= patience:
                        break
            for part in paced:
                part.advance(1.0)
            if best is not None and best.epoch is not None:
                best.take()
            elif averaged is not None:
                averaged.take()
        finally:
            updates.zero_grad()
            module.eval()
    return TrainingLog(step // in_epoch, step, mean, best.epoch if best else None)


@torch.no_grad()
def _rewind(parameters: Sequence[nn.Parameter], first: Sequence[torch.Tensor]) -> None:
    for parameter, value in zip(parameters, first, strict=True):
        parameter.copy_(value)


def _starts(steps: int, rounds: int) -> dict[int, int]:
    """The first step of each round that has any, with the number of its steps."""
    edges = sorted({-(-steps * each // rounds) for each in range(rounds + 1)})
    return {low: high - low for low, high in pairwise(edges)}


def _steps_of(rungs: Sequence[float], steps: int) -> dict[int, float]:
    """The rungs by the number of steps that reach them."""
    if any(not low < high for low, high in pairwise((0.0, *rungs, 1.0))):
        raise ValueError(f"expected rungs ascending in (0, 1), got {tuple(rungs)}")
    # A product such as 100 * 0.07 is larger than 7 by its rounding, and 7 steps are meant.
    due = {math.ceil(share * steps - 1e-9): share for share in rungs}
    due.pop(steps, None)
    return due


@contextmanager
def _looked_at(module: nn.Module) -> Iterator[None]:
    """A pause of the training: evaluation mode, no gradients, and everything random as it was.

    Each part returns to the mode it was in, and each buffer to its values, since a module's
    `forward` may count or average in evaluation mode as well.
    """
    modes = [(part, part.training) for part in module.modules()]
    buffers = [(buffer, buffer.clone()) for buffer in module.buffers()]
    module.eval()
    try:
        with torch.random.fork_rng(devices=[]), torch.no_grad():
            yield
    finally:
        module.train()
        for part, mode in modes:
            part.training = mode
        with torch.no_grad():
            for buffer, before in buffers:
                buffer.copy_(before)
