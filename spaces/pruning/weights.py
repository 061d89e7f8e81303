"""The stage `sparsify`: single weights set to zero, wherever they are (unstructured pruning)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import ClassVar, Literal

import optuna
import torch
from pydantic import Field, field_validator, model_validator
from torch import nn

from parefront.spaces.allocation import by_loss, shared_out
from parefront.spaces.pruning.gradual import GradualMask, Schedule
from parefront.spaces.pruning.kept import growth_by_share, kept_of_all, kept_of_neighbours
from parefront.spaces.pruning.mask import Mask
from parefront.spaces.pruning.movement import MovementMask
from parefront.spaces.pruning.rounds import RoundMask
from parefront.spaces.pruning.saliency import SALIENCIES, Saliency
from parefront.spaces.ranges import Choice, FloatRange, IntRange
from parefront.spaces.rule_stage import RuleStage
from parefront.spaces.ruled import with_rule
from parefront.spaces.stage import Applied, StageChoices, StageConfig, StageContext

Pattern = Literal["free", "2:4", "4:8"]
Scope = Literal["global", "layer", "sensitivity"]


class WeightPruningConfig(StageConfig):
    """One way to prune single weights.

    Attributes:
        pattern: `"free"`, or how many of so many neighbours along the inputs stay.
        sparsity: Share of the weights that become zero, in (0, 1); `None` with a pattern.
        scope: Whether weights are compared over all layers (`"global"`) or within each, which
            loses the same share (`"layer"`) or less where the loss needs it (`"sensitivity"`);
            `None` with a pattern.
        saliency: What makes a weight important; `"movement"` is learnt during recovery training.
        schedule: `"once"`, or how sparsity rises during recovery training: by magnitude, and for
            `"movement"` always `"cubic"`; `None` with a pattern.
        rounds: Rounds that the training is split over, from 2, for the schedule `"rounds"` only.
        rewind: Whether weights return to what they were before training with each round; for the
            schedule `"rounds"` only.
    """

    pattern: Pattern
    sparsity: float | None = Field(default=None, gt=0, lt=1)
    scope: Scope | None = None
    saliency: Saliency
    schedule: Schedule | None = None
    rounds: int | None = Field(default=None, ge=2)
    rewind: bool | None = None

    @model_validator(mode="before")
    @classmethod
    def _once_by_default(cls, given: object) -> object:
        if isinstance(given, dict) and given.get("sparsity") is not None:
            usual = "cubic" if given.get("saliency") == "movement" else "once"
            return {"schedule": usual} | given
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
        if self.saliency == "movement" and self.schedule != "cubic":
            raise ValueError(
                "expected the schedule 'cubic' for the saliency 'movement', which is learnt while "
                f"weights go, got '{self.schedule}' for the pattern '{self.pattern}'"
            )
        if self.schedule not in ("once", None) and self.saliency not in ("magnitude", "movement"):
            raise ValueError(
                f"expected the saliency 'magnitude' for the schedule '{self.schedule}', got "
                f"'{self.saliency}'"
            )
        in_rounds = self.schedule == "rounds"
        if any((each is not None) != in_rounds for each in (self.rounds, self.rewind)):
            raise ValueError(
                "expected rounds and rewind for the schedule 'rounds' and neither for others, got "
                f"{self.rounds} and {self.rewind} for '{self.schedule}'"
            )
        return self


class WeightPruningChoices(StageChoices):
    """What a study file may say about pruning single weights.

    Attributes:
        pattern: Patterns to choose from; not drawn for the saliency `"movement"`.
        sparsity: Share of the weights that become zero, within (0, 1); drawn only for the
            pattern "free".
        scope: Scopes to choose from; drawn only for the pattern "free".
        saliency: Saliencies to choose from. `"movement"` needs the pattern `"free"` and the
            schedule `"cubic"` among the others' choices.
        schedule: Schedules to choose from; drawn only for the saliency `"magnitude"`.
        rounds: Rounds of training, from 2; drawn only for the schedule `"rounds"`.
        rewind: Whether each round begins with the first weights; drawn only for the schedule
            `"rounds"`.
    """

    pattern: Choice[Pattern] = Choice[Pattern](options=("free",))
    sparsity: FloatRange = FloatRange(low=0.5, high=0.95)
    scope: Choice[Scope] = Choice[Scope](options=("global", "layer"))
    saliency: Choice[Saliency] = Choice[Saliency](options=("magnitude",))
    schedule: Choice[Schedule] = Choice[Schedule](options=("once", "cubic"))
    rounds: IntRange = IntRange(low=3, high=3)
    rewind: Choice[bool] = Choice[bool](options=(False, True))

    @field_validator("sparsity")
    @classmethod
    def _shares(cls, value: FloatRange) -> FloatRange:
        if value.low <= 0 or value.high >= 1:
            raise ValueError(f"expected shares within (0, 1), got [{value.low}, {value.high}]")
        return value

    @field_validator("rounds")
    @classmethod
    def _several(cls, value: IntRange) -> IntRange:
        if value.low < 2:
            raise ValueError(f"expected at least 2 rounds, got [{value.low}, {value.high}]")
        return value

    @model_validator(mode="after")
    def _movement_has_a_schedule(self) -> WeightPruningChoices:
        if "movement" not in self.saliency.options:
            return self
        for wanted, options in (("free", self.pattern.options), ("cubic", self.schedule.options)):
            if wanted not in options:
                raise ValueError(
                    f"expected '{wanted}' among the choices beside the saliency 'movement', got "
                    f"{list(options)}; add it, or leave 'movement' out"
                )
        return self


class WeightPruning(RuleStage[WeightPruningConfig]):
    """Sets single weights to zero and keeps them there.

    No runtime computes faster for it, but the file is smaller: what is left is stored with the
    distances between. `achieved` holds `sparsity`, the share of zeros over all layers that take
    part; `layers`, the share in each; `left_alone`, the reason for each part with weights that
    does not; and `sensitivity`, how much the loss grew by layer and the share that went from it
    alone, where that was measured.
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
        """Draws a config; of what has no use without another part, nothing without that."""
        choices = self.choices
        saliency = choices.saliency.suggest(trial, f"{self.name}.saliency")
        moving = saliency == "movement"
        pattern = "free" if moving else choices.pattern.suggest(trial, f"{self.name}.pattern")
        if pattern != "free":
            return WeightPruningConfig(pattern=pattern, saliency=saliency)
        sparsity = choices.sparsity.suggest(trial, f"{self.name}.sparsity")
        scope = choices.scope.suggest(trial, f"{self.name}.scope")
        schedule: Schedule = "cubic" if moving else "once"
        if saliency == "magnitude":
            schedule = choices.schedule.suggest(trial, f"{self.name}.schedule")
        in_rounds = schedule == "rounds"
        return WeightPruningConfig(
            pattern=pattern,
            sparsity=sparsity,
            scope=scope,
            saliency=saliency,
            schedule=schedule,
            rounds=choices.rounds.suggest(trial, f"{self.name}.rounds") if in_rounds else None,
            rewind=choices.rewind.suggest(trial, f"{self.name}.rewind") if in_rounds else None,
        )

    def anchors(self) -> Sequence[WeightPruningConfig]:
        """Each pattern; without one, four fifths of the weights, step by step, in each way."""
        choices = self.choices
        found = []
        for pattern in choices.pattern.options:
            if pattern == "free":
                found += self._free_anchors()
                continue
            saliencies = [each for each in choices.saliency.options if each != "movement"]
            for saliency in sorted(saliencies, key="magnitude".__ne__)[:1]:
                found.append(WeightPruningConfig(pattern=pattern, saliency=saliency))
        return found

    def _free_anchors(self) -> list[WeightPruningConfig]:
        """The first choice of all; then what else is clearly different and among the choices."""
        choices = self.choices
        saliency = choices.saliency.prefer("magnitude")
        schedule: Schedule = "cubic" if saliency == "movement" else "once"
        if saliency == "magnitude":
            schedule = choices.schedule.prefer("cubic", "linear", "once")
        rounds = choices.rounds.clip(3)
        first: dict[str, object] = {
            "pattern": "free",
            "sparsity": choices.sparsity.clip(0.8),
            "scope": choices.scope.prefer("global", "layer"),
            "saliency": saliency,
            "schedule": schedule,
        }
        ways = [] if schedule == "rounds" else [first]
        if "sensitivity" in choices.scope.options:
            ways += [way | {"scope": "sensitivity"} for way in ways]
        if "movement" in choices.saliency.options:
            ways.append(first | {"saliency": "movement", "schedule": "cubic"})
        if "rounds" in choices.schedule.options and saliency == "magnitude":
            ways += [
                first | {"schedule": "rounds", "rounds": rounds, "rewind": rewind}
                for rewind in choices.rewind.options
            ]
        return list(dict.fromkeys(WeightPruningConfig.model_validate(way) for way in ways))

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
        grown: dict[str, dict[float, float]] = {}
        if config.sparsity is None:
            kept, of = (int(number) for number in config.pattern.split(":"))
            keep = {w.name: kept_of_neighbours(scores[w.name], w, kept, of) for w in layers}
        elif config.scope == "global":
            keep = kept_of_all(scores, config.sparsity)
        else:
            gone = dict.fromkeys(scores, config.sparsity)
            if config.scope == "sensitivity":
                seed = context.seed if config.saliency == "random" else None
                what = f"{self.name}, {config.saliency}, {seed}"
                grown = growth_by_share(result, layers, scores, context, what)
                sizes = {each.name: each.weight.numel() for each in layers}
                shares = shared_out(grown, sizes, 1 - config.sparsity)
                gone = {name: 1 - share for name, share in shares.items()}
            keep = {}
            for name, score in scores.items():
                keep |= kept_of_all({name: score}, gone[name])
        for each in layers:
            context.tick()
            flags = keep[each.name]
            result = with_rule(result, each.name, _mask(flags, config))
        total = sum(flags.numel() for flags in keep.values())
        zeros = {name: int((~flags).sum()) for name, flags in keep.items()}
        return Applied(
            result,
            {
                "sparsity": round(sum(zeros.values()) / total, 4),
                "layers": {n: round(zeros[n] / keep[n].numel(), 4) for n in keep},
                "left_alone": left,
                **({"sensitivity": by_loss(grown)} if grown else {}),
            },
        )


def _mask(keep: torch.Tensor, config: WeightPruningConfig) -> Mask:
    """The mask that keeps these weights, at once or by the end of training."""
    if config.saliency == "movement":
        return MovementMask(keep)
    if config.schedule == "linear" or config.schedule == "cubic":
        return GradualMask(keep, config.schedule)
    if config.schedule == "rounds":
        return RoundMask(keep, config.rounds or 1, rewinds=bool(config.rewind))
    return Mask(keep)
