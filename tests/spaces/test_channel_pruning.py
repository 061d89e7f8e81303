"""The stage `prune`: choices, importance, widths and what it records."""

from __future__ import annotations

import copy
from dataclasses import replace
from typing import Any

import pytest
import torch
from pydantic import ValidationError
from torch import nn

from parefront.errors import StageError
from parefront.spaces.pruning.channels import (
    ChannelPruning,
    ChannelPruningChoices,
    ChannelPruningConfig,
)
from parefront.spaces.pruning.groups import find_groups, remove, widths
from parefront.spaces.pruning.ranking import channels_to_remove, scores
from parefront.spaces.ranges import Choice, FloatRange
from parefront.spaces.stage import StageContext, TargetTraits
from tests.exporting import assert_ships
from tests.spaces.odd_models import Broken
from tests.zoo import MODELS, make

TARGET = TargetTraits(format="onnx", channel_multiple=8)


def config(ratio: float = 0.5, **fields: Any) -> ChannelPruningConfig:
    values = {"ratio": ratio, "importance": "l2", "scope": "uniform", "multiple": 8}
    return ChannelPruningConfig.model_validate(values | fields)


def stage(**choices: Any) -> ChannelPruning:
    return ChannelPruning(ChannelPruningChoices.model_validate(choices), TARGET)


def context_for(*example: torch.Tensor) -> StageContext:
    return replace(make("mlp")[1], example=example)


def outputs(model: nn.Module, context: StageContext) -> torch.Tensor:
    with torch.no_grad():
        return model(*context.example)  # type: ignore[no-any-return]


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"ratio": 1.0}, "less than 1"),
        ({"ratio": -0.1}, "greater than or equal to 0"),
        ({"importance": "l3"}, "'l1', 'l2', 'taylor', 'bn_scale', 'median' or 'random'"),
        ({"scope": "local"}, "'global', 'uniform' or 'sensitivity'"),
        ({"multiple": 0}, "greater than or equal to 1"),
    ],
)
def test_an_impossible_config_is_refused(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        config(**fields)


@pytest.mark.parametrize(
    ("choices", "message"),
    [
        ({"ratio": [0.2, 1.0]}, r"within \[0, 1\), got \[0.2, 1.0\]"),
        ({"ratio": [-0.2, 0.5]}, r"within \[0, 1\), got \[-0.2, 0.5\]"),
        (
            {"importance": ["l1", "l3"]},
            "'l1', 'l2', 'taylor', 'bn_scale', 'median' or 'random'",
        ),
        ({"scope": "local"}, "'global', 'uniform' or 'sensitivity'"),
        ({"multiple": [8, 0]}, "greater than or equal to 1"),
        ({"rate": 0.5}, "Extra inputs are not permitted"),
    ],
)
def test_impossible_choices_are_refused(choices: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        ChannelPruningChoices.model_validate(choices)


def test_choices_read_as_a_study_file_writes_them() -> None:
    choices = ChannelPruningChoices.model_validate(
        {"ratio": [0.0, 0.8], "importance": "l1", "multiple": [4, 8]}
    )
    assert choices.ratio == FloatRange(low=0.0, high=0.8)
    assert choices.importance.options == ("l1",)
    assert choices.multiple == Choice[int](options=(4, 8))


def test_the_multiple_is_the_targets_unless_it_is_chosen() -> None:
    assert stage().anchors() == [config(0.5, multiple=8), config(0.8, multiple=8)]
    assert stage(multiple=[4, 16]).anchors()[0] == config(0.5, multiple=4)


def test_anchors_stay_within_the_choices() -> None:
    assert stage(ratio=[0.6, 0.7], importance="random").anchors() == [
        config(0.6, importance="random"),
        config(0.7, importance="random"),
    ]
    assert len(stage(ratio=0.6).anchors()) == 1


def two_filters() -> tuple[nn.Sequential, StageContext]:
    """A hidden layer of one concentrated filter (absolute sum 3, square sum 9) and one spread
    filter (absolute sum 4, square sum 4), which the next layer reads with equal weights."""
    model = nn.Sequential(nn.Linear(4, 2), nn.ReLU(), nn.Linear(2, 3)).eval()
    with torch.no_grad():
        model.get_parameter("0.weight").copy_(torch.tensor([[3.0, 0, 0, 0], [1, 1, 1, 1]]))
        model.get_parameter("2.weight").fill_(0.1)
    return model, context_for(torch.randn(2, 4, generator=torch.Generator().manual_seed(0)))


@pytest.mark.parametrize(("importance", "kept"), [("l1", 1), ("l2", 0)])
def test_the_largest_filters_stay(importance: str, kept: int) -> None:
    model, context = two_filters()
    pruned = stage().apply(model, config(importance=importance, multiple=1), context).model
    for name, dim in (("0.weight", 0), ("0.bias", 0), ("2.weight", 1)):
        expected = model.get_parameter(name).index_select(dim, torch.tensor([kept]))
        assert torch.equal(pruned.get_parameter(name), expected)


def test_random_importance_follows_the_seed() -> None:
    model, context = make("mlp")
    random = config(importance="random")
    results = [
        stage().apply(model, random, replace(context, seed=seed)).model.state_dict()
        for seed in (0, 0, 1)
    ]
    first = "layers.0.weight"
    assert torch.equal(results[0][first], results[1][first])
    assert not torch.equal(results[0][first], results[2][first])


def test_global_scope_takes_from_the_weakest_group() -> None:
    model = nn.Sequential(
        nn.Linear(16, 16, bias=False), nn.ReLU(), nn.Linear(16, 16, bias=False), nn.Linear(16, 4)
    ).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.fill_(1.0)
        model.get_parameter("0.weight")[:12] = 0.01  # twelve filters hardly matter
        model.get_parameter("2.weight")[:, :12] = 0.01
    context = context_for(torch.ones(2, 16))
    achieved = {
        scope: stage().apply(model, config(12 / 32, scope=scope, multiple=4), context).achieved
        for scope in ("global", "uniform")
    }
    assert achieved["global"]["channels"] == {"0": [16, 4], "2": [16, 16]}
    assert achieved["uniform"]["channels"] == {"0": [16, 8], "2": [16, 8]}


def test_weights_that_are_all_zero_go_first() -> None:
    model, context = make("mlp")
    with torch.no_grad():
        model.get_parameter("layers.0.weight").zero_()
        model.get_parameter("layers.2.weight").zero_()
    achieved = stage().apply(model, config(0.4, scope="global"), context).achieved
    assert achieved["channels"] == {"layers.0": [128, 24], "layers.2": [128, 128]}


def masked(model: nn.Module, context: StageContext, removals: dict[str, list[int]]) -> nn.Module:
    """The model with channels silenced where they are written, and still as wide as before."""
    groups, _ = find_groups(model, context.example, context.tick)
    result = copy.deepcopy(model)
    layers = dict(result.named_modules())
    with torch.no_grad():
        for group in groups:
            targets = {item.dep.target for item in group.traced}
            norms = [t.name.split()[0] for t in targets if isinstance(t.module, nn.BatchNorm2d)]
            for name in (*group.layers, *norms):
                for parameter in layers[name].parameters(recurse=False):
                    parameter[removals.get(group.root, [])] = 0.0
    return result


@pytest.mark.parametrize("kind", MODELS)
@pytest.mark.parametrize("importance", ["l1", "l2", "taylor", "bn_scale", "median", "random"])
def test_removing_channels_is_silencing_them(kind: str, importance: Any) -> None:
    model, context = make(kind)
    groups, _ = find_groups(model, context.example, context.tick)
    score = scores(groups, importance, context)
    removals = channels_to_remove(
        {group.root: (group, score[group.root]) for group in groups},
        ratio=0.5,
        scope="uniform",
        multiple=1,
    )
    assert removals
    pruned = remove(model, context.example, removals)
    expected = outputs(masked(model, context, removals), context)
    torch.testing.assert_close(outputs(pruned, context), expected)
    assert not torch.allclose(expected, outputs(model, context))


@pytest.mark.parametrize("kind", MODELS)
@pytest.mark.parametrize(("scope", "ratio"), [("uniform", 0.3), ("global", 0.7), ("global", 0.99)])
def test_what_is_recorded_is_what_is_there(kind: str, scope: str, ratio: float) -> None:
    model, context = make(kind)
    applied = stage().apply(model, config(ratio, scope=scope), context)
    before, after = widths(model), widths(applied.model)
    achieved = applied.achieved
    assert {layer: [before[layer], after[layer]] for layer in achieved["channels"]} == (
        achieved["channels"]
    )
    assert achieved["channels"].keys() | achieved["skipped"].keys() == before.keys()
    assert all(before[layer] == after[layer] for layer in achieved["skipped"])
    assert all(width > 0 and width % 8 == 0 for _, width in achieved["channels"].values())
    sizes = [sum(p.numel() for p in m.parameters()) for m in (model, applied.model)]
    assert sizes == [achieved["parameters_before"], achieved["parameters_after"]]
    assert sizes[1] < sizes[0]
    assert "nothing_removed" not in achieved
    for name, layer in applied.model.named_modules():  # the attributes agree with the weights
        if isinstance(layer, nn.Linear):
            assert layer.weight.shape == (layer.out_features, layer.in_features), name
        if isinstance(layer, nn.Conv2d):
            assert layer.weight.shape[0] == layer.out_channels, name
            assert layer.weight.shape[1] * layer.groups == layer.in_channels, name
    assert outputs(applied.model, context).shape == outputs(model, context).shape


@pytest.mark.parametrize("kind", MODELS)
def test_every_kind_of_model_ships_when_hardly_anything_is_left(kind: str) -> None:
    model, context = make(kind)
    applied = stage().apply(model, config(0.9, importance="random", multiple=1), context)
    assert_ships(applied.model, context)


def test_outputs_of_another_shape_are_refused() -> None:
    model, context = make("mlp")
    with pytest.raises(StageError, match=r"change shape: \[\(2, 10\)\] became \[\(2, 9\)\]"):
        remove(model, context.example, {"layers.4": [3]})


def test_nothing_removed_is_said() -> None:
    model, context = make("cnn")
    applied = stage().apply(model, config(0.05), context)
    assert applied.achieved["nothing_removed"] == "every width rounds to what it was"
    assert applied.achieved["parameters_after"] == applied.achieved["parameters_before"]
    assert str(applied.model) == str(model)
    torch.testing.assert_close(outputs(applied.model, context), outputs(model, context))


def test_mode_and_frozen_weights_stay() -> None:
    model, context = make("resnet")
    model.train()
    model.get_submodule("blocks.0").eval()
    model.get_submodule("stem").requires_grad_(False)
    pruned = stage().apply(model, config(), context).model
    assert {n: m.training for n, m in pruned.named_modules()} == {
        n: m.training for n, m in model.named_modules()
    }
    assert {n: p.requires_grad for n, p in pruned.named_parameters()} == {
        n: p.requires_grad for n, p in model.named_parameters()
    }


def test_a_narrow_model_has_nothing_to_do() -> None:
    model, context = two_filters()
    assert stage().nothing_to_do(model, context) == (
        "no layer that can be narrowed is wider than 8 channels"
    )
    assert stage(multiple=1).nothing_to_do(model, context) is None


@pytest.mark.parametrize(
    ("model", "example", "reason"),
    [
        (
            nn.Sequential(nn.Linear(6, 3)),
            torch.ones(2, 6),
            "no layer can be narrowed, such as 0: its channels are outputs of the model",
        ),
        (
            nn.Sequential(nn.Embedding(9, 4)),
            torch.arange(4).view(2, 2),
            "the model has no Conv or Linear layer",
        ),
        (
            Broken(),
            torch.ones(2, 6),
            "the model cannot be traced for pruning: ZeroDivisionError: no luck",
        ),
    ],
)
def test_nothing_to_do_says_why(model: nn.Module, example: torch.Tensor, reason: str) -> None:
    assert stage().nothing_to_do(model, context_for(example)) == reason


def test_a_model_that_cannot_be_traced_fails() -> None:
    with pytest.raises(StageError, match=r"cannot be traced for pruning: ZeroDivisionError"):
        stage().apply(Broken(), config(), context_for(torch.ones(2, 6)))
