"""The stage `recover`: a compressed model learns again, from labels and from the baseline."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Annotated, Any, ClassVar

import optuna
import torch
from pydantic import Field, field_validator, model_validator
from torch import nn
from torch.nn import functional

from parefront.errors import StageError
from parefront.spaces.distillation.training import BatchLoss, train
from parefront.spaces.ranges import FloatRange, IntRange
from parefront.spaces.stage import (
    Applied,
    Form,
    Inputs,
    Stage,
    StageChoices,
    StageConfig,
    StageContext,
)


class RecoveryConfig(StageConfig):
    """One way to train.

    Attributes:
        epochs: Passes over the training examples.
        learning_rate: Largest learning rate of the schedule.
        soft_weight: Weight of the teachers' outputs in the loss, in [0, 1]; the labels have the
            rest, so that 0 is plain training.
        temperature: What logits are divided by before they are compared with the teachers';
            `None` when, and only when, `soft_weight` is 0.
        batch_size: Examples in a batch.

    Example:
        >>> RecoveryConfig(epochs=2, learning_rate=0.001).soft_weight
        0.0
    """

    epochs: Annotated[int, Field(ge=1)]
    learning_rate: Annotated[float, Field(gt=0, allow_inf_nan=False)]
    soft_weight: Annotated[float, Field(ge=0, le=1)] = 0.0
    temperature: Annotated[float, Field(gt=0, allow_inf_nan=False)] | None = None
    batch_size: Annotated[int, Field(ge=2)] = 64

    @model_validator(mode="after")
    def _temperature_has_a_use(self) -> RecoveryConfig:
        # Two configs that train alike must be equal, or the search would try both.
        if self.soft_weight == 0 and self.temperature is not None:
            raise ValueError(
                f"expected no temperature when soft_weight is 0, got {self.temperature}"
            )
        if self.soft_weight > 0 and self.temperature is None:
            raise ValueError(f"expected a temperature for soft_weight {self.soft_weight}, got none")
        return self


class RecoveryChoices(StageChoices):
    """What a study file may say about recovery training.

    Attributes:
        epochs: Passes over the training examples, at least 1.
        learning_rate: Largest learning rate of the schedule, above 0.
        soft_weight: Weight of the teachers' outputs in the loss, within [0, 1].
        temperature: What logits are divided by before they are compared, above 0; drawn only
            when the soft weight is not 0.
        batch_size: Examples in a batch, at least 2.
    """

    epochs: IntRange = IntRange(low=1, high=5)
    learning_rate: FloatRange = FloatRange(low=5e-4, high=1e-2, log=True)
    soft_weight: FloatRange = FloatRange(low=0.0, high=0.9)
    temperature: FloatRange = FloatRange(low=1.0, high=8.0)
    batch_size: IntRange = IntRange(low=64, high=64)

    @field_validator("learning_rate", "temperature")
    @classmethod
    def _positive(cls, value: FloatRange) -> FloatRange:
        if value.low <= 0:
            raise ValueError(f"expected a range above 0, got [{value.low}, {value.high}]")
        return value

    @field_validator("soft_weight")
    @classmethod
    def _shares(cls, value: FloatRange) -> FloatRange:
        if value.low < 0 or value.high > 1:
            raise ValueError(f"expected weights within [0, 1], got [{value.low}, {value.high}]")
        return value

    @field_validator("epochs")
    @classmethod
    def _some_epochs(cls, value: IntRange) -> IntRange:
        if value.low < 1:
            raise ValueError(f"expected at least 1 epoch, got [{value.low}, {value.high}]")
        return value

    @field_validator("batch_size")
    @classmethod
    def _real_batches(cls, value: IntRange) -> IntRange:
        if value.low < 2:
            raise ValueError(
                f"expected at least 2 examples in a batch, got [{value.low}, {value.high}]"
            )
        return value


def distillation_loss(
    outputs: torch.Tensor, teacher: torch.Tensor, targets: torch.Tensor, temperature: float
) -> torch.Tensor:
    """How far outputs are from a teacher's; 0 when they agree, lower is better.

    Classifiers (integer targets) are compared as in Hinton, Vinyals and Dean, "Distilling the
    knowledge in a neural network" (2015): the Kullback-Leibler divergence of the softened
    distributions over the last dimension, in nats, times the temperature squared so that its
    gradient does not shrink with the temperature. Regressors (floating-point targets) are
    compared by their mean squared difference, without the temperature.

    Args:
        outputs: The student's outputs; for classifiers logits of shape (..., classes).
        teacher: The teacher's outputs, of the same shape.
        targets: The targets, whose type tells the two cases apart.
        temperature: What logits are divided by.

    Returns:
        The mean over all but the last dimension for classifiers, over all for regressors.
    """
    if targets.is_floating_point():
        return functional.mse_loss(outputs, teacher)
    divergence = functional.kl_div(
        functional.log_softmax(outputs / temperature, dim=-1),
        functional.log_softmax(teacher / temperature, dim=-1),
        reduction="none",
        log_target=True,
    )
    return divergence.sum(dim=-1).mean() * temperature**2


class RecoveryTraining(Stage[RecoveryConfig, nn.Module]):
    """Trains a compressed model on the labels and on what the baseline answers.

    The soft targets are the outputs of `StageContext.teachers`, averaged where there are
    several. `achieved` holds `epochs`, `steps` and `final_loss`, the mean loss of the last epoch.
    """

    name: ClassVar[str] = "recover"
    form: ClassVar[Form] = Form.MODULE
    choices_type: ClassVar[type[StageChoices]] = RecoveryChoices
    config_type: ClassVar[type[StageConfig]] = RecoveryConfig
    lossy: ClassVar[bool] = False
    dear: ClassVar[bool] = True
    choices: RecoveryChoices

    def nothing_to_do(self, model: nn.Module, context: StageContext) -> str | None:  # noqa: ARG002
        """Whether the model has nothing to learn with."""
        if not any(parameter.requires_grad for parameter in model.parameters()):
            return "the model has no trainable parameter"
        return None

    def draw(
        self,
        trial: optuna.trial.BaseTrial,
        earlier: Mapping[str, StageConfig],  # noqa: ARG002
    ) -> RecoveryConfig:
        """Draws a config; a temperature only when there are soft targets."""
        choices = self.choices
        soft_weight = choices.soft_weight.suggest(trial, f"{self.name}.soft_weight")
        return RecoveryConfig(
            epochs=choices.epochs.suggest(trial, f"{self.name}.epochs"),
            learning_rate=choices.learning_rate.suggest(trial, f"{self.name}.learning_rate"),
            soft_weight=soft_weight,
            temperature=choices.temperature.suggest(trial, f"{self.name}.temperature")
            if soft_weight > 0
            else None,
            batch_size=choices.batch_size.suggest(trial, f"{self.name}.batch_size"),
        )

    def anchors(self) -> Sequence[RecoveryConfig]:
        """The longest training, mostly on soft targets."""
        choices = self.choices
        soft_weight = choices.soft_weight.clip(0.7)
        return [
            RecoveryConfig(
                epochs=choices.epochs.high,
                learning_rate=choices.learning_rate.clip(4e-3),
                soft_weight=soft_weight,
                temperature=choices.temperature.clip(4.0) if soft_weight > 0 else None,
                batch_size=choices.batch_size.clip(64),
            )
        ]

    def apply(
        self, model: nn.Module, config: RecoveryConfig, context: StageContext
    ) -> Applied[nn.Module]:
        """Trains a copy of the model, and reports at the context's rungs.

        What `StageContext.report` raises ends the training. What is trained, and `achieved`, do
        not depend on the rungs.

        Raises:
            StageError: If soft targets are asked for and there is no teacher.
            TrainingError: If training diverges.
        """
        loss = _loss(config, context)
        student = copy.deepcopy(model)
        log = train(
            student,
            context.train,
            loss,
            epochs=config.epochs,
            learning_rate=config.learning_rate,
            batch_size=config.batch_size,
            seed=context.seed,
            tick=context.tick,
            rungs=context.rungs,
            report=context.report,
        )
        return Applied(student, asdict(log))

    def passes(self, config: RecoveryConfig) -> float:
        """Its epochs."""
        return float(config.epochs)

    def required(self, earlier: Sequence[type[Stage[Any, Any]]]) -> bool:
        """A module that another stage has damaged is always trained again."""
        return any(stage.lossy and stage.form is Form.MODULE for stage in earlier)


def _loss(config: RecoveryConfig, context: StageContext) -> BatchLoss:
    """The loss on labels and soft targets together."""
    weight, temperature = config.soft_weight, config.temperature
    if temperature is None:
        return lambda _, outputs, targets: context.loss(outputs, targets)
    if not context.teachers:
        raise StageError(
            f"expected a teacher for soft_weight {weight}, got none; give one or set it to 0"
        )

    def blend(inputs: Inputs, outputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        with torch.no_grad():
            teacher = torch.stack([teacher(*inputs) for teacher in context.teachers]).mean(dim=0)
        soft = distillation_loss(outputs, teacher, targets, temperature)
        return weight * soft + (1 - weight) * context.loss(outputs, targets)

    return blend
