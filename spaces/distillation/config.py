"""What recovery training may be told: one way to train, and the ways a search may choose from."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, field_validator, model_validator

from parefront.spaces.distillation.features import Features
from parefront.spaces.distillation.losses import SoftLoss
from parefront.spaces.distillation.training import Optimizer, Schedule
from parefront.spaces.ranges import Choice, FloatRange, IntRange
from parefront.spaces.stage import StageChoices, StageConfig


class RecoveryConfig(StageConfig):
    """One way to train.

    Attributes:
        epochs: Passes over the training examples.
        learning_rate: Largest learning rate of the schedule.
        soft_weight: Weight of the teachers' outputs in the loss, in [0, 1]; the labels have the
            rest, so that 0 is plain training.
        soft_loss: How logits are compared with the teachers': `"kl"`, softened by a temperature,
            `"mse"`, as they are, or `"hard"`, with the class the teachers are for; `None` when,
            and only when, `soft_weight` is 0.
        temperature: What logits are divided by before they are compared; `None` when, and only
            when, they are not softened.
        batch_size: Examples in a batch.
        smoothing: Share of each label that goes to all classes alike, in [0, 1).
        features: How the features of some layers are compared with the first teacher's, or
            `"none"`; see `parefront.spaces.distillation.features`.
        feature_weight: Weight of that in the loss; `None` when, and only when, there is none.
        optimizer: `"adam"`, `"adamw"` or `"sgd"`.
        average: Decay of the running average of the weights that is kept; 0 keeps the last.
        schedule: How the learning rate goes: `"one_cycle"`, `"cosine"` or `"constant"`.
        patience: Epochs without a lower loss on the calibration examples after which training
            ends, with the weights of the best epoch; 0 trains all epochs and keeps the last.
        mutual: Whether the soft targets come from a second student that is trained beside, which
            costs as much again, and not from teachers; only with a `soft_weight` above 0.

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
    schedule: Schedule = "one_cycle"
    patience: Annotated[int, Field(ge=0)] = 0
    mutual: bool = False

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
        if self.mutual and not soft:
            raise ValueError(
                "expected a soft_weight above 0 for mutual training, got 0.0; students learn from "
                "each other through soft targets"
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
        schedule: How the learning rate goes.
        patience: Epochs without a lower loss on the calibration examples after which training
            ends, with the weights of the best epoch; 0, the default, trains all epochs.
        mutual: Whether the soft targets come from a second student trained beside, which costs as
            much again; drawn only when the soft weight is not 0.
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
    schedule: Choice[Schedule] = Choice[Schedule](options=("one_cycle",))
    patience: IntRange = IntRange(low=0, high=0)
    mutual: Choice[bool] = Choice[bool](options=(False,))

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

    @field_validator("patience")
    @classmethod
    def _no_debt(cls, value: IntRange) -> IntRange:
        if value.low < 0:
            raise ValueError(f"expected at least 0 epochs, got [{value.low}, {value.high}]")
        return value
