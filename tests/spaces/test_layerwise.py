"""Replaced layers that learn one by one what the dense ones answer."""

from __future__ import annotations

import copy
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import nn

from parefront.spaces.lowrank.config import FactorizationChoices, FactorizationConfig
from parefront.spaces.lowrank.layers import factorize
from parefront.spaces.lowrank.layerwise import Seen, distil, seen
from parefront.spaces.lowrank.svd import Factorization
from parefront.spaces.stage import TargetTraits
from tests.exporting import assert_ships
from tests.zoo import Memory, make

STAGE = Factorization(FactorizationChoices(), TargetTraits(format="onnx", channel_multiple=8))


def config(**fields: Any) -> FactorizationConfig:
    base = {"ratio": 0.5, "layers": "all", "multiple": 8, "layerwise": True}
    return FactorizationConfig.model_validate(base | fields)


def inputs(rows: int, seed: int) -> torch.Tensor:
    """Vectors of 32 numbers that vary far more in some directions than in others."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(rows, 32, generator=generator) * torch.logspace(0.5, -1.5, 32)


def test_the_error_on_inputs_that_were_not_seen_falls() -> None:
    torch.manual_seed(0)
    layer = nn.Linear(32, 24)
    x, held_out = inputs(256, 0), inputs(256, 1)
    with torch.no_grad():
        data, wanted = Seen(x, layer(x)), layer(held_out)
    part = factorize(layer, 6)
    with torch.no_grad():
        before = (part(held_out) - wanted).square().mean()
    errors = distil(part, data, 0, lambda: None)
    assert errors is not None
    with torch.no_grad():
        after = (part(held_out) - wanted).square().mean()
    assert after < 0.5 * before
    assert errors[1] < 0.5 * errors[0]
    # No two layers of the rank are nearer than the truncated decomposition of the outputs.
    centred = data.outputs - layer.bias.detach()
    least = torch.linalg.svdvals(centred)[6:].square().sum() / data.outputs.square().sum()
    assert errors[1] > 0.5 * least


def test_what_is_exact_stays_as_it_is() -> None:
    torch.manual_seed(0)
    layer = nn.Linear(32, 24)
    x = inputs(64, 0)
    part = nn.Sequential(copy.deepcopy(layer)).eval()
    with torch.no_grad():
        errors = distil_with_grad(part, Seen(x, layer(x)))
    assert errors == [0.0, 0.0]
    torch.testing.assert_close(part[0].weight, layer.weight, rtol=0, atol=0)
    assert not part.training


def distil_with_grad(part: nn.Module, data: Seen) -> list[float] | None:
    with torch.enable_grad():
        return distil(part, data, 0, lambda: None)


@pytest.mark.parametrize("convolution", ["spatial", "tucker", "separable", "grouped", "bottleneck"])
def test_the_layers_of_a_model_are_nearer_on_held_out_examples(convolution: str) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(8, 16, 3), nn.ReLU(), nn.Conv2d(16, 16, 3), nn.Flatten()).eval()
    images = torch.randn(384, 8, 6, 6) * torch.logspace(0.3, -1.0, 8).reshape(-1, 1, 1)
    first, rest = (Memory((each,), torch.zeros(len(each))) for each in torch.split(images, 256))
    context = replace(make("mlp")[1], example=(images[:2],), calibration=first)
    chosen = {"convolution": convolution, "layers": "conv", "ratio": 0.4, "multiple": 4}
    plain = STAGE.apply(model, config(**chosen, layerwise=False), context)
    learnt = STAGE.apply(model, config(**chosen), context)
    assert learnt.achieved["ranks"] == plain.achieved["ranks"]
    errors = learnt.achieved["layer_errors"]
    assert errors.keys() == learnt.achieved["ranks"].keys()
    assert "2" in errors
    for name in errors:
        data = seen(model, name, replace(context, calibration=rest))
        assert data is not None
        with torch.no_grad():
            before, after = (
                (applied.model.get_submodule(name)(data.inputs) - data.outputs).square().mean()
                for applied in (plain, learnt)
            )
        assert after < before or errors[name][0] == errors[name][1]
    assert errors["2"][1] < errors["2"][0]
    assert_ships(learnt.model, context)


def test_embeddings_learn_too() -> None:
    model, context = make("embedding")
    applied = STAGE.apply(model, config(embeddings=True), context)
    errors = applied.achieved["layer_errors"]
    assert errors.keys() == applied.achieved["ranks"].keys()
    assert "embed" in errors
    assert all(after <= before for before, after in errors.values())
    assert_ships(applied.model, context)


def test_frozen_layers_are_left_as_they_are_and_said_so() -> None:
    model, context = make("mlp")
    model.requires_grad_(False)
    achieved = STAGE.apply(model, config(), context).achieved
    assert set(achieved["layer_errors"].values()) == {"it is not called, or not trained"}


def test_it_is_off_unless_asked_for() -> None:
    assert not any(config.layerwise for config in STAGE.anchors())
    model, context = make("mlp")
    assert "layer_errors" not in STAGE.apply(model, STAGE.anchors()[0], context).achieved
