"""The stage `recover`: a compressed model learns again, from labels and from the baseline."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Annotated, Any, ClassVar, Literal

import optuna
from pydantic import Field, field_validator, model_validator
from torch import nn

from parefront.errors import StageError
from parefront.spaces.distillation.features import FeatureLoss, Features
from parefront.spaces.distillation.losses import SoftLoss, blended, smoothed
from parefront.spaces.distillation.training import BatchLoss, Optimizer, train
from parefront.spaces.ranges import Choice, FloatRange, IntRange
from parefront.spaces.stage import (
    Applied,
    Form,
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
        soft_loss: How logits are compared with the teachers': `"kl"`, softened by a temperature, or
            `"mse"`, as they are; `None` when, and only when, `soft_weight` is 0.
        temperature: What logits are divided by before they are compared; `None` when, and only
            when, they are not softened.
        batch_size: Examples in a batch.
        smoothing: Share of each label that goes to all classes alike, in [0, 1).
        features: How the features of some layers are compared with the first teacher's, or
            `"none"`; see `parefront.spaces.distillation.features`.
        feature_weight: Weight of that in the loss; `None` when, and only when, there is none.
        optimizer: `"adam"`, `"adamw"` or `"sgd"`.
        average: Decay of the running average of the weights that is kept; 0 keeps the last.

    Example:
        >>> RecoveryConfig(epochs=2, learning_rate=0.001).soft_weight
        0.0
    """

    epochs: Annotated[int, Field(ge=1)]
    learning_rate: Annotated[float, Field(gt=0, allow_inf_nan=False)]
    soft_weight: Annotated[float, Field(ge=0, le=1)] = 0.0
    temperature: Annotated[float, Field(gt=0, allow_inf_nan=False)] | None = None
    soft_loss: SoftLoss | None = None
    batch_size: Annotated[int, Field(ge=2)] = 64
    smoothing: Annotated[float, Field(ge=0, lt=1)] = 0.0
    features: Features | Literal["none"] = "none"
    feature_weight: Annotated[float, Field(gt=0, allow_inf_nan=False)] | None = None
    optimizer: Optimizer = "adam"
    average: Annotated[float, Field(ge=0, lt=1)] = 0.0

    @model_validator(mode="after")
    def _only_what_has_a_use(self) -> RecoveryConfig:
        # Two configs that train alike must be equal, or the search would try both.
        soft = self.soft_weight > 0
        if soft != (self.soft_loss is not None):
            wanted = "a soft_loss" if soft else "no soft_loss"
            raise ValueError(
                f"expected {wanted} for soft_weight {self.soft_weight}, got {self.soft_loss}"
            )
        if (self.soft_loss == "kl") != (self.temperature is not None):
            wanted = "a temperature" if self.soft_loss == "kl" else "no temperature"
            raise ValueError(
                f"expected {wanted} for soft_weight {self.soft_weight} and soft_loss "
                f"{self.soft_loss}, got {self.temperature}"
            )
        if (self.features == "none") != (self.feature_weight is None):
            wanted = "no feature_weight" if self.features == "none" else "a feature_weight"
            raise ValueError(
                f"expected {wanted} for features '{self.features}', got {self.feature_weight}"
            )
        return self

    @model_validator(mode="before")
    @classmethod
    def _softened_by_default(cls, given: object) -> object:
        if isinstance(given, dict) and given.get("temperature") is not None:
            return {"soft_loss": "kl"} | given
        return given


class RecoveryChoices(StageChoices):
    """What a study file may say about recovery training.

    Attributes:
        epochs: Passes over the training examples, at least 1.
        learning_rate: Largest learning rate of the schedule, above 0.
        soft_weight: Weight of the teachers' outputs in the loss, within [0, 1].
        soft_loss: How logits are compared with the teachers'; drawn only when the soft weight is
            not 0.
        temperature: What logits are divided by before they are compared, above 0; drawn only for
            the soft loss `"kl"`.
        batch_size: Examples in a batch, at least 2.
        smoothing: Share of each label that goes to all classes alike, within [0, 1).
        features: How features of layers are compared with the baseline's; `"none"` by default.
        feature_weight: Weight of that in the loss, above 0; drawn only when they are compared.
        optimizer: Optimisers to choose from.
        average: Decay of the running average of the weights that is kept, within [0, 1); at 0 the
            last weights are kept.
    """

    epochs: IntRange = IntRange(low=1, high=5)
    learning_rate: FloatRange = FloatRange(low=5e-4, high=1e-2, log=True)
    soft_weight: FloatRange = FloatRange(low=0.0, high=0.9)
    soft_loss: Choice[SoftLoss] = Choice[SoftLoss](options=("kl",))
    temperature: FloatRange = FloatRange(low=1.0, high=8.0)
    batch_size: IntRange = IntRange(low=64, high=64)
    smoothing: FloatRange = FloatRange(low=0.0, high=0.0)
    features: Choice[Features | Literal["none"]] = Choice[Features | Literal["none"]](
        options=("none",)
    )
    feature_weight: FloatRange = FloatRange(low=0.03, high=3.0, log=True)
    optimizer: Choice[Optimizer] = Choice[Optimizer](options=("adam",))
    average: FloatRange = FloatRange(low=0.0, high=0.0)

    @field_validator("learning_rate", "temperature", "feature_weight")
    @classmethod
    def _positive(cls, value: FloatRange) -> FloatRange:
        if value.low <= 0:
            raise ValueError(f"expected a range above 0, got [{value.low}, {value.high}]")
        return value

    @field_validator("smoothing", "average")
    @classmethod
    def _below_one(cls, value: FloatRange) -> FloatRange:
        if value.low < 0 or value.high >= 1:
            raise ValueError(f"expected shares within [0, 1), got [{value.low}, {value.high}]")
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


class RecoveryTraining(Stage[RecoveryConfig, nn.Module]):
    """Trains a compressed model on the labels and on what the baseline answers.

    The soft targets are the outputs of `StageContext.teachers`, averaged where there are
    several. `achieved` holds `epochs`, `steps` and `final_loss`, the mean loss of the last epoch;
    and `features_of`, the layers whose features were compared, if any were.
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
        """Draws a config; of what has no use without another part, nothing without that."""
        choices = self.choices
        soft_weight = choices.soft_weight.suggest(trial, f"{self.name}.soft_weight")
        soft_loss = (
            choices.soft_loss.suggest(trial, f"{self.name}.soft_loss") if soft_weight > 0 else None
        )
        features = choices.features.suggest(trial, f"{self.name}.features")
        return RecoveryConfig(
            epochs=choices.epochs.suggest(trial, f"{self.name}.epochs"),
            learning_rate=choices.learning_rate.suggest(trial, f"{self.name}.learning_rate"),
            soft_weight=soft_weight,
            soft_loss=soft_loss,
            temperature=choices.temperature.suggest(trial, f"{self.name}.temperature")
            if soft_loss == "kl"
            else None,
            batch_size=choices.batch_size.suggest(trial, f"{self.name}.batch_size"),
            smoothing=choices.smoothing.suggest(trial, f"{self.name}.smoothing"),
            features=features,
            feature_weight=choices.feature_weight.suggest(trial, f"{self.name}.feature_weight")
            if features != "none"
            else None,
            optimizer=choices.optimizer.suggest(trial, f"{self.name}.optimizer"),
            average=choices.average.suggest(trial, f"{self.name}.average"),
        )

    def anchors(self) -> Sequence[RecoveryConfig]:
        """The longest training, mostly on soft targets."""
        choices = self.choices
        soft_weight = choices.soft_weight.clip(0.7)
        soft_loss = choices.soft_loss.prefer("kl") if soft_weight > 0 else None
        features = choices.features.prefer("none")
        return [
            RecoveryConfig(
                epochs=choices.epochs.high,
                learning_rate=choices.learning_rate.clip(4e-3),
                soft_weight=soft_weight,
                soft_loss=soft_loss,
                temperature=choices.temperature.clip(4.0) if soft_loss == "kl" else None,
                batch_size=choices.batch_size.clip(64),
                smoothing=choices.smoothing.clip(0.0),
                features=features,
                feature_weight=None if features == "none" else choices.feature_weight.clip(0.3),
                optimizer=choices.optimizer.prefer("adam"),
                average=choices.average.clip(0.0),
            )
        ]

    def apply(
        self, model: nn.Module, config: RecoveryConfig, context: StageContext
    ) -> Applied[nn.Module]:
        """Trains a copy of the model, and reports at the context's rungs.

        What `StageContext.report` raises ends the training. What is trained, and `achieved`, do
        not depend on the rungs.

        Raises:
            StageError: If a teacher is needed and there is none, or features are to be compared
                and no layer can be.
            TrainingError: If training diverges.
        """
        if not context.teachers and (config.soft_weight or config.features != "none"):
            raise StageError(
                f"expected a teacher for soft_weight {config.soft_weight} and features "
                f"'{config.features}', got none; give one, or set them to 0 and 'none'"
            )
        student = copy.deepcopy(model)
        features = None
        if config.features != "none":
            features = FeatureLoss(
                config.features, student, context.teachers[0], context.example, context.seed
            )
        try:
            log = train(
                student,
                context.train,
                _loss(config, context, features),
                epochs=config.epochs,
                learning_rate=config.learning_rate,
                batch_size=config.batch_size,
                seed=context.seed,
                tick=context.tick,
                rungs=context.rungs,
                report=context.report,
                optimizer=config.optimizer,
                average=config.average or None,
                beside=features.parameters if features else (),
            )
        finally:
            if features is not None:
                features.close()
        compared = {"features_of": features.names} if features else {}
        return Applied(student, asdict(log) | compared)

    def passes(self, config: RecoveryConfig) -> float:
        """Its epochs."""
        return float(config.epochs)

    def required(self, earlier: Sequence[type[Stage[Any, Any]]]) -> bool:
        """A module that another stage has damaged is always trained again."""
        return any(stage.lossy and stage.form is Form.MODULE for stage in earlier)


def _loss(config: RecoveryConfig, context: StageContext, features: FeatureLoss | None) -> BatchLoss:
    """The loss on labels, soft targets and features together."""
    labels = smoothed(context.loss, config.smoothing)
    if not config.soft_weight and features is None:
        return lambda _, outputs, targets: labels(outputs, targets)
    return blended(
        labels, context.teachers, config.soft_weight, config.temperature,
        features, config.feature_weight or 0.0,
    )  # fmt: skip
