"""Distillation of one replaced layer by itself: it learns what the dense layer answers.

Layer after layer, each on the inputs that the dense layer gets in the unchanged model, as in the
reconstruction steps of He et al. 2017 (https://arxiv.org/abs/1707.06168).
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Any

import torch
from torch import nn

from parefront.errors import TrainingError
from parefront.spaces.distillation.training import train
from parefront.spaces.stage import Inputs, StageContext

_BATCH = 32
_BATCHES = 8
"""Batches of calibration examples that are looked at."""
_STEPS = 100
_RATE = 3e-3


@dataclass(frozen=True)
class Seen:
    """What a layer was given, row by row, and what it gave; a batch source.

    Attributes:
        inputs: What the layer was given, the first dimension counts.
        outputs: What it gave, of as many.
    """

    inputs: torch.Tensor
    outputs: torch.Tensor

    def __len__(self) -> int:
        """Number of rows."""
        return len(self.inputs)

    def batches(
        self, batch_size: int, *, seed: int | None = None
    ) -> Iterator[tuple[Inputs, torch.Tensor]]:
        """Yields `((inputs,), outputs)`; see `BatchSource.batches`."""
        order = torch.arange(len(self))
        if seed is not None:
            order = torch.randperm(len(self), generator=torch.Generator().manual_seed(seed))
        for rows in torch.split(order, batch_size):
            yield (self.inputs[rows],), self.outputs[rows]


def seen(model: nn.Module, name: str, context: StageContext) -> Seen | None:
    """What a layer gets and gives on up to 256 calibration examples.

    Args:
        model: A model in evaluation mode.
        name: Name of the layer.
        context: Where the examples are from.

    Returns:
        What it got and gave, or `None` if it was not called, or with different shapes.
    """
    layer = model.get_submodule(name)
    given: list[torch.Tensor] = []

    def keep(module: nn.Module, inputs: tuple[Any, ...]) -> None:  # noqa: ARG001
        if inputs:  # called by keyword it counts as not called
            given.append(inputs[0].detach().clone())  # what follows may change it in place

    handle = layer.register_forward_pre_hook(keep)
    try:
        with torch.no_grad(), torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(context.seed)
            for inputs, _ in islice(context.calibration.batches(_BATCH), _BATCHES):
                context.tick()
                model(*inputs)
    finally:
        handle.remove()
    if not given or any(each.shape[1:] != given[0].shape[1:] for each in given):
        return None
    rows = torch.cat(given)
    with torch.no_grad():
        return Seen(rows, layer(rows))


def distil(part: nn.Module, data: Seen, seed: int, tick: Callable[[], None]) -> list[float] | None:
    """Trains what stands for a layer to give what the layer gave; in place.

    100 steps of Adam on the squared error. The last quarter of the examples is not trained on, and
    what was trained is kept only if it is nearer on those.

    Args:
        part: What stands for the layer; its mode is left as it was.
        data: What the layer was given, and what it gave.
        seed: Seed of the order of the examples.
        tick: Called after each step.

    Returns:
        The squared error over the squared outputs of what was not trained on, before and after;
        `None` if there is nothing to train or to train on.
    """
    if len(data) < 4 or not any(p.requires_grad for p in part.parameters()):
        return None
    known, unknown = (
        Seen(*each)
        for each in zip(*(_divided(rows) for rows in (data.inputs, data.outputs)), strict=True)
    )
    scale = data.outputs.square().mean().clamp_min(torch.finfo(data.outputs.dtype).tiny)

    def error(inputs: Inputs, outputs: torch.Tensor, wanted: torch.Tensor) -> torch.Tensor:  # noqa: ARG001
        return (outputs - wanted).square().mean() / scale

    def whole() -> float:
        with torch.no_grad():
            return float(error((), part(unknown.inputs), unknown.outputs))

    mode, before = part.training, whole()
    kept = copy.deepcopy(part.state_dict())
    try:
        train(
            part,
            known,
            error,
            epochs=-(-_STEPS * _BATCH // len(known)),
            learning_rate=_RATE,
            batch_size=_BATCH,
            seed=seed,
            tick=tick,
        )
        after = whole()
    except TrainingError:  # it diverged, and is put back
        after = math.inf
    part.train(mode)
    if not after < before:
        part.load_state_dict(kept)
        after = before
    return [round(before, 6), round(after, 6)]


def _divided(rows: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    held_out = len(rows) // 4
    return rows[:-held_out], rows[-held_out:]
