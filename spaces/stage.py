"""The contract of a stage: one compression technique of a space.

A stage has three types of its own: `Choices` (what a study file may write about it), `Config`
(one frozen, JSON-able choice) and the stage class itself. A new technique is a new file with
these three and one line in `parefront.spaces.catalog`.
"""

from __future__ import annotations

import enum
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Generic, Protocol, TypeVar

import optuna
import torch
from pydantic import BaseModel, ConfigDict
from torch import nn

from parefront.errors import SpaceError

Inputs = tuple[torch.Tensor, ...]
"""Positional inputs of a model; the first dimension of each is the batch."""


Facts = Mapping[str, Any]
"""JSON-able, by name."""
Find = Callable[[], Facts]
"""Finds facts out, which takes a while."""
Clock = Callable[[nn.Module, str, nn.Module], float]
"""Called with a model, the name of one of its layers and what might take the layer's place; gives
the latency of that over the layer's, each by itself on the target; lower is faster. Raises
`StageError` if that cannot be told."""


class Form(enum.StrEnum):
    """What a stage transforms."""

    MODULE = "module"
    """A `torch.nn.Module`, before it is exported."""
    ONNX = "onnx"
    """An `onnx.ModelProto`, after export."""


class StageConfig(BaseModel):
    """One choice of a stage: frozen, validated when made, equal when its values are equal."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class StageChoices(BaseModel):
    """What a study file may say about a stage: a range or choice for each field of its config."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class BatchSource(Protocol):
    """Examples to iterate over in batches."""

    def __len__(self) -> int:
        """Number of examples."""
        ...

    def batches(
        self, batch_size: int, *, seed: int | None = None
    ) -> Iterator[tuple[Inputs, torch.Tensor]]:
        """Yields `(inputs, targets)`, each with the batch first.

        Args:
            batch_size: Examples in a batch; the last batch may be smaller.
            seed: Shuffles with this seed; `None` keeps the order.
        """
        ...


@dataclass(frozen=True, kw_only=True)
class TargetTraits:
    """What a stage may know of the target it compresses for.

    Attributes:
        format: Format of the artifact, such as `"onnx"`.
        channel_multiple: Widths that are multiples of this run well on the target.
        saturates: Whether products of 8-bit integers are added up in 16 bits there, which hold
            their sums only if weights have 7 bits.
    """

    format: str
    channel_multiple: int
    saturates: bool = False


@dataclass(frozen=True, kw_only=True)
class StageContext:
    """What a stage may use besides the model.

    Attributes:
        example: Example inputs of the model, batch first, on the CPU.
        train: Training examples.
        calibration: Examples for post-training statistics, such as quantisation ranges.
        loss: Mean loss of a batch from `(outputs, targets)`; lower is better.
        teachers: Models to distil from, in evaluation mode; the first is the baseline.
        seed: Seed of everything random in this stage.
        input_names: Names of the inputs in an exported file, one for each of `example`.
        tick: Called between short steps of work; raises when the trial must end.
        rungs: Shares of a training, ascending in (0, 1), at which a dear stage reports.
        report: Called with such a share and the module in evaluation mode when it is reached;
            raises when the training is not worth going on with. It may not change the module.
        teacher_weights: Weights of the teachers in what they answer together, which sum to 1; all
            weigh alike if it is empty.
        remember: Called with a name and what finds JSON-able facts, of the module that the stage is
            given and of nothing else that the name does not tell; gives what is known from before,
            or finds it.
        clock: Times what might take a layer's place; `None` where nothing can be timed.
    """

    example: Inputs
    train: BatchSource
    calibration: BatchSource
    loss: Callable[[torch.Tensor, torch.Tensor], torch.Tensor]
    teachers: tuple[nn.Module, ...]
    seed: int
    input_names: tuple[str, ...]
    tick: Callable[[], None] = lambda: None
    rungs: tuple[float, ...] = ()
    report: Callable[[float, nn.Module], None] = lambda share, module: None  # noqa: ARG005
    teacher_weights: tuple[float, ...] = ()
    remember: Callable[[str, Find], Facts] = lambda name, find: find()  # noqa: ARG005
    clock: Clock | None = None


C = TypeVar("C", bound=StageConfig)
M = TypeVar("M")


@dataclass(frozen=True)
class Applied(Generic[M]):
    """What a stage made.

    Attributes:
        model: A new model; the one the stage was given is unchanged.
        achieved: JSON-able facts about what was really done, such as the channels left in each
            layer or the layers that were skipped and why.
    """

    model: M
    achieved: Mapping[str, Any] = field(default_factory=dict)


class Stage(ABC, Generic[C, M]):
    """One compression technique, with the ranges it may choose from.

    Attributes:
        name: Key of the stage in a study file and prefix of its parameters.
        form: What the stage transforms.
        choices_type: What a study file may say about the stage.
        config_type: One choice of the stage.
        lossy: Whether the stage changes what the model computes, so that recovery training
            afterwards makes sense.
        packs: Whether it leaves weights that can be stored in fewer bytes than they have, so that
            the file is only smaller when they are.
        rounds: Whether it leaves weights of few different values, which would only be worse if
            they were rounded again.
        together: Whether the stage is worth trying with all others at once.
        by_default: Whether the stage is in a space of which nothing is said.
        dear: Whether the stage trains. A dear stage changes neither the latency nor the size of
            what is exported, so both are known, and bounds on them checked, without it; but for
            the size of weights that are packed, which training changes a little.
    """

    name: ClassVar[str]
    form: ClassVar[Form]
    choices_type: ClassVar[type[StageChoices]]
    config_type: ClassVar[type[StageConfig]]
    lossy: ClassVar[bool] = True
    packs: ClassVar[bool] = False
    rounds: ClassVar[bool] = False
    together: ClassVar[bool] = True
    by_default: ClassVar[bool] = True
    dear: ClassVar[bool] = False

    def __init__(self, choices: StageChoices, target: TargetTraits) -> None:
        """Binds the stage to its ranges and the target's traits.

        Raises:
            SpaceError: If the ranges cannot work for the target, or it does not run ONNX files and
                the stage changes such a file, or leaves weights that only those can pack.
        """
        if target.format != "onnx" and (self.form is Form.ONNX or self.packs):
            raise SpaceError(
                f"{self.name} needs a target that runs ONNX files, such as the runtime "
                f"'onnxruntime', got the format '{target.format}'; choose another runtime or leave "
                f"{self.name} out of the space"
            )
        self.choices = choices
        self.target = target

    @abstractmethod
    def nothing_to_do(self, model: nn.Module, context: StageContext) -> str | None:
        """Why the stage has nothing to do on the baseline module, or `None` if it has.

        The reason is half a sentence, such as `"the model has no Conv2d or Linear layer"`.
        Stages of every form are asked with the torch module, before any export.
        """

    @abstractmethod
    def draw(self, trial: optuna.trial.BaseTrial, earlier: Mapping[str, StageConfig]) -> C:
        """Draws a config for a candidate in which the stage is on.

        A parameter is named `"{stage}.{field}"` after the config's field it becomes, so that a
        config can be turned back into parameters.

        Args:
            trial: Trial to draw from.
            earlier: Configs of the stages before this one that are on, by stage name.
        """

    @abstractmethod
    def anchors(self) -> Sequence[C]:
        """Configs worth trying first: each clearly different technique or strength, best first."""

    @abstractmethod
    def apply(self, model: M, config: C, context: StageContext) -> Applied[M]:
        """Makes a smaller model; never changes the one it is given.

        Equal model, config and context seed give an equal result; if the config is `timed`, on
        equal timings.

        Raises:
            StageError: If the stage cannot be applied to this model.
            TrainingError: If training diverges.
        """

    def passes(self, config: C) -> float:  # noqa: ARG002
        """How often the stage passes over the training examples: what it costs, 0 if not dear."""
        return 0.0

    def goes_before(self, config: C) -> str | None:  # noqa: ARG002
        """The earlier stage, by name, that this one is applied before where both are on."""
        return None

    def timed(self, config: C) -> bool:  # noqa: ARG002
        """Whether what the stage makes depends on timings on the target."""
        return False

    def clashes(self, earlier: Sequence[type[Stage[Any, Any]]]) -> str | None:  # noqa: ARG002
        """Why the stage cannot be on when the stages `earlier` are on, or `None` if it can.

        The reason is half a sentence, such as `"shared values are rounded already"`.
        """
        return None

    def required(self, earlier: Sequence[type[Stage[Any, Any]]]) -> bool:  # noqa: ARG002
        """Whether the stage must be on when the stages `earlier` are on."""
        return False
