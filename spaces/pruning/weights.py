"""The stage `sparsify`: single weights set to zero, wherever they are (unstructured pruning)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import ClassVar, Literal

import optuna
import torch
from pydantic import Field, field_validator, model_validator
from torch import nn

from parefront.spaces.pruning.gradual import GradualMask, Schedule
from parefront.spaces.pruning.mask import Mask
from parefront.spaces.pruning.saliency import SALIENCIES, Saliency
from parefront.spaces.ranges import Choice, FloatRange
from parefront.spaces.rule_stage import RuleStage
from parefront.spaces.ruled import Weights, with_rule
from parefront.spaces.stage import Applied, StageChoices, StageConfig, StageContext

Pattern = Literal["free", "2:4", "4:8"]
Scope = Literal["global", "layer"]


class WeightPruningConfig(StageConfig):
    """One way to prune single weights.

    Attributes:
        pattern: `"free"`, or how many of so many neighbours along the inputs stay.
        sparsity: Share of the weights that become zero, in (0, 1); `None` with a pattern.
        scope: Whether weights are compared over all layers or within each; `None` with a pattern.
        saliency: What makes a weight important.
        schedule: `"once"`, or how sparsity rises during recovery training, by magnitude; `None`
            with a pattern.
    """

    pattern: Pattern
    sparsity: float | None = Field(default=None, gt=0, lt=1)
    scope: Scope | None = None
    saliency: Saliency
    schedule: Schedule | None = None

    @model_validator(mode="before")
    @classmethod
    def _once_by_default(cls, given: object) -> object:
        if isinstance(given, dict) and given.get("sparsity") is not None:
            return {"schedule": "once"} | given
        return given

    @model_validator(mode="after")
    def _free_has_a_share(self) -> WeightPruningConfig:
        free = self.pattern == "free"
        given = (self.sparsity, self.scope, self.schedule)
        if any((each is not None) != free for each in given):
            raise ValueError(
                "expected a sparsity, a scope and a schedule for the pattern 'free' and none for "
                f"others, got {self.sparsity}, {self.scope} and {self.schedule} for "
                f"'{self.pattern}'"
            )
        if self.schedule in ("linear", "cubic") and self.saliency != "magnitude":
            raise ValueError(
                f"expected the saliency 'magnitude' for the schedule '{self.schedule}', got "
                f"'{self.saliency}'"
            )
        return self


class WeightPruningChoices(StageChoices):
    """What a study file may say about pruning single weights.

    Attributes:
        pattern: Patterns to choose from.
        sparsity: Share of the weights that become zero, within (0, 1); drawn only without a
            pattern.
        scope: Scopes to choose from; drawn only without a pattern.
        saliency: Saliencies to choose from.
        schedule: Schedules to choose from; drawn only for the saliency `"magnitude"`.
    """

    pattern: Choice[Pattern] = Choice[Pattern](options=("free",))
    sparsity: FloatRange = FloatRange(low=0.5, high=0.95)
    scope: Choice[Scope] = Choice[Scope](options=("global", "layer"))
    saliency: Choice[Saliency] = Choice[Saliency](options=("magnitude",))
    schedule: Choice[Schedule] = Choice[Schedule](options=("once", "cubic"))

    @field_validator("sparsity")
    @classmethod
    def _shares(cls, value: FloatRange) -> FloatRange:
        if value.low <= 0 or value.high >= 1:
            raise ValueError(f"expected shares within (0, 1), got [{value.low}, {value.high}]")
        return value


class WeightPruning(RuleStage[WeightPruningConfig]):
    """Sets single weights to zero and keeps them there.

    No runtime computes faster for it, but the file is smaller: what is left is stored with the
    distances between. `achieved` holds `sparsity`, the share of zeros over all layers that take
    part; `layers`, the share in each; and `left_alone`, the reason for each part with weights that
    does not.
    """

    name: ClassVar[str] = "sparsify"
    choices_type: ClassVar[type[StageChoices]] = WeightPruningChoices
    config_type: ClassVar[type[StageConfig]] = WeightPruningConfig
    choices: WeightPruningChoices

    def draw(
        self,
        trial: optuna.trial.BaseTrial,
        earlier: Mapping[str, StageConfig],  # noqa: ARG002
    ) -> WeightPruningConfig:
        """Draws a config; a sparsity, a scope and a schedule only without a pattern."""
        choices = self.choices
        pattern = choices.pattern.suggest(trial, f"{self.name}.pattern")
        free = pattern == "free"
        saliency = choices.saliency.suggest(trial, f"{self.name}.saliency")
        paced = free and saliency == "magnitude"
        return WeightPruningConfig(
            pattern=pattern,
            sparsity=choices.sparsity.suggest(trial, f"{self.name}.sparsity") if free else None,
            scope=choices.scope.suggest(trial, f"{self.name}.scope") if free else None,
            saliency=saliency,
            schedule=choices.schedule.suggest(trial, f"{self.name}.schedule")
            if paced
            else ("once" if free else None),
        )

    def anchors(self) -> Sequence[WeightPruningConfig]:
        """Each pattern; without one, four fifths of the weights, step by step."""
        choices = self.choices
        saliency = choices.saliency.prefer("magnitude")
        paced = saliency == "magnitude"
        return [
            WeightPruningConfig(
                pattern=pattern,
                sparsity=choices.sparsity.clip(0.8) if pattern == "free" else None,
                scope=choices.scope.prefer("global") if pattern == "free" else None,
                saliency=saliency,
                schedule=(choices.schedule.prefer("cubic") if paced else "once")
                if pattern == "free"
                else None,
            )
            for pattern in choices.pattern.options
        ]

    def apply(
        self, model: nn.Module, config: WeightPruningConfig, context: StageContext
    ) -> Applied[nn.Module]:
        """Gives each layer of a copy a mask.

        Raises:
            StageError: If no layer is large enough.
        """
        result, layers, left = self.copied(model)
        context.tick()
        scores = SALIENCIES[config.saliency](result, layers, context)
        if config.sparsity is None:
            keep = {w.name: _pattern(scores[w.name], w, config.pattern) for w in layers}
        elif config.scope == "global":
            keep = _free(scores, config.sparsity)
        else:
            keep = {}
            for name, score in scores.items():
                keep |= _free({name: score}, config.sparsity)
        for each in layers:
            context.tick()
            flags = keep[each.name]
            if config.schedule in ("linear", "cubic"):
                rule: Mask = GradualMask(flags, config.schedule)
            else:
                rule = Mask(flags)
            result = with_rule(result, each.name, rule)
        total = sum(flags.numel() for flags in keep.values())
        zeros = {name: int((~flags).sum()) for name, flags in keep.items()}
        return Applied(
            result,
            {
                "sparsity": round(sum(zeros.values()) / total, 4),
                "layers": {n: round(zeros[n] / keep[n].numel(), 4) for n in keep},
                "left_alone": left,
            },
        )


def _free(scores: Mapping[str, torch.Tensor], sparsity: float) -> dict[str, torch.Tensor]:
    """Keeps the most important weights of all together; of equals, those that come first."""
    flat = torch.cat([each.flatten() for each in scores.values()])
    kept = torch.zeros(len(flat), dtype=torch.bool)
    count = max(len(flat) - round(sparsity * len(flat)), 1)
    kept[torch.argsort(flat, descending=True, stable=True)[:count]] = True
    parts = torch.split(kept, [each.numel() for each in scores.values()])
    return {
        name: part.reshape(score.shape).clone()
        for (name, score), part in zip(scores.items(), parts, strict=True)
    }


def _pattern(scores: torch.Tensor, weights: Weights, pattern: Pattern) -> torch.Tensor:
    """Keeps the most important of each group of neighbours, along all but the output channels."""
    kept, of = (int(number) for number in pattern.split(":"))
    moved = scores.movedim(weights.channels, 0)
    rows = moved.flatten(1)
    padded = nn.functional.pad(rows, (0, -rows.shape[1] % of), value=-torch.inf)
    groups = padded.reshape(len(rows), -1, of)
    order = torch.argsort(groups, dim=2, descending=True, stable=True)
    flags = torch.zeros(groups.shape, dtype=torch.bool).scatter(2, order[:, :, :kept], True)
    flags = flags.reshape(len(rows), -1)[:, : rows.shape[1]].reshape(moved.shape)
    return flags.movedim(0, weights.channels).contiguous()
