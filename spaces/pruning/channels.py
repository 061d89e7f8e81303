"""The stage `prune`: removes whole channels, so that layers are really narrower."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, ClassVar

import optuna
from pydantic import Field, field_validator
from torch import nn

from parefront.errors import StageError
from parefront.spaces.allocation import by_loss, shared_out
from parefront.spaces.inspection import count_parameters, other_matrices
from parefront.spaces.pruning.groups import LAYERS, ChannelGroup, find_groups, remove, widths
from parefront.spaces.pruning.narrowing import growth_by_width
from parefront.spaces.pruning.ranking import (
    Importance,
    Scope,
    allowed_widths,
    channels_to_remove,
    scores,
)
from parefront.spaces.ranges import Choice, FloatRange
from parefront.spaces.stage import (
    Applied,
    Form,
    Stage,
    StageChoices,
    StageConfig,
    StageContext,
    TargetTraits,
)


class ChannelPruningConfig(StageConfig):
    """One way to prune channels.

    Attributes:
        ratio: Share of the removable channels to remove, in [0, 1).
        importance: What decides which channels go: `"l1"` and `"l2"` remove those with the
            smallest weights; for the others see `parefront.spaces.pruning.ranking.scores`.
        scope: `"uniform"` removes the same share from every group of layers that are pruned
            together, `"global"` the least important channels of the model, `"sensitivity"` fewer
            from groups that the loss needs.
        multiple: Widths are rounded to multiples of this where the layer is wide enough.

    Example:
        >>> ChannelPruningConfig(ratio=0.5, importance="l2", scope="uniform", multiple=8)
        ChannelPruningConfig(ratio=0.5, importance='l2', scope='uniform', multiple=8)
    """

    ratio: Annotated[float, Field(ge=0, lt=1)]
    importance: Importance
    scope: Scope
    multiple: Annotated[int, Field(ge=1)]


class ChannelPruningChoices(StageChoices):
    """What a study file may say about pruning.

    Attributes:
        ratio: Share of the removable channels to remove, within [0, 1).
        importance: Importance measures to choose from.
        scope: Scopes to choose from.
        multiple: Multiples to round widths to; what runs well on the target if not given.
    """

    ratio: FloatRange = FloatRange(low=0.1, high=0.8)
    importance: Choice[Importance] = Choice[Importance](options=("l1", "l2", "taylor"))
    scope: Choice[Scope] = Choice[Scope](options=("uniform", "global"))
    multiple: Choice[Annotated[int, Field(ge=1)]] | None = None

    @field_validator("ratio")
    @classmethod
    def _shares(cls, value: FloatRange) -> FloatRange:
        if value.low < 0 or value.high >= 1:
            raise ValueError(
                f"expected shares of channels within [0, 1), got [{value.low}, {value.high}]"
            )
        return value


class ChannelPruning(Stage[ChannelPruningConfig, nn.Module]):
    """Removes whole channels of convolutions and Linear layers, and all that hangs on them.

    The model's outputs keep their shape. What is left out, and why, is in
    `Applied.achieved["skipped"]`: the outputs themselves, layers tied to a
    `nn.MultiheadAttention` or a recurrent layer, shared weights, and channels that the model
    reshapes into heads.

    `achieved` holds `parameters_before` and `parameters_after`; `channels`, the output channels
    before and after of every prunable layer; `skipped`, the reason for every other Conv and
    Linear layer; `others`, one for every other part that holds matrices and was not narrowed with
    them; `sensitivity`, how much the loss grew by the root of a group and the share that went from
    it alone, where that was measured; and `nothing_removed`, a reason, if the model is as it was.
    """

    name: ClassVar[str] = "prune"
    form: ClassVar[Form] = Form.MODULE
    choices_type: ClassVar[type[StageChoices]] = ChannelPruningChoices
    config_type: ClassVar[type[StageConfig]] = ChannelPruningConfig
    choices: ChannelPruningChoices

    def __init__(self, choices: ChannelPruningChoices, target: TargetTraits) -> None:
        """Binds the stage to its ranges and to the target's channel multiple."""
        super().__init__(choices, target)
        self.multiple = choices.multiple or Choice[int](options=(target.channel_multiple,))

    def nothing_to_do(self, model: nn.Module, context: StageContext) -> str | None:
        """Why no channel can be removed from the model, or `None`."""
        if not widths(model):
            return "the model has no Conv or Linear layer"
        try:
            groups, skipped = find_groups(model, context.example, context.tick)
        except StageError as error:
            return str(error)
        if not groups:
            layer, reason = next(iter(skipped.items()))
            return f"no layer can be narrowed, such as {layer}: {reason}"
        multiple = min(self.multiple.options)
        if all(len(allowed_widths(g.width, g.blocks, multiple)) == 1 for g in groups):
            return f"no layer that can be narrowed is wider than {multiple} channels"
        return None

    def draw(
        self,
        trial: optuna.trial.BaseTrial,
        earlier: Mapping[str, StageConfig],  # noqa: ARG002
    ) -> ChannelPruningConfig:
        """Draws the share, importance, scope and multiple that are not fixed."""
        choices = self.choices
        return ChannelPruningConfig(
            ratio=choices.ratio.suggest(trial, f"{self.name}.ratio"),
            importance=choices.importance.suggest(trial, f"{self.name}.importance"),
            scope=choices.scope.suggest(trial, f"{self.name}.scope"),
            multiple=self.multiple.suggest(trial, f"{self.name}.multiple"),
        )

    def anchors(self) -> Sequence[ChannelPruningConfig]:
        """A half of the channels, and the most that may go."""
        choices = self.choices
        scope = choices.scope.prefer("uniform", "global")
        ways = [(choices.ratio.clip(0.5), scope), (choices.ratio.high, scope)]
        if "sensitivity" in choices.scope.options:  # the last is the strongest
            ways.insert(1, (choices.ratio.clip(0.5), "sensitivity"))
        return [
            ChannelPruningConfig(
                ratio=ratio,
                importance=choices.importance.prefer("l2", "l1"),
                scope=scope,
                multiple=self.multiple.prefer(self.target.channel_multiple),
            )
            for ratio, scope in dict.fromkeys(ways)
        ]

    def apply(
        self, model: nn.Module, config: ChannelPruningConfig, context: StageContext
    ) -> Applied[nn.Module]:
        """Removes channels from a copy of the model.

        Raises:
            StageError: If the model cannot be traced, or does not run when narrowed.
        """
        groups, skipped = find_groups(model, context.example, context.tick)
        score = scores(groups, config.importance, context)
        ranked = {group.root: (group, score[group.root]) for group in groups}
        grown: dict[str, dict[float, float]] = {}
        if config.scope == "sensitivity":
            seed = context.seed if config.importance == "random" else None
            what = f"{self.name}, {config.importance}, {seed}"
            grown = growth_by_width(model, ranked, config.multiple, context, what)
            for group in [g for g in groups if g.root not in grown]:
                reason = "the model does not run with fewer of its channels"
                skipped.update(dict.fromkeys(group.layers, reason))
                groups.remove(group)
                del ranked[group.root]
        removals = channels_to_remove(
            ranked,
            ratio=config.ratio,
            scope=config.scope,
            multiple=config.multiple,
            kept=shared_out(grown, {g.root: g.width for g in groups}, 1 - config.ratio),
        )
        context.tick()
        try:
            pruned = remove(model, context.example, removals)
        except StageError:
            broken = _broken(model, context, removals)
            for group in [g for g in groups if g.root in broken]:
                skipped.update(dict.fromkeys(group.layers, broken[group.root]))
            groups = [g for g in groups if g.root not in broken]
            removals = {root: gone for root, gone in removals.items() if root not in broken}
            pruned = remove(model, context.example, removals)
        achieved = _achieved(model, pruned, groups, skipped)
        if grown:
            achieved["sensitivity"] = by_loss(grown)
        return Applied(pruned, achieved)


def _broken(
    model: nn.Module, context: StageContext, removals: Mapping[str, Sequence[int]]
) -> dict[str, str]:
    """Groups without whose channels the model does not run, by root, each with the reason."""
    broken = {}
    for root, channels in removals.items():
        context.tick()
        try:
            remove(model, context.example, {root: channels})
        except StageError as error:
            broken[root] = str(error)
    return broken


def _achieved(
    model: nn.Module,
    pruned: nn.Module,
    groups: Sequence[ChannelGroup],
    skipped: Mapping[str, str],
) -> dict[str, Any]:
    before, after = widths(model), widths(pruned)
    prunable = [layer for group in groups for layer in group.layers]
    achieved: dict[str, Any] = {
        "parameters_before": count_parameters(model),
        "parameters_after": count_parameters(pruned),
        "channels": {layer: [before[layer], after[layer]] for layer in prunable},
        "skipped": dict(skipped),
        "others": {
            name: f"{kind} is not narrowed"
            for name, kind in other_matrices(model, LAYERS).items()
            if _shapes(model.get_submodule(name)) == _shapes(pruned.get_submodule(name))
        },
    }
    if before == after:
        achieved["nothing_removed"] = (
            "every width rounds to what it was" if prunable else "no layer can be narrowed"
        )
    return achieved


def _shapes(module: nn.Module) -> dict[str, tuple[int, ...]]:
    return {name: tuple(p.shape) for name, p in module.named_parameters(recurse=False)}
