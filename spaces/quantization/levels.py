"""The stage `round`: weights of few levels, trained with them (quantisation-aware training)."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar, Literal

import optuna
from pydantic import Field, field_validator, model_validator
from torch import nn

from parefront.spaces.allocation import allocated, sensitivities
from parefront.spaces.quantization.adaptive_rounding import adapt
from parefront.spaces.quantization.level_rule import Rounded
from parefront.spaces.quantization.level_sets import LEVEL_SETS, WITHOUT_BITS, Levels, LevelSet
from parefront.spaces.ranges import Choice, IntRange
from parefront.spaces.rule_stage import RuleStage
from parefront.spaces.ruled import Weights, weights_of, with_rule
from parefront.spaces.stage import Applied, Stage, StageChoices, StageConfig, StageContext

Allocation = Literal["even", "sensitivity"]
Rounding = Literal["nearest", "adaptive"]
BITS = (2, 3, 4, 6, 8)
"""Bits that a layer may get by sensitivity."""


class RoundingConfig(StageConfig):
    """One way to round weights.

    Attributes:
        levels: Which levels there are.
        bits: Bits of a weight, from 2 to 8; `None` for levels that are what they are.
        allocation: Whether all layers have these bits (`"even"`), or more where the loss needs them
            and this on average (`"sensitivity"`); `None` where there are no bits.
        ends: Whether the first and the last layer take part, which are the most sensitive. Where
            there are no others, they do.
        rounding: Whether each weight begins at the `"nearest"` level, or at the one above or below
            that suits the output of its layer on calibration examples (`"adaptive"`).
    """

    levels: LevelSet
    bits: int | None = Field(default=None, ge=2, le=8)
    allocation: Allocation | None = None
    ends: bool
    rounding: Rounding = "nearest"

    @model_validator(mode="before")
    @classmethod
    def _even_by_default(cls, given: object) -> object:
        if isinstance(given, dict) and given.get("bits") is not None:
            return {"allocation": "even"} | given
        return given

    @model_validator(mode="after")
    def _bits_where_they_matter(self) -> RoundingConfig:
        if (self.bits is None) != (self.levels in WITHOUT_BITS):
            wanted = "no bits" if self.levels in WITHOUT_BITS else "bits"
            raise ValueError(f"expected {wanted} for '{self.levels}' levels, got {self.bits}")
        if (self.allocation is None) != (self.bits is None):
            wanted = "no allocation" if self.bits is None else "an allocation"
            raise ValueError(f"expected {wanted} for '{self.levels}' levels, got {self.allocation}")
        if self.allocation == "sensitivity" and self.levels != "uniform":
            raise ValueError(
                f"expected 'uniform' levels for bits by sensitivity, got '{self.levels}'"
            )
        if self.levels == "power_of_two" and self.bits is not None and self.bits > 4:
            raise ValueError(f"expected at most 4 bits for powers of two, got {self.bits}")
        return self


class RoundingChoices(StageChoices):
    """What a study file may say about weights of few levels.

    Attributes:
        levels: Sets of levels to choose from.
        bits: Bits of a weight, from 2 to 8; of powers of two 4 at most, since more would only add
            smaller and smaller ones. Not drawn for ternary and binary levels.
        allocation: How bits are given to layers; drawn only for uniform levels.
        ends: Whether the first and the last layer may take part.
        rounding: Whether weights may begin at the nearest levels, or at those that suit the
            outputs of their layers.
    """

    levels: Choice[LevelSet] = Choice[LevelSet](options=("uniform", "ternary"))
    bits: IntRange = IntRange(low=3, high=4)
    allocation: Choice[Allocation] = Choice[Allocation](options=("even",))
    ends: Choice[bool] = Choice[bool](options=(True, False))
    rounding: Choice[Rounding] = Choice[Rounding](options=("nearest",))

    @field_validator("bits")
    @classmethod
    def _few(cls, value: IntRange) -> IntRange:
        if value.low < 2 or value.high > 8:
            raise ValueError(f"expected bits from 2 to 8, got [{value.low}, {value.high}]")
        return value

    @model_validator(mode="after")
    def _powers_are_few(self) -> RoundingChoices:
        if "power_of_two" in self.levels.options and self.bits.high > 4:
            raise ValueError(
                f"expected at most 4 bits beside 'power_of_two' levels, got {self.bits.high}"
            )
        return self


class WeightRounding(RuleStage[RoundingConfig]):
    """Rounds the weights of each layer to a few levels, with a step for each channel.

    The weights stay as they are behind the rounding, and recovery training moves them and the
    steps. The file stores the levels; the runtime computes with floating point, as fast as before.
    `achieved` holds `levels`, their number in each layer that takes part; `left_alone`, the reason
    for each part with weights that does not; and `sensitivity`, how much the loss grew by layer and
    bits before training, where bits were given by it. With `adaptive` rounding it also holds
    `output_errors`, by layer the squared error of its output on calibration examples relative to
    the output's size, with the `nearest` levels and the `adaptive` ones; and `rounded_to_nearest`,
    the reason for each weight that was left at its nearest level.
    """

    name: ClassVar[str] = "round"
    rounds: ClassVar[bool] = True
    choices_type: ClassVar[type[StageChoices]] = RoundingChoices
    config_type: ClassVar[type[StageConfig]] = RoundingConfig
    choices: RoundingChoices

    def nothing_to_do(self, model: nn.Module, context: StageContext) -> str | None:
        """Whether the model has no layer that is large enough, or none but the ends."""
        layers = {each.layer for each in weights_of(model)[0]}
        if 0 < len(layers) < 3 and True not in self.choices.ends.options:
            return "no layer with a weight that is large enough is neither the first nor the last"
        return super().nothing_to_do(model, context)

    def clashes(self, earlier: Sequence[type[Stage[Any, Any]]]) -> str | None:
        """Weights that share values have few levels already."""
        rounded = any(stage.rounds for stage in earlier)
        return "the weights have few values already" if rounded else None

    def draw(
        self,
        trial: optuna.trial.BaseTrial,
        earlier: Mapping[str, StageConfig],  # noqa: ARG002
    ) -> RoundingConfig:
        """Draws a config; bits only where they matter."""
        choices = self.choices
        levels = choices.levels.suggest(trial, f"{self.name}.levels")
        fixed = levels in WITHOUT_BITS
        return RoundingConfig(
            levels=levels,
            bits=None if fixed else choices.bits.suggest(trial, f"{self.name}.bits"),
            allocation=choices.allocation.suggest(trial, f"{self.name}.allocation")
            if levels == "uniform"
            else (None if fixed else "even"),
            ends=choices.ends.suggest(trial, f"{self.name}.ends"),
            rounding=choices.rounding.suggest(trial, f"{self.name}.rounding"),
        )

    def anchors(self) -> Sequence[RoundingConfig]:
        """Each set of levels, the first and last layer left out of those that are coarse."""
        choices = self.choices
        return [
            RoundingConfig(
                levels=levels,
                bits=None if levels in WITHOUT_BITS else choices.bits.clip(4),
                allocation=allocation,
                ends=choices.ends.prefer(levels not in WITHOUT_BITS),
                rounding=choices.rounding.prefer("nearest"),
            )
            for levels in choices.levels.options
            for allocation in self._allocations(levels)
        ]

    def _allocations(self, levels: LevelSet) -> Sequence[Allocation | None]:
        if levels in WITHOUT_BITS:
            return [None]
        return self.choices.allocation.options if levels == "uniform" else ["even"]

    def apply(
        self, model: nn.Module, config: RoundingConfig, context: StageContext
    ) -> Applied[nn.Module]:
        """Rounds a copy of the model.

        Raises:
            StageError: If no layer is large enough.
        """
        result, layers, left = self.copied(model)
        ends = {each.layer for each in layers[:1] + layers[-1:]}
        inner = [each for each in layers if each.layer not in ends]
        if not config.ends and inner:
            left |= {
                each.name: "it is the first or the last layer"
                for each in layers
                if each.layer in ends
            }
            layers = inner
        levels = LEVEL_SETS[config.levels]
        bits = {each.name: config.bits or 1 for each in layers}
        achieved: dict[str, Any] = {"left_alone": left}
        if config.allocation == "sensitivity":
            grown = _growth(result, layers, levels, context)
            sizes = {each.name: each.weight.numel() for each in layers}
            bits = allocated(grown, sizes, float(config.bits or 1))
            achieved["sensitivity"] = {
                name: {str(b): round(loss, 6) for b, loss in each.items()}
                for name, each in grown.items()
            }
        rules = {each.name: _rounded(each, levels(bits[each.name])) for each in layers}
        if config.rounding == "adaptive":
            result, errors, nearest = adapt(model, result, layers, rules, context)
            achieved |= {"output_errors": errors, "rounded_to_nearest": nearest}
        else:
            for each in layers:
                context.tick()
                result = with_rule(result, each.name, rules[each.name])
        achieved["levels"] = {name: len(levels(each)) for name, each in bits.items()}
        return Applied(result, achieved)


def _growth(
    model: nn.Module,
    layers: Sequence[Weights],
    levels: Callable[[int], Levels],
    context: StageContext,
) -> dict[str, dict[int, float]]:
    """How much the loss grows when a layer alone is rounded, by layer and bits."""
    by_name = {each.name: each for each in layers}

    def rounded(name: str, bits: int) -> nn.Module:
        rule = _rounded(by_name[name], levels(bits))
        return with_rule(copy.deepcopy(model), name, rule)

    return sensitivities(model, dict.fromkeys(by_name, BITS), rounded, context, what="round")


def _rounded(each: Weights, levels: Levels) -> Rounded:
    """The rule for a layer; its step learns if its weight does."""
    rule = Rounded(each.weight, levels, each.channels)
    rule.requires_grad_(each.held.requires_grad)
    return rule
