"""The stage `share`: blocks of the same form become one that is used several times."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Literal

import optuna
import torch
from pydantic import Field, field_validator
from torch import nn

from parefront.errors import StageError
from parefront.spaces.inspection import brief, count_parameters, run
from parefront.spaces.pruning.heads import HeadPruning
from parefront.spaces.ranges import Choice, IntRange
from parefront.spaces.sharing.blocks import equal_blocks, mean_of, with_shared
from parefront.spaces.sharing.tying import tied, tyable
from parefront.spaces.stage import Applied, Form, Stage, StageChoices, StageConfig, StageContext

Start = Literal["mean", "first"]


class SharingConfig(StageConfig):
    """One way to share blocks.

    Attributes:
        group: How many blocks in a row become one, at least 2; the last ones may be fewer.
        start: What training begins with: the `"mean"` of the group, or its `"first"`.
        tie: Whether an output layer also takes the table of an embedding of its shape.

    Example:
        >>> SharingConfig(group=2)
        SharingConfig(group=2, start='first', tie=False)
    """

    group: int = Field(ge=2)
    start: Start = "first"
    tie: bool = False


class SharingChoices(StageChoices):
    """What a study file may say about sharing blocks.

    Attributes:
        group: How many blocks in a row become one, at least 2.
        start: What training may begin with.
        tie: Whether an output layer may take the table of an embedding.
    """

    group: IntRange = IntRange(low=2, high=4)
    start: Choice[Start] = Choice[Start](options=("first", "mean"))
    tie: Choice[bool] = Choice[bool](options=(False,))

    @field_validator("group")
    @classmethod
    def _several(cls, value: IntRange) -> IntRange:
        if value.low < 2:
            raise ValueError(
                f"expected groups of at least 2 blocks, got [{value.low}, {value.high}]"
            )
        return value


class DepthSharing(Stage[SharingConfig, nn.Module]):
    """Makes one block of several that have the same form (ALBERT, Lan et al. 2020).

    https://arxiv.org/abs/1909.11942. The net is as deep, and as slow, as before; the file holds the
    weights of a group once. Which blocks have the same form is told by
    `parefront.spaces.sharing.blocks.equal_blocks`.

    `achieved` holds `parameters_before` and `parameters_after`; `groups`, the names of the blocks
    that became one; `left_alone`, the reason for each other block in a container; and with `tie`
    also `tied`, the output layer with its embedding, or why there is none.
    """

    name: ClassVar[str] = "share"
    form: ClassVar[Form] = Form.MODULE
    by_default: ClassVar[bool] = False
    choices_type: ClassVar[type[StageChoices]] = SharingChoices
    config_type: ClassVar[type[StageConfig]] = SharingConfig
    choices: SharingChoices

    def nothing_to_do(self, model: nn.Module, context: StageContext) -> str | None:
        """Why no two blocks of the model can become one, or `None`."""
        rows, left = equal_blocks(model)
        if rows or (True in self.choices.tie.options and tyable(model, context)[0]):
            return None
        return _nothing(left)

    def clashes(self, earlier: Sequence[type[Stage[Any, Any]]]) -> str | None:
        """Layers that lost different heads compute in different ways."""
        if any(issubclass(stage, HeadPruning) for stage in earlier):
            return "layers that lost different heads have different forms"
        return None

    def draw(
        self,
        trial: optuna.trial.BaseTrial,
        earlier: Mapping[str, StageConfig],  # noqa: ARG002
    ) -> SharingConfig:
        """Draws what is not fixed."""
        choices = self.choices
        return SharingConfig(
            group=choices.group.suggest(trial, f"{self.name}.group"),
            start=choices.start.suggest(trial, f"{self.name}.start"),
            tie=choices.tie.suggest(trial, f"{self.name}.tie"),
        )

    def anchors(self) -> Sequence[SharingConfig]:
        """Pairs, and the largest groups; from the first block."""
        choices = self.choices
        return [
            SharingConfig(
                group=group, start=choices.start.prefer("first"), tie=choices.tie.prefer(True)
            )
            for group in dict.fromkeys((choices.group.clip(2), choices.group.high))
        ]

    def apply(
        self, model: nn.Module, config: SharingConfig, context: StageContext
    ) -> Applied[nn.Module]:
        """Shares blocks of a copy of the model.

        Raises:
            StageError: If there is nothing to share, or the model does not run with it.
        """
        context.tick()
        rows, left = equal_blocks(model)
        groups = [
            row[at : at + config.group] for row in rows for at in range(0, len(row), config.group)
        ]
        left |= {group[0]: "the others are in whole groups" for group in groups if len(group) == 1}
        groups = [group for group in groups if len(group) > 1]
        start: dict[str, torch.Tensor] = {}
        for group in groups if config.start == "mean" else []:
            context.tick()
            start |= mean_of(model, group)
        result = with_shared(model, groups, start)
        told: dict[str, object] = {}
        if config.tie:
            pair, reason = tyable(result, context)
            told["tied"] = list(pair) if pair else reason
            if pair:
                result = tied(result, *pair)
        if not groups and not isinstance(told.get("tied"), list):
            raise StageError(_nothing(left))
        context.tick()
        try:
            run(result, context.example)
        except Exception as error:  # a user's forward pass may raise anything
            raise StageError(
                f"the model does not run with shared blocks: {brief(error)}"
            ) from error
        return Applied(
            result,
            {
                "parameters_before": count_parameters(model),
                "parameters_after": count_parameters(result),
                "groups": groups,
                "left_alone": left,
                **told,
            },
        )


def _nothing(left: Mapping[str, str]) -> str:
    if left:
        name, reason = next(iter(left.items()))
        return f"no blocks can be shared, such as {name}: {reason}"
    return "no nn.Sequential or nn.ModuleList holds blocks of some size"
