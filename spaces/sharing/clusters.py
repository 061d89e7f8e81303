"""The stage `cluster`: the weights of a layer share a few values (Deep Compression)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import ClassVar

import optuna
import torch
from pydantic import Field, field_validator
from torch import nn

from parefront.spaces.ranges import IntRange
from parefront.spaces.rule_stage import RuleStage
from parefront.spaces.ruled import Rule, with_rule
from parefront.spaces.sharing.kmeans import kmeans
from parefront.spaces.stage import Applied, StageChoices, StageConfig, StageContext


class ClusterConfig(StageConfig):
    """One way to share values.

    Attributes:
        bits: A layer has at most `2 ** bits` different weights, from 1 to 8.
    """

    bits: int = Field(ge=1, le=8)


class ClusterChoices(StageChoices):
    """What a study file may say about shared values.

    Attributes:
        bits: Bits of an index, from 1 to 8.
    """

    bits: IntRange = IntRange(low=3, high=6)

    @field_validator("bits")
    @classmethod
    def _an_index(cls, value: IntRange) -> IntRange:
        if value.low < 1 or value.high > 8:
            raise ValueError(f"expected bits from 1 to 8, got [{value.low}, {value.high}]")
        return value


class Clusters(Rule):
    """Each weight is one of a few shared values, which are what is trained.

    A weight that is zero, because it was pruned, stays zero.

    Args:
        weight: The weight to cluster.
        count: Most different values, zero among them if there are zeros.
    """

    def __init__(self, weight: torch.Tensor, count: int) -> None:
        super().__init__()
        flat = weight.detach().flatten()
        kept = flat != 0
        # Zeros take a value of their own, the first.
        self._zeros = int(not bool(kept.all()))
        found = kmeans(flat[kept].float().numpy(), max(count - self._zeros, 1))
        centres = torch.from_numpy(found).to(flat)
        edges = (centres[:-1] + centres[1:]) / 2
        index = torch.where(kept, torch.bucketize(flat, edges) + self._zeros, 0)
        self.centres = nn.Parameter(centres)
        # A byte: copies of it are kept in the cache, and made at each rung.
        self.register_buffer("index", index.to(torch.uint8).reshape(weight.shape))
        self.index: torch.Tensor

    def forward(self, weight: torch.Tensor) -> torch.Tensor:
        """The shared values, in the places of their weights."""
        values = torch.cat([weight.new_zeros(self._zeros), self.centres])
        return values[self.index.long()]


class WeightClustering(RuleStage[ClusterConfig]):
    """Groups the weights of each layer by k-means; training then moves the shared values.

    The gradient of a shared value is the sum of its weights' gradients (Han, Mao, Dally 2016). The
    file stores an index for each weight and a table for each layer. `achieved` holds `values`, how
    many different values each layer has, and `left_alone`, the reason for each part with weights
    that does not take part.
    """

    name: ClassVar[str] = "cluster"
    rounds: ClassVar[bool] = True
    choices_type: ClassVar[type[StageChoices]] = ClusterChoices
    config_type: ClassVar[type[StageConfig]] = ClusterConfig
    choices: ClusterChoices

    def draw(
        self,
        trial: optuna.trial.BaseTrial,
        earlier: Mapping[str, StageConfig],  # noqa: ARG002
    ) -> ClusterConfig:
        """Draws the bits."""
        return ClusterConfig(bits=self.choices.bits.suggest(trial, f"{self.name}.bits"))

    def anchors(self) -> Sequence[ClusterConfig]:
        """Four bits."""
        return [ClusterConfig(bits=self.choices.bits.clip(4))]

    def apply(
        self, model: nn.Module, config: ClusterConfig, context: StageContext
    ) -> Applied[nn.Module]:
        """Clusters a copy of the model.

        Raises:
            StageError: If no layer is large enough.
        """
        result, layers, left = self.copied(model)
        values = {}
        for each in layers:
            context.tick()
            rule = Clusters(each.weight, 2**config.bits)
            values[each.name] = len(rule.centres)
            rule.requires_grad_(each.held.requires_grad)
            result = with_rule(result, each.name, rule)
            each.held.requires_grad_(False)  # the shared values stand for it
        return Applied(result, {"values": values, "left_alone": left})
