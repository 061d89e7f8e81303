"""The stage `drop`: removes whole layers and blocks, so that the net is less deep."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from itertools import islice
from typing import Any, ClassVar, Literal

import optuna
import torch
from pydantic import Field, field_validator
from torch import nn

from parefront.errors import StageError
from parefront.spaces.inspection import count_parameters
from parefront.spaces.pruning.parts import Part, dense, find_parts, skipped, without
from parefront.spaces.ranges import Choice, FloatRange
from parefront.spaces.stage import Applied, Form, Stage, StageChoices, StageConfig, StageContext

Importance = Literal["loss", "similarity", "random"]
_BATCHES = 8
_BATCH = 64


class DepthPruningConfig(StageConfig):
    """One way to remove whole parts.

    Attributes:
        share: Share of the parts that can be skipped which goes, in (0, 1], rounded to a whole
            number of at least 1.
        importance: What decides which parts go; see `IMPORTANCES`.

    Example:
        >>> DepthPruningConfig(share=0.25, importance="loss")
        DepthPruningConfig(share=0.25, importance='loss')
    """

    share: float = Field(gt=0, le=1)
    importance: Importance


class DepthPruningChoices(StageChoices):
    """What a study file may say about removing whole parts.

    Attributes:
        share: Share of the parts that goes, within (0, 1].
        importance: Importance measures to choose from.
    """

    share: FloatRange = FloatRange(low=0.1, high=0.75)
    importance: Choice[Importance] = Choice[Importance](options=("loss", "similarity"))

    @field_validator("share")
    @classmethod
    def _shares(cls, value: FloatRange) -> FloatRange:
        if value.low <= 0 or value.high > 1:
            raise ValueError(
                f"expected shares of parts within (0, 1], got [{value.low}, {value.high}]"
            )
        return value


class DepthPruning(Stage[DepthPruningConfig, nn.Module]):
    """Removes whole parts that give tensors of the shape they are given, such as residual blocks.

    What comes after a removed part gets what the part was given. Names of what stays do not change.
    Which parts can be removed is told by `parefront.spaces.pruning.parts.find_parts`.

    `achieved` holds `parameters_before` and `parameters_after`; `removed` and `kept`, the names of
    the parts in the order of the model; `scores`, the importance of each, higher for those that
    stay, or `None` where it is not finite; and `left_alone`, the reason for each part that keeps
    the shape and cannot be removed all the same.
    """

    name: ClassVar[str] = "drop"
    form: ClassVar[Form] = Form.MODULE
    together: ClassVar[bool] = False
    choices_type: ClassVar[type[StageChoices]] = DepthPruningChoices
    config_type: ClassVar[type[StageConfig]] = DepthPruningConfig
    choices: DepthPruningChoices

    def nothing_to_do(self, model: nn.Module, context: StageContext) -> str | None:
        """Why no part can be removed from the model, or `None`."""
        try:
            parts, left = find_parts(dense(model), context.example, context.tick)
        except StageError as error:
            return str(error)
        return None if parts else _no_part(left)

    def draw(
        self,
        trial: optuna.trial.BaseTrial,
        earlier: Mapping[str, StageConfig],  # noqa: ARG002
    ) -> DepthPruningConfig:
        """Draws the share and the importance if they are not fixed."""
        choices = self.choices
        return DepthPruningConfig(
            share=choices.share.suggest(trial, f"{self.name}.share"),
            importance=choices.importance.suggest(trial, f"{self.name}.importance"),
        )

    def anchors(self) -> Sequence[DepthPruningConfig]:
        """A quarter and a half of the parts, the smallest last."""
        choices = self.choices
        return [
            DepthPruningConfig(share=share, importance=choices.importance.prefer("loss"))
            for share in dict.fromkeys(choices.share.clip(share) for share in (0.25, 0.5))
        ]

    def apply(
        self, model: nn.Module, config: DepthPruningConfig, context: StageContext
    ) -> Applied[nn.Module]:
        """Removes parts from a copy of the model.

        Raises:
            StageError: If no part can be removed, or the model does not run without those chosen.
        """
        work = dense(model)
        context.tick()
        parts, left = find_parts(work, context.example, context.tick)
        if not parts:
            raise StageError(_no_part(left))
        with torch.random.fork_rng(devices=[]):
            scores = IMPORTANCES[config.importance](work, parts, context)
        count = number_to_remove(config.share, len(parts))
        # Of equals those that come first go.
        gone = sorted(range(len(parts)), key=lambda at: _finite(scores[at]))[:count]
        names = [part.name for part in parts]
        removed = [names[at] for at in sorted(gone)]
        context.tick()
        result = without(model, [parts[at] for at in sorted(gone)], context.example)
        return Applied(
            result,
            {
                "parameters_before": count_parameters(model),
                "parameters_after": count_parameters(result),
                "removed": removed,
                "kept": [name for name in names if name not in removed],
                "scores": {
                    name: round(score, 6) if math.isfinite(score) else None
                    for name, score in zip(names, scores, strict=True)
                },
                "left_alone": left,
            },
        )


def number_to_remove(share: float, count: int) -> int:
    """How many of `count` parts a share is: the nearest whole number, at least 1.

    Of two that are equally near, the even one.
    """
    return max(round(share * count), 1)


def by_loss(model: nn.Module, parts: Sequence[Part], context: StageContext) -> list[float]:
    """How much the mean loss grows when the part alone is skipped: measured, not estimated.

    Over up to 8 batches of 64 of the calibration examples.
    """
    totals = [0.0] * (len(parts) + 1)
    examples = 0
    for inputs, targets in islice(context.calibration.batches(_BATCH), _BATCHES):
        examples += len(targets)
        totals[0] += _loss(model, inputs, targets, context)
        for at, part in enumerate(parts, start=1):
            with skipped(model, part):
                totals[at] += _loss(model, inputs, targets, context)
    return [(total - totals[0]) / max(examples, 1) for total in totals[1:]]


def by_similarity(model: nn.Module, parts: Sequence[Part], context: StageContext) -> list[float]:
    """1 less the mean cosine of what a part gives and is given: ShortGPT's block influence.

    Men et al., "ShortGPT: layers in large language models are more redundant than you expect"
    (2024), equation 1. Cosines are of the channels at each place of each of up to 8 batches of 64
    calibration examples.
    """
    sums = dict.fromkeys((part.module for part in parts), 0.0)
    counts = dict.fromkeys(sums, 0)
    given: dict[nn.Module, torch.Tensor] = {}

    def before(module: nn.Module, inputs: tuple[Any, ...]) -> None:
        given[module] = inputs[0].clone()  # the part may change it in place

    def after(module: nn.Module, inputs: tuple[Any, ...], output: Any) -> None:  # noqa: ANN401, ARG001
        cosines = _cosines(given.pop(module), output[0] if isinstance(output, tuple) else output)
        sums[module] += float(cosines.sum())
        counts[module] += cosines.numel()

    handles = [module.register_forward_pre_hook(before) for module in sums]
    handles += [module.register_forward_hook(after) for module in sums]
    try:
        for inputs, _ in islice(context.calibration.batches(_BATCH), _BATCHES):
            _outputs(model, inputs, context)
    finally:
        for handle in handles:
            handle.remove()
    return [1 - sums[part.module] / max(counts[part.module], 1) for part in parts]


def at_random(model: nn.Module, parts: Sequence[Part], context: StageContext) -> list[float]:  # noqa: ARG001
    """Nothing: the yardstick for the others."""
    generator = torch.Generator().manual_seed(context.seed)
    return torch.rand(len(parts), generator=generator).tolist()


IMPORTANCES: Mapping[
    Importance, Callable[[nn.Module, Sequence[Part], StageContext], list[float]]
] = {"loss": by_loss, "similarity": by_similarity, "random": at_random}
"""The importance of each part of a model in evaluation mode; the least important go first."""


def _loss(
    model: nn.Module, inputs: Sequence[torch.Tensor], targets: torch.Tensor, context: StageContext
) -> float:
    """The loss of a batch, over its examples."""
    return float(context.loss(_outputs(model, inputs, context), targets)) * len(targets)


@torch.no_grad()
def _outputs(
    model: nn.Module, inputs: Sequence[torch.Tensor], context: StageContext
) -> torch.Tensor:
    context.tick()
    torch.default_generator.manual_seed(context.seed)  # for models that draw numbers
    outputs: torch.Tensor = model(*inputs)
    return outputs


def _cosines(given: torch.Tensor, output: torch.Tensor) -> torch.Tensor:
    """Cosine at each place; 1 where both are zero, as after a ReLU."""
    channels = 1 if output.ndim > 3 else output.ndim - 1  # of images, else of sequences, vectors
    a, b = (each.double() for each in (given, output))
    cosines = nn.functional.cosine_similarity(a, b, dim=channels, eps=1e-12)
    nothing = (a == 0).all(dim=channels) & (b == 0).all(dim=channels)
    return torch.where(nothing, torch.ones_like(cosines), cosines)


def _finite(score: float) -> float:
    """The score, and more than any other where it is not a number."""
    return math.inf if math.isnan(score) else score


def _no_part(left: Mapping[str, str]) -> str:
    if left:
        name, reason = next(iter(left.items()))
        return f"no part can be skipped, such as {name}: {reason}"
    return "no part in an nn.Sequential or nn.ModuleList gives tensors of the shape it is given"
