"""The stage `heads`: removes whole attention heads, so that attention is really smaller."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, ClassVar

import optuna
import torch
from pydantic import Field, field_validator
from torch import nn

from parefront.errors import StageError
from parefront.spaces.inspection import count_parameters
from parefront.spaces.pruning.head_groups import difference, find_heads, remove_heads
from parefront.spaces.pruning.head_ranking import (
    IMPORTANCES,
    Importance,
    Scope,
    heads_to_remove,
)
from parefront.spaces.ranges import Choice, FloatRange
from parefront.spaces.stage import Applied, Form, Stage, StageChoices, StageConfig, StageContext


class HeadPruningConfig(StageConfig):
    """One way to prune attention heads.

    Attributes:
        ratio: Share of the heads to remove, in [0, 1); one at least stays in each attention.
        importance: What decides which heads go; see `IMPORTANCES`.
        scope: `"uniform"` removes the same share from every attention, `"global"` the least
            important heads of the model.

    Example:
        >>> HeadPruningConfig(ratio=0.5, importance="taylor", scope="uniform")
        HeadPruningConfig(ratio=0.5, importance='taylor', scope='uniform')
    """

    ratio: Annotated[float, Field(ge=0, lt=1)]
    importance: Importance
    scope: Scope


class HeadPruningChoices(StageChoices):
    """What a study file may say about pruning heads.

    Attributes:
        ratio: Share of the heads to remove, within [0, 1).
        importance: Importance measures to choose from.
        scope: Scopes to choose from.
    """

    ratio: FloatRange = FloatRange(low=0.1, high=0.75)
    importance: Choice[Importance] = Choice[Importance](options=("l2", "taylor"))
    scope: Choice[Scope] = Choice[Scope](options=("uniform", "global"))

    @field_validator("ratio")
    @classmethod
    def _shares(cls, value: FloatRange) -> FloatRange:
        if value.low < 0 or value.high >= 1:
            raise ValueError(
                f"expected shares of heads within [0, 1), got [{value.low}, {value.high}]"
            )
        return value


class HeadPruning(Stage[HeadPruningConfig, nn.Module]):
    """Removes whole heads of attentions (Michel et al. 2019, https://arxiv.org/abs/1905.10650).

    Which they are is told by `parefront.spaces.pruning.head_groups.find_heads`. A
    `nn.MultiheadAttention` that loses heads becomes an `Attention` of Linear layers, from
    `parefront.spaces.pruning.attention`; in other attentions the Linear layers become narrower.

    `achieved` holds `parameters_before` and `parameters_after`; `heads`, how many there were and
    are in each attention; `removed`, which are gone; `left_alone`, the reason for each attention
    that keeps its heads; and `nothing_removed`, a reason, if the model is as it was.
    """

    name: ClassVar[str] = "heads"
    form: ClassVar[Form] = Form.MODULE
    choices_type: ClassVar[type[StageChoices]] = HeadPruningChoices
    config_type: ClassVar[type[StageConfig]] = HeadPruningConfig
    choices: HeadPruningChoices

    def nothing_to_do(self, model: nn.Module, context: StageContext) -> str | None:
        """Why no head can be removed from the model, or `None`."""
        try:
            _, groups, left = find_heads(model, context.example, context.tick)
        except StageError as error:
            return str(error)
        return None if groups else _no_head(left)

    def draw(
        self,
        trial: optuna.trial.BaseTrial,
        earlier: Mapping[str, StageConfig],  # noqa: ARG002
    ) -> HeadPruningConfig:
        """Draws the share, importance and scope that are not fixed."""
        choices = self.choices
        return HeadPruningConfig(
            ratio=choices.ratio.suggest(trial, f"{self.name}.ratio"),
            importance=choices.importance.suggest(trial, f"{self.name}.importance"),
            scope=choices.scope.suggest(trial, f"{self.name}.scope"),
        )

    def anchors(self) -> Sequence[HeadPruningConfig]:
        """Half of the heads, those that the loss depends on least."""
        choices = self.choices
        return [
            HeadPruningConfig(
                ratio=choices.ratio.clip(0.5),
                importance=choices.importance.prefer("taylor", "l2"),
                scope=choices.scope.prefer("uniform"),
            )
        ]

    def apply(
        self, model: nn.Module, config: HeadPruningConfig, context: StageContext
    ) -> Applied[nn.Module]:
        """Removes heads from a copy of the model.

        Raises:
            StageError: If no head can be removed, or the model does not run.
        """
        context.tick()
        work, groups, left = find_heads(model, context.example, context.tick)
        if not groups:
            raise StageError(_no_head(left))
        with torch.random.fork_rng(devices=[]):
            scores = IMPORTANCES[config.importance](work, groups, context)
        removals = heads_to_remove(scores, config.ratio, config.scope)
        result = remove_heads(model, groups, removals)
        if difference(work, result, groups, removals, context.example) is not None:
            for name, gone in list(removals.items()):  # what one head was no proof of
                context.tick()
                alone = remove_heads(model, groups, {name: gone})
                reason = difference(work, alone, groups, {name: gone}, context.example)
                if reason is not None:
                    left[name] = f"without {len(gone)} of its heads {reason}"
                    del removals[name]
            result = remove_heads(model, groups, removals)
        achieved: dict[str, Any] = {
            "parameters_before": count_parameters(model),
            "parameters_after": count_parameters(result),
            "heads": {
                group.name: [group.heads, group.heads - len(removals.get(group.name, ()))]
                for group in groups
            },
            "removed": removals,
            "left_alone": left,
        }
        if not removals:
            achieved["nothing_removed"] = (
                "no attention can lose as many heads as the share asks for"
            )
        return Applied(result, achieved)


def _no_head(left: Mapping[str, str]) -> str:
    if left:
        name, reason = next(iter(left.items()))
        return f"no head can be removed, such as in {name}: {reason}"
    return "the model has no attention with several heads"
