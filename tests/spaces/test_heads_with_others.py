"""Heads are removed, and every other stage goes on with what is left."""

from __future__ import annotations

from typing import Any

import pytest
from torch import nn

from parefront.spaces.lowrank.svd import Factorization
from parefront.spaces.pruning.channels import ChannelPruning
from parefront.spaces.pruning.depth import DepthPruning
from parefront.spaces.pruning.heads import HeadPruning
from parefront.spaces.pruning.weights import WeightPruning
from parefront.spaces.quantization.levels import WeightRounding
from parefront.spaces.ruled import weights_of
from parefront.spaces.sharing.clusters import WeightClustering
from parefront.spaces.stage import Stage, StageContext, TargetTraits
from tests.exporting import assert_ships
from tests.spaces.attentions import net
from tests.zoo import make

NEW = {f"{part}_proj" for part in ("q", "k", "v", "out")}


def applied(
    kind: type[Stage[Any, Any]], model: nn.Module, context: StageContext, **choices: Any
) -> Any:
    stage = kind(
        kind.choices_type.model_validate(choices), TargetTraits(format="onnx", channel_multiple=8)
    )
    return stage.apply(model, stage.anchors()[0], context)


@pytest.fixture
def pruned() -> tuple[nn.Module, StageContext]:
    model, context = make("transformer")
    return applied(HeadPruning, model, context).model, context


@pytest.mark.parametrize("stage", [WeightPruning, WeightClustering, WeightRounding])
def test_rules_hold_in_all_projections(
    stage: type[Stage[Any, Any]], pruned: tuple[nn.Module, StageContext]
) -> None:
    model, context = pruned
    names = {f"encoder.layers.{at}.self_attn.{part}" for at in range(2) for part in NEW}
    found, left = weights_of(model)
    assert names <= {each.name for each in found}
    assert left == {}
    result = applied(stage, model, context)
    assert names.isdisjoint(result.achieved["left_alone"])
    assert_ships(result.model, context)


def test_projections_are_factorised(pruned: tuple[nn.Module, StageContext]) -> None:
    model, context = pruned
    result = applied(Factorization, model, context)
    assert {f"encoder.layers.0.self_attn.{part}" for part in NEW} <= set(result.achieved["ranks"])
    assert_ships(result.model, context)


def test_the_stream_can_be_narrowed_too(pruned: tuple[nn.Module, StageContext]) -> None:
    model, context = pruned
    channels = applied(ChannelPruning, model, context).achieved["channels"]
    assert channels["encoder.layers.0.linear1"] == [128, 64]
    assert channels["encoder.layers.0.self_attn.out_proj"] == [64, 32]
    whole = applied(ChannelPruning, *make("transformer")).achieved["channels"]
    assert set(whole) == {"encoder.layers.0.linear1", "encoder.layers.1.linear1"}


@pytest.mark.parametrize("kind", ["separate", "BERT", "fused"])
def test_hand_written_attentions_go_through_all(kind: str) -> None:
    model, context = net(kind)
    result = applied(HeadPruning, model, context)
    for stage in (ChannelPruning, Factorization, WeightPruning):
        result = applied(stage, result.model, context)
    assert_ships(result.model, context)


def test_heads_go_from_the_layers_that_are_left() -> None:
    model, context = make("transformer")
    shallow = applied(DepthPruning, model, context, share=0.5).model
    result = applied(HeadPruning, shallow, context)
    assert list(result.achieved["heads"].values()) == [[4, 2]]
    assert_ships(result.model, context)
