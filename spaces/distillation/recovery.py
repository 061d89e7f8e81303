"""The stage `recover`: a compressed model learns again, from labels and from the baseline."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any, ClassVar

import optuna
from torch import nn

from parefront.errors import StageError
from parefront.spaces.distillation.config import RecoveryChoices, RecoveryConfig
from parefront.spaces.distillation.features import FeatureLoss
from parefront.spaces.distillation.losses import blended, compared, smoothed
from parefront.spaces.distillation.mutual import Pair, exchanged, peer_of
from parefront.spaces.distillation.training import BatchLoss, is_paced, train
from parefront.spaces.stage import (
    Applied,
    Form,
    Stage,
    StageChoices,
    StageConfig,
    StageContext,
)

__all__ = ["RecoveryChoices", "RecoveryConfig", "RecoveryTraining"]

_WATCHED = 256
"""Calibration examples in a batch when the loss on them is measured."""


class RecoveryTraining(Stage[RecoveryConfig, nn.Module]):
    """Trains a compressed model on the labels and on what the baseline answers.

    The soft targets are the outputs of `StageContext.teachers`, averaged by their weights where
    there are several, or those of a second student that learns beside (`mutual`). A model with a
    distillation token (Touvron et al., "Training data-efficient image transformers", 2021), which
    in training mode gives a pair of outputs and in evaluation mode their mean, learns the labels
    with the first and the soft targets with the second.

    `achieved` holds `epochs` that were trained, `steps` and `final_loss`, the mean loss of the last
    epoch, of both students if there are two; `features_of`, the layers whose features were
    compared, if any were; and with `patience` `best_epoch`, whose weights were kept, or
    `patience_left_out` and why.
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
            schedule=choices.schedule.suggest(trial, f"{self.name}.schedule"),
            patience=choices.patience.suggest(trial, f"{self.name}.patience"),
            mutual=soft_weight > 0 and choices.mutual.suggest(trial, f"{self.name}.mutual"),
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
                schedule=choices.schedule.prefer("one_cycle"),
                patience=choices.patience.clip(0),
                mutual=soft_weight > 0 and choices.mutual.prefer(False),
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
        asked = config.soft_weight > 0 and not config.mutual
        if not context.teachers and (asked or config.features != "none"):
            raise StageError(
                f"expected a teacher for soft_weight {config.soft_weight} and features "
                f"'{config.features}', got none; give one, or set them to 0 and 'none'"
            )
        if config.patience and not len(context.calibration):
            raise StageError(
                f"expected calibration examples for a patience of {config.patience}, got none; "
                "give some, or set patience to 0"
            )
        student = copy.deepcopy(model)
        # What is not closed yet would look better than what has to be left in the end.
        pacing = config.patience > 0 and is_paced(student)
        trained = Pair(student, peer_of(student, context.seed)) if config.mutual else student
        features = None
        if config.features != "none":
            features = FeatureLoss(
                config.features, student, context.teachers[0], context.example, context.seed
            )
        try:
            log = train(
                trained,
                context.train,
                _loss(config, context, features),
                epochs=config.epochs,
                learning_rate=config.learning_rate,
                batch_size=config.batch_size,
                seed=context.seed,
                tick=context.tick,
                rungs=context.rungs,
                report=lambda share, _: context.report(share, student),
                optimizer=config.optimizer,
                average=config.average or None,
                beside=features.parameters if features else (),
                schedule=config.schedule,
                patience=0 if pacing else config.patience,
                watch=lambda _: _watched(student, context),
            )
        finally:
            if features is not None:
                features.close()
        achieved = {name: value for name, value in asdict(log).items() if value is not None}
        if features is not None:
            achieved["features_of"] = features.names
        if pacing:
            achieved["patience_left_out"] = "weights are pruned step by step during the training"
        return Applied(student, achieved)

    def passes(self, config: RecoveryConfig) -> float:
        """Its epochs, for each student; it may end before them for want of `patience`."""
        return float(config.epochs) * (2 if config.mutual else 1)

    def required(self, earlier: Sequence[type[Stage[Any, Any]]]) -> bool:
        """A module that another stage has damaged is always trained again."""
        return any(stage.lossy and stage.form is Form.MODULE for stage in earlier)


def _loss(config: RecoveryConfig, context: StageContext, features: FeatureLoss | None) -> BatchLoss:
    """The loss on labels, soft targets and features together."""
    labels = smoothed(context.loss, config.smoothing)
    hard = config.soft_loss == "hard"
    weight, feature_weight = config.soft_weight, config.feature_weight or 0.0
    if config.mutual:
        loss = exchanged(labels, weight, config.temperature, hard=hard)
        if features is None:
            return loss
        return compared(loss, context.teachers[0], features, feature_weight)
    if not weight and features is None:
        return lambda _, outputs, targets: labels(outputs, targets)
    return blended(
        labels, context.teachers, weight, config.temperature, features, feature_weight,
        hard=hard, teacher_weights=context.teacher_weights,
    )  # fmt: skip


def _watched(student: nn.Module, context: StageContext) -> float:
    """Mean loss on the calibration examples; lower is better."""
    total = 0.0
    for inputs, targets in context.calibration.batches(_WATCHED):
        total += context.loss(student(*inputs), targets).item() * len(targets)
        context.tick()
    return total / len(context.calibration)
