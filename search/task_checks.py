"""Checks of a task before anything is trained: that model, data, loss and metric go together."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import torch
from torch import nn

from parefront.errors import TaskError
from parefront.search.adapter import outputs_of
from parefront.search.data import Split
from parefront.spaces.inspection import brief
from parefront.spaces.stage import Inputs

if TYPE_CHECKING:
    from parefront.search.task import PreparedTask


def check_names(names: Sequence[str]) -> None:
    """Checks that inputs have names that no output of an exported file has.

    Raises:
        TaskError: If one has.
    """
    for name in names:
        if re.fullmatch(r"output(_\d+)?", name):
            raise TaskError(
                f"an input cannot have the name {name!r}, which outputs of an exported file have; "
                "give it another name in the splits and in the model"
            )


def check_outputs(task: PreparedTask, splits: Mapping[str, Split], *, classes: bool) -> None:
    """Runs the models on a few examples of each split, and the loss and metric on what they give.

    Args:
        task: The task.
        splits: Its splits, by name.
        classes: Whether targets are numbers of the model's outputs along the last dimension.

    Raises:
        TaskError: In one sentence, what is wrong and what to do.
    """
    runs = {"example input": task.example}
    runs |= {f"{name} split": tuple(x[:2] for x in s.inputs) for name, s in splits.items()}
    outputs = task.example[0]
    for name, inputs in runs.items():
        outputs = _forward(task.baseline, inputs, name)
    for teacher in task.teachers:
        taught = _forward(teacher, runs["calibration split"], "calibration split")
        if taught.shape != outputs.shape:
            raise TaskError(
                "a teacher's outputs have the baseline's shape, "
                f"got {tuple(taught.shape)} and {tuple(outputs.shape)}"
            )
    if classes:
        for name, split in splits.items():
            _check_labels(split, outputs, name)
    elif task.source.loss is None:
        expected = (*task.train.targets.shape[1:],)
        if outputs.shape[1:] != torch.Size(expected):
            raise TaskError(
                f"for regression, outputs and targets have one shape, got {tuple(outputs.shape)} "
                f"and targets {('N', *expected)}; reshape the targets or give a loss"
            )
    _check_loss_and_metric(task)


def _forward(module: nn.Module, inputs: Inputs, name: str) -> torch.Tensor:
    try:
        with torch.no_grad():
            outputs = module(*inputs)
    except TaskError:
        raise
    except Exception as error:  # user code: whatever it raises is the task's fault
        shapes = ", ".join(f"{tuple(x.shape)} {x.dtype}" for x in inputs)
        raise TaskError(
            f"the model does not accept the {name} of shape {shapes}: {brief(error)}"
        ) from error
    if not isinstance(outputs, torch.Tensor):
        raise TaskError(
            f"the model returns one tensor, batch first, got {type(outputs).__name__}: "
            f"{outputs_of(outputs)}"
        )
    if outputs.ndim < 1 or len(outputs) != len(inputs[0]):
        raise TaskError(
            f"the model's output keeps the batch first, got {tuple(outputs.shape)} "
            f"for a batch of {len(inputs[0])}"
        )
    return outputs


def _check_labels(split: Split, outputs: torch.Tensor, name: str) -> None:
    labels = split.targets[split.targets != -100]
    classes = outputs.shape[-1]
    if labels.is_floating_point():
        raise TaskError(f"the {name} split has floating-point targets, the training split labels")
    if len(labels) and not (int(labels.min()) >= 0 and int(labels.max()) < classes):
        raise TaskError(
            f"labels of the {name} split run from {int(labels.min())} to {int(labels.max())}, but "
            f"the model has {classes} outputs, so labels lie in [0, {classes - 1}]; "
            "fix the labels or the model's last layer"
        )


def _check_loss_and_metric(task: PreparedTask) -> None:
    inputs = tuple(x[:2] for x in task.train.inputs)
    targets = task.train.targets[:2]
    with torch.no_grad():
        outputs = task.baseline(*inputs)
        try:
            loss = task.loss(outputs, targets)
        except Exception as error:  # user code: whatever it raises is the task's fault
            raise TaskError(
                f"the loss does not accept outputs {tuple(outputs.shape)} and targets "
                f"{tuple(targets.shape)}: {brief(error)}"
            ) from error
    if not isinstance(loss, torch.Tensor) or loss.ndim:
        raise TaskError("the loss returns a tensor with one number, the mean over the batch")
    try:
        value = float(task.metric.function(outputs.numpy(), targets.numpy()))
    except Exception as error:  # user code: whatever it raises is the task's fault
        raise TaskError(
            f"metric '{task.metric.name}' does not accept arrays of outputs "
            f"{tuple(outputs.shape)} and targets {tuple(targets.shape)}: {brief(error)}"
        ) from error
    if math.isinf(value):
        raise TaskError(f"metric '{task.metric.name}' returns a finite number, got {value}")
