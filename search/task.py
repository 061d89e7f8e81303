"""The task: what a user brings."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import nn
from torch.nn import functional

from parefront.errors import TaskError
from parefront.objectives.targets.runtime import Dynamic
from parefront.search.adapter import Output, adapted
from parefront.search.data import Split
from parefront.search.dynamic import Varying, check_shapes, dynamic_dimensions
from parefront.search.metrics import Metric, accuracy, mean_squared_error
from parefront.search.task_checks import check_names, check_outputs
from parefront.spaces.distillation.losses import joined
from parefront.spaces.inspection import brief
from parefront.spaces.stage import Inputs

Loss = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]

_CALIBRATION = 256
"""Examples from the head of the training split when a task names no calibration split."""


@dataclass(frozen=True, kw_only=True)
class Pretrain:
    """How to train a baseline that comes untrained.

    Attributes:
        epochs: Passes over the training split.
        learning_rate: Largest learning rate of the schedule.
        batch_size: Examples in a step.
    """

    epochs: int = 5
    learning_rate: float = 1e-3
    batch_size: int = 64

    def __post_init__(self) -> None:
        if self.epochs < 1 or self.batch_size < 1 or not self.learning_rate > 0:
            raise TaskError(
                "pretraining needs at least one epoch, one example in a batch and a learning rate "
                f"above 0, got {self}"
            )


@dataclass(frozen=True, kw_only=True)
class Task:
    """A model, its data, and what counts as good.

    Splits are `(inputs, targets)` pairs of arrays, `Split`s or torch data sets; `inputs` may be a
    tuple of arrays for a model with several inputs, or arrays by name, which become keywords of
    the model and names of the exported file's inputs.

    Attributes:
        model: Builds the baseline model, trained unless `pretrain` is given.
        train: Examples for recovery training.
        validation: Examples the search measures accuracy on.
        test: Examples for the final report; the search never sees them.
        calibration: Examples for quantisation ranges; the first 256 of `train` by default.
        metric: What counts as good. By default accuracy when targets are integers, else mean
            squared error.
        loss: Mean loss of a batch from `(outputs, targets)`, lower is better. By default cross
            entropy over the last dimension when targets are integers, else mean squared error.
        example: Example inputs; the first training example by default.
        output: Which output counts, of a model that returns several: its name or place. The
            exported file has just this one.
        dynamic: Dimensions of inputs, besides the batch, that may have any size in the exported
            file: by name of the input the numbers of these dimensions, of which those of one size
            vary together, or their numbers with names, where those of one name do.
        pretrain: Trains the baseline first, once for a study.
        teachers: Builders of pretrained models to distil from beside the baseline. Their outputs
            have the baseline's shape.
        teacher_weights: Weights of the baseline and of each of the `teachers`, in this order, in
            what they answer together; they are divided by their sum. All weigh alike by default.

    Raises:
        TaskError: If a part has the wrong type, or there is not a weight for each teacher.

    Example:
        A whole task file is about 30 lines: see `examples/mnist_cnn.py`.
    """

    model: Callable[[], nn.Module]
    train: object
    validation: object
    test: object
    calibration: object = None
    metric: Metric | None = None
    loss: Loss | None = None
    example: torch.Tensor | tuple[torch.Tensor, ...] | Mapping[str, torch.Tensor] | None = None
    output: Output | None = None
    dynamic: Varying | None = None
    pretrain: Pretrain | None = None
    teachers: Sequence[Callable[[], nn.Module]] = ()
    teacher_weights: Sequence[float] | None = None

    def __post_init__(self) -> None:
        if isinstance(self.model, nn.Module) or not callable(self.model):
            raise TaskError(
                "model is a function without arguments that builds a torch.nn.Module, "
                f"got {type(self.model).__name__}; write model=lambda: MyNet()"
            )
        if self.metric is not None and not isinstance(self.metric, Metric):
            raise TaskError(
                "metric is a parefront.Metric, which also says which values are better, "
                f"got {type(self.metric).__name__}; write metric=pf.Metric('name', function)"
            )
        weights = self.teacher_weights
        if weights is None:
            return
        if len(weights) != 1 + len(self.teachers):
            raise TaskError(
                f"teacher_weights has a weight for the baseline and one for each of the "
                f"{len(self.teachers)} teachers, got {len(weights)} weights"
            )
        if not all(0 <= weight < math.inf for weight in weights) or not sum(weights) > 0:
            raise TaskError(
                "teacher_weights are finite numbers, none below 0 and not all 0, "
                f"got {list(weights)}"
            )


@dataclass(frozen=True)
class PreparedTask:
    """A checked task with its splits read and its defaults filled in.

    Attributes:
        source: The task it was made from.
        train: Training examples.
        validation: Validation examples.
        test: Test examples; only export and the final report touch them.
        calibration: Calibration examples.
        metric: The metric.
        loss: The loss.
        example: Example inputs, a batch of one.
        input_names: Names of the inputs in an exported file.
        baseline: The model as the user built it, in evaluation mode; in an adapter if it takes
            keywords or returns several outputs.
        teachers: Further models to distil from, in evaluation mode, adapted in the same way.
        teacher_weights: Weights of the baseline and of the teachers, which sum to 1; empty if all
            weigh alike.
        dynamic: Names of the dimensions that may vary, by input and number.
    """

    source: Task
    train: Split
    validation: Split
    test: Split
    calibration: Split
    metric: Metric
    loss: Loss
    example: Inputs
    input_names: tuple[str, ...]
    baseline: nn.Module
    teachers: tuple[nn.Module, ...]
    teacher_weights: tuple[float, ...] = ()
    dynamic: Dynamic = field(default_factory=dict)

    def digest(self) -> str:
        """Hash of everything in the splits."""
        splits = (self.train, self.calibration, self.validation, self.test)
        return hashlib.sha256("".join(s.digest() for s in splits).encode()).hexdigest()


def cross_entropy(outputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """Cross entropy over the last dimension; targets of -100 are left out.

    Of a model with a distillation token, which gives two outputs in training, it is that of their
    mean.
    """
    outputs = joined(outputs)
    return functional.cross_entropy(outputs.flatten(0, -2), targets.flatten().long())


def squared_error(outputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """Mean squared error; of a model with a distillation token, that of its two outputs' mean."""
    return functional.mse_loss(joined(outputs), targets)


def prepare(task: Task, *, seed: int = 0) -> PreparedTask:
    """Reads and checks a task; nothing is trained.

    Args:
        task: The task.
        seed: Seeds the building of the model, so that an untrained one is the same every time.

    Raises:
        TaskError: In one sentence, what is wrong and what to do.
    """
    if not isinstance(task, Task):
        raise TaskError(f"expected a parefront.Task, got {type(task).__name__}")
    splits = {}
    for name in ("train", "validation", "test"):
        try:
            splits[name] = Split.of(getattr(task, name))
        except TaskError as error:
            raise TaskError(f"{name} split: {error}") from error
    train = splits["train"]
    splits["calibration"] = (
        train.head(_CALIBRATION) if task.calibration is None else Split.of(task.calibration)
    )
    for name, split in splits.items():
        try:
            splits[name] = split.in_order(train.names)
        except TaskError as error:
            raise TaskError(f"{name} split: {error}") from error
    train, validation, test, calibration = splits.values()
    for name, split in splits.items():
        if not len(split):
            raise TaskError(f"the {name} split is empty; give it at least one example")
    for name in ("train", "validation", "calibration"):
        shared = test.overlap(splits[name])
        if shared:
            raise TaskError(
                f"the test split shares {shared} examples with the {name} split; "
                "take disjoint indices, or the test figures mean nothing"
            )
    names, example = train.names, _example(task, train)
    input_names = names or (
        ("input",)
        if len(train.inputs) == 1
        else tuple(f"input_{index}" for index in range(len(train.inputs)))
    )
    check_names(input_names)
    labels = not train.targets.is_floating_point()
    prepared = PreparedTask(
        source=task,
        train=train,
        validation=validation,
        test=test,
        calibration=calibration,
        metric=task.metric or (accuracy if labels else mean_squared_error),
        loss=task.loss or (cross_entropy if labels else squared_error),
        example=example,
        input_names=input_names,
        baseline=adapted(_build(task.model, "model", seed), names, task.output),
        teachers=tuple(
            adapted(_build(build, "teacher", seed), names, task.output) for build in task.teachers
        ),
        teacher_weights=_shares(task.teacher_weights or ()),
        dynamic=dynamic_dimensions(task.dynamic, input_names, example),
    )
    check_outputs(prepared, splits, classes=prepared.loss is cross_entropy)
    files = {name: split for name, split in splits.items() if name != "train"}
    check_shapes(files, input_names, example, prepared.dynamic)
    return prepared


def _shares(weights: Sequence[float]) -> tuple[float, ...]:
    return tuple(float(weight) / float(sum(weights)) for weight in weights)


def _build(builder: Callable[[], nn.Module], what: str, seed: int) -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        try:
            module = builder()
        except Exception as error:  # user code: whatever it raises is the task's fault
            raise TaskError(f"building the {what} failed: {brief(error)}") from error
    if not isinstance(module, nn.Module):
        raise TaskError(
            f"the {what} function builds a torch.nn.Module, got {type(module).__name__}"
        )
    return module.eval()


def _example(task: Task, train: Split) -> Inputs:
    given = task.example
    if given is None:
        return tuple(x[:1] for x in train.inputs)
    if isinstance(given, Mapping):
        if train.names is None or set(given) != set(train.names):
            raise TaskError(
                f"the example has inputs of the names {', '.join(given)}, the training split "
                f"{', '.join(train.names) if train.names else 'none'}; give both the same"
            )
        given = tuple(given[name] for name in train.names)
    return tuple(x[:1] for x in (given if isinstance(given, tuple) else (given,)))
