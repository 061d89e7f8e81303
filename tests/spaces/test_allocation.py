"""Bits by layer: against all the ways there are, and on a real network."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise, product

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from parefront.spaces.allocation import allocated, by_loss, sensitivities, shared_out
from parefront.spaces.quantization.level_rule import Rounded
from parefront.spaces.quantization.level_sets import uniform
from parefront.spaces.quantization.levels import (
    BITS,
    RoundingChoices,
    RoundingConfig,
    WeightRounding,
)
from parefront.spaces.ruled import weights_of, with_rule
from parefront.spaces.stage import Facts, Find, TargetTraits
from tests.zoo import make

STAGE = WeightRounding(RoundingChoices(), TargetTraits(format="onnx", channel_multiple=8))


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
    by_name = {each.name: each for each in layers}

    def rounded(name: str, bits: int) -> nn.Module | None:
        if name == layers[0].name and bits == 8:
            return None
        each = by_name[name]
        rule = Rounded(each.weight, uniform(bits), each.channels)
        return with_rule(copy.deepcopy(model), name, rule)

    grown = sensitivities(model, dict.fromkeys(by_name, BITS), rounded, context, what="round")
    assert list(grown[layers[0].name]) == [2, 3, 4, 6]  # what cannot be done is left out
    grown[layers[0].name][8] = 0.0
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


def test_what_is_remembered_is_not_measured_again() -> None:
    model, context = make("mlp")
    notes: dict[str, Facts] = {}
    tried: list[tuple[str, float]] = []

    def remember(name: str, find: Find) -> Facts:
        if name not in notes:
            notes[name] = find()
        return notes[name]

    def changed(name: str, share: float) -> nn.Module:
        tried.append((name, share))
        return model

    def measured(levels: Sequence[float], what: str) -> dict[str, dict[float, float]]:
        known = replace(context, remember=remember)
        return sensitivities(model, {"a": levels}, changed, known, what=what)

    first = measured([0.5, 0.25], "x")
    assert tried == [("a", 0.25), ("a", 0.5)]
    assert measured([0.5, 0.25], "x") == first
    assert len(tried) == 2
    measured([0.5, 0.25], "y")
    measured([0.5], "x")
    assert len(tried) == 5


def test_a_loss_that_is_not_finite_is_the_worst() -> None:
    _, context = make("mlp")
    good = nn.Sequential(nn.Flatten(), nn.Linear(context.example[0][0].numel(), 10))
    bad = copy.deepcopy(good)
    torch.nn.init.constant_(bad.get_parameter("1.weight"), torch.nan)
    grown = sensitivities(
        good, {"1": (0.1, 0.2)}, lambda _, share: bad if share < 0.2 else good, context, what=""
    )
    assert grown["1"] == {0.1: 1e9, 0.2: 0.0}


def test_a_table_of_shares_names_what_goes() -> None:
    assert by_loss({"a": {0.1: 2.0, 0.25: 1.0, 1.0: 0.0}}) == {"a": {"0.9": 2.0, "0.75": 1.0}}


SHARES = (0.1, 0.25, 0.5, 1.0)


@settings(deadline=None, max_examples=80)
@given(
    st.lists(
        st.lists(st.floats(0, 9), min_size=len(SHARES), max_size=len(SHARES)),
        min_size=1,
        max_size=3,
    ),
    st.floats(0.01, 1.0),
    st.data(),
)
def test_shares_reach_the_mean_and_nothing_on_a_grid_predicts_less(
    losses: list[list[float]], mean: float, data: st.DataObject
) -> None:
    grown = {
        str(layer): dict(zip(SHARES, sorted(each, reverse=True), strict=True))
        for layer, each in enumerate(losses)
    }
    sizes = {name: data.draw(st.integers(1, 5)) for name in grown}
    given_shares = shared_out(grown, sizes, mean)
    total = sum(sizes.values())
    assert sum(given_shares[n] * sizes[n] for n in grown) == pytest.approx(mean * total)
    if mean < SHARES[0]:
        assert given_shares == dict.fromkeys(grown, mean)
        return
    predicted = sum(hull_at(grown[n], given_shares[n]) for n in grown)
    # A second implementation: everything that is tried, in every combination.
    for others in product(SHARES, repeat=len(grown)):
        other = dict(zip(grown, others, strict=True))
        if sum(other[n] * sizes[n] for n in grown) <= mean * total:
            assert sum(grown[n][other[n]] for n in grown) >= predicted - 1e-6


def hull_at(losses: dict[float, float], share: float) -> float:
    """The lower convex hull of points at a share: the least of all chords across it."""
    return min(
        losses[low] + (losses[high] - losses[low]) * ((share - low) / (high - low))
        for low in losses
        for high in losses
        if low < high and low - 1e-9 <= share <= high + 1e-9
    )
