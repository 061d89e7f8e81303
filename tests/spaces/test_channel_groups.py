"""Which channels count as belonging together, in models that are easily got wrong."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from torch import nn

from parefront.spaces.pruning.channels import (
    ChannelPruning,
    ChannelPruningChoices,
    ChannelPruningConfig,
)
from parefront.spaces.stage import Applied, StageContext, TargetTraits
from tests.exporting import assert_ships
from tests.spaces.odd_models import (
    Chunked,
    Fixed,
    Gated,
    HardCoded,
    Heads,
    Image,
    Joined,
    Recurrent,
    Tied,
    TwoOutputs,
    Unused,
    random,
)
from tests.zoo import make

STAGE = ChannelPruning(ChannelPruningChoices(), TargetTraits(format="onnx", channel_multiple=4))
HALF = ChannelPruningConfig(ratio=0.5, importance="l2", scope="uniform", multiple=4)
IN_PLACE = "its channels do not stay in place, as when they are split into heads"


def context_for(*example: torch.Tensor) -> StageContext:
    names = tuple(f"input{i}" for i in range(len(example)))
    return replace(make("mlp")[1], example=example, input_names=names)


def prune(
    build: Callable[[], nn.Module], *example: torch.Tensor
) -> tuple[Applied[nn.Module], StageContext]:
    torch.manual_seed(0)
    context = context_for(*example)
    applied = STAGE.apply(build().eval(), HALF, context)
    return applied, context


def test_attention_heads_are_not_mixed_and_the_rest_shrinks() -> None:
    applied, context = prune(Heads, random(2, 5, 6))
    assert applied.achieved["channels"] == {
        "down": [32, 16],
        "o": [32, 16],
        "embed": [32, 16],
        "up": [64, 32],
    }
    assert {name: applied.achieved["skipped"][name] for name in "qkv"} == dict.fromkeys(
        "qkv", IN_PLACE
    )
    assert_ships(applied.model, context)


def test_channels_that_meet_a_constant_stay() -> None:
    applied, _ = prune(Fixed, random(2, 5, 6))
    assert applied.achieved["channels"] == {"inner": [16, 8]}
    assert applied.achieved["skipped"]["first"] == IN_PLACE


@pytest.mark.parametrize("build", [Gated, Chunked, Image])
def test_channels_that_pair_up_or_become_an_image_stay(build: type[nn.Module]) -> None:
    applied, context = prune(build, random(2, 6))
    assert applied.achieved["channels"] == {"inner": [16, 8]}
    assert applied.achieved["skipped"]["both"] == IN_PLACE
    assert_ships(applied.model, context)


def test_an_inner_output_keeps_its_shape() -> None:
    applied, context = prune(TwoOutputs, random(2, 6))
    assert applied.achieved["channels"] == {"body": [16, 8]}
    assert applied.achieved["skipped"].keys() == {"middle", "head"}
    assert applied.model(*context.example)["features"].shape == (2, 16)


def test_a_group_that_breaks_the_model_is_left_out() -> None:
    applied, context = prune(HardCoded, random(2, 1, 6, 6))
    assert applied.achieved["channels"] == {"first": [8, 4]}
    assert applied.achieved["skipped"]["second"].startswith(
        "the model does not run with fewer channels: RuntimeError: "
    )
    assert_ships(applied.model, context)


def test_shared_weights_stay_shared() -> None:
    applied, _ = prune(Tied, torch.arange(10).view(2, 5))
    assert applied.achieved["channels"] == {"inner": [32, 16]}
    assert "whose weight is shared with" in applied.achieved["skipped"]["outer"]
    pruned = applied.model
    assert pruned.get_parameter("logits.weight") is pruned.get_parameter("embed.weight")


def test_concatenated_branches_with_two_inputs() -> None:
    applied, context = prune(Joined, random(2, 1, 6, 6), random(2, 2, 6, 6))
    assert applied.achieved["channels"] == {"after": [8, 4], "left": [8, 4], "right": [16, 8]}
    assert applied.model.get_parameter("after.weight").shape == (4, 12, 1, 1)
    assert_ships(applied.model, context)


def blocks() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(1, 16, 3),
        nn.GroupNorm(4, 16),
        nn.ReLU(),
        nn.Conv2d(16, 24, 3, groups=2),
        nn.ReLU(),
        nn.Conv2d(24, 3, 1),
    )


def test_blocks_of_grouped_layers_stay_equal() -> None:
    applied, context = prune(blocks, random(2, 1, 8, 8))
    assert applied.achieved["channels"] == {"3": [24, 12], "0": [16, 8]}
    assert applied.achieved["skipped"] == {"5": "its channels are outputs of the model"}
    grouped = applied.model.get_submodule("3")
    assert isinstance(grouped, nn.Conv2d)
    assert (grouped.groups, grouped.in_channels, grouped.out_channels) == (2, 8, 12)
    assert grouped.weight.shape == (12, 4, 3, 3)
    assert_ships(applied.model, context)


def decoder() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(1, 16, 3), nn.PReLU(16), nn.ConvTranspose2d(16, 8, 3), nn.Conv2d(8, 1, 3)
    )


def test_transposed_convolutions_and_image_outputs() -> None:
    applied, context = prune(decoder, random(2, 1, 8, 8))
    assert applied.achieved["channels"] == {"2": [8, 4], "0": [16, 8]}
    assert applied.model.get_parameter("2.weight").shape == (8, 4, 3, 3)
    assert_ships(applied.model, context)


@pytest.mark.parametrize(
    ("kind", "reason"),
    [
        (nn.LSTM, "coupled to rnn, and a LSTM cannot be narrowed"),
        (nn.GRU, "its channels cannot be followed: IndexError"),
    ],
)
def test_layers_around_a_recurrent_one_stay(
    kind: type[nn.LSTM] | type[nn.GRU], reason: str
) -> None:
    applied, _ = prune(lambda: Recurrent(kind), random(2, 5, 6))
    assert applied.achieved["channels"] == {"inner": [16, 8]}
    assert applied.achieved["skipped"]["first"].startswith(reason)


def test_parametrised_weights_stay() -> None:
    def build() -> nn.Module:
        first = nn.utils.parametrizations.weight_norm(nn.Linear(6, 16))
        return nn.Sequential(first, nn.ReLU(), nn.Linear(16, 16), nn.ReLU(), nn.Linear(16, 3))

    applied, _ = prune(build, random(2, 6))
    assert applied.achieved["channels"] == {"2": [16, 8]}
    assert applied.achieved["skipped"]["0"] == "coupled to 0, whose weight is parametrised"


def test_frozen_weights_are_pruned_all_the_same() -> None:
    def build() -> nn.Module:
        model = nn.Sequential(nn.Linear(6, 16), nn.ReLU(), nn.Linear(16, 3))
        return model.requires_grad_(False)

    applied, _ = prune(build, random(2, 6))
    assert applied.achieved["channels"] == {"0": [16, 8]}


def test_unused_layers_are_said() -> None:
    applied, _ = prune(Unused, random(2, 6))
    assert applied.achieved["nothing_removed"] == "no layer can be narrowed"
    assert applied.achieved["skipped"]["spare"] == (
        "the forward pass does not call it with values that depend on weights"
    )
