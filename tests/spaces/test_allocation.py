"""Bits by layer: against all the ways there are, and on a real network."""

from __future__ import annotations

from itertools import pairwise, product

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from parefront.spaces.quantization.allocation import BITS, allocated, sensitivities
from parefront.spaces.quantization.level_rule import Rounded
from parefront.spaces.quantization.level_sets import uniform
from parefront.spaces.quantization.levels import RoundingChoices, RoundingConfig, WeightRounding
from parefront.spaces.ruled import Rule, Weights, weights_of
from parefront.spaces.stage import TargetTraits
from tests.zoo import make

STAGE = WeightRounding(RoundingChoices(), TargetTraits(format="onnx", channel_multiple=8))


def rule(each: Weights, bits: int) -> Rule:
    return Rounded(each.weight, uniform(bits), each.channels)


@st.composite
def convex_losses(draw: st.DrawFn) -> dict[str, dict[int, float]]:
    """Losses that fall, by less for each further bit."""
    found = {}
    for layer in range(draw(st.integers(1, 4))):
        slopes = sorted(draw(st.lists(st.floats(0, 9), min_size=4, max_size=4)))
        losses = [0.0]
        for slope, (low, high) in zip(slopes, [(6, 8), (4, 6), (3, 4), (2, 3)], strict=True):
            losses.append(losses[-1] + slope * (high - low))
        found[str(layer)] = dict(zip(BITS, reversed(losses), strict=True))
    return found


@settings(deadline=None, max_examples=60)
@given(convex_losses(), st.floats(2, 8), st.data())
def test_the_mean_is_kept_and_no_way_of_as_many_bits_is_better(
    grown: dict[str, dict[int, float]], mean: float, data: st.DataObject
) -> None:
    sizes = {name: data.draw(st.integers(1, 5)) for name in grown}
    bits = allocated(grown, sizes, mean)
    spent = sum(bits[name] * sizes[name] for name in grown)
    assert spent <= mean * sum(sizes.values()) + 1e-9
    loss = sum(grown[name][bits[name]] for name in grown)
    # What was reached for what was spent cannot be improved on, but for steps that did not fit, of
    # which each layer has one at most.
    largest = max(
        losses[low] - losses[high] for losses in grown.values() for low, high in pairwise(BITS)
    )
    for others in product(BITS, repeat=len(grown)):
        other = dict(zip(grown, others, strict=True))
        if sum(other[name] * sizes[name] for name in grown) <= spent:
            better = sum(grown[name][other[name]] for name in grown)
            assert better >= loss - largest * len(grown) - 1e-9


def test_bits_go_where_they_pay() -> None:
    grown = {
        "deaf": dict.fromkeys(BITS, 0.0),
        "touchy": {2: 4.0, 3: 2.0, 4: 1.0, 6: 0.25, 8: 0.0},
    }
    assert allocated(grown, {"deaf": 100, "touchy": 100}, 4.0) == {"deaf": 2, "touchy": 6}
    assert allocated(grown, {"deaf": 100, "touchy": 100}, 2.0) == {"deaf": 2, "touchy": 2}
    # A large layer is dear to give bits to.
    assert allocated(grown, {"deaf": 100, "touchy": 900}, 3.0) == {"deaf": 2, "touchy": 3}


def test_a_step_that_pays_only_with_the_next_is_taken_with_it() -> None:
    grown = {"late": {2: 1.0, 3: 0.99, 4: 0.0, 6: 0.0, 8: 0.0}, "soon": {2: 0.3, 3: 0.0}}
    grown["soon"] |= dict.fromkeys((4, 6, 8), 0.0)
    assert allocated(grown, {"late": 1, "soon": 1}, 3.0) == {"late": 4, "soon": 2}


def test_the_growth_is_that_of_the_layer_alone() -> None:
    model, context = make("cnn")
    layers, _ = weights_of(model)
    with torch.no_grad():  # nothing hangs on this one
        model.get_parameter(f"{layers[1].name}.weight").copy_(
            torch.full_like(layers[1].weight, 0.25)
        )
    layers, _ = weights_of(model)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    grown = sensitivities(model, layers, rule, context)
    assert list(grown) == [each.name for each in layers]
    assert grown[layers[1].name] == pytest.approx(dict.fromkeys(BITS, 0.0), abs=1e-6)
    for losses in grown.values():
        values = [losses[bits] for bits in BITS]
        assert values == sorted(values, reverse=True)
        assert min(values) >= 0
    for name, value in model.state_dict().items():
        assert torch.equal(value, before[name])


def test_the_stage_gives_bits_by_sensitivity_and_says_so() -> None:
    model, context = make("cnn")
    even = RoundingConfig(levels="uniform", bits=4, ends=True)
    assert even.allocation == "even"
    mixed = RoundingConfig(levels="uniform", bits=4, allocation="sensitivity", ends=True)
    applied = STAGE.apply(model, mixed, context)
    levels = applied.achieved["levels"]
    assert set(levels.values()) <= {2**bits - 1 for bits in BITS}
    layers, _ = weights_of(model)
    bits = {name: (count + 1).bit_length() - 1 for name, count in levels.items()}
    total = sum(each.weight.numel() for each in layers)
    assert sum(bits[each.name] * each.weight.numel() for each in layers) <= 4 * total
    assert set(applied.achieved["sensitivity"]) == set(levels)


def test_a_layer_that_is_the_model_gets_the_mean() -> None:
    _, context = make("mlp")
    model = nn.Sequential(nn.Flatten(), nn.Linear(context.example[0][0].numel(), 10))
    config = RoundingConfig(levels="uniform", bits=3, allocation="sensitivity", ends=True)
    applied = STAGE.apply(model, config, context)
    assert applied.achieved["levels"] in ({"1": 7}, {"1": 3})
