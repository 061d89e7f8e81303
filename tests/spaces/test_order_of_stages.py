"""Stages whose order is part of what is searched."""

from __future__ import annotations

from random import Random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from parefront.search.samplers.screening.drawn_space import DrawnSpace
from parefront.search.warm_start import drawn
from parefront.spaces.space import Candidate, Space
from parefront.spaces.stage import TargetTraits
from tests.exporting import assert_ships
from tests.zoo import make

TARGET = TargetTraits(format="onnx", channel_multiple=4)
SPACE = Space.of(
    {"prune": {"multiple": 1}, "factorize": {"first": [False, True], "multiple": 1}, "recover": {}},
    TARGET,
)
PRUNE = {"ratio": 0.5, "importance": "l2", "scope": "uniform", "multiple": 1}
THIN = {"ratio": 0.8, "layers": "all", "multiple": 1}


def draw(space: Space, seed: int) -> Candidate:
    found: list[Candidate] = []
    DrawnSpace(lambda trial: found.append(space.suggest(trial))).draw(Random(seed), {})
    return found[0]


@settings(deadline=None, max_examples=60)
@given(st.integers(0, 2**31))
def test_the_config_says_the_order(seed: int) -> None:
    candidate = draw(SPACE, seed)
    names = [name for name, _ in candidate.configs]
    configs: dict[str, Any] = dict(candidate.configs)
    if "factorize" in configs:
        first = configs["factorize"].first
        if "prune" in configs:
            assert (names.index("factorize") < names.index("prune")) == first
        else:
            assert not first  # nothing would be another candidate for it
    # All that is made of a candidate keeps its order.
    assert Candidate.of(candidate.as_dict()) == candidate
    assert SPACE.candidate(candidate.as_dict()) == candidate
    again = drawn(candidate.as_dict(), SPACE)
    assert again is not None
    assert again.candidate == candidate
    for sibling in SPACE.siblings(candidate):
        assert SPACE.candidate(sibling.as_dict()) == sibling


def test_both_orders_are_drawn() -> None:
    orders = {tuple(n for n, _ in draw(SPACE, seed).configs) for seed in range(60)}
    assert ("prune", "factorize", "recover") in orders
    assert ("factorize", "prune", "recover") in orders


@pytest.mark.parametrize("first", [True, False, [True, False]])
def test_every_anchor_can_be_drawn(first: object) -> None:
    space = Space.of({"prune": {}, "factorize": {"first": first}, "recover": {}}, TARGET)
    for anchor in space.anchors():
        assert drawn(anchor.as_dict(), space) is not None


def test_two_orders_are_two_candidates_and_two_models() -> None:
    model, context = make("mlp")
    made = {}
    for first in (False, True):
        candidate = SPACE.candidate({"prune": PRUNE, "factorize": {**THIN, "first": first}})
        stages = {stage.name: stage for stage in SPACE.stages}
        current: nn.Module = model
        for name, config in candidate.configs:
            current = stages[name].apply(current, config, context).model
        assert_ships(current, context)
        made[candidate.id] = [
            (each.in_features, each.out_features)
            for each in current.modules()
            if isinstance(each, nn.Linear)
        ]
    after, before = made.values()
    # Layers of 64 x 128, 128 x 128, 128 x 10. Pruned first, they are 64 x 64, 64 x 64, 64 x 10,
    # and 0.8 of their break-even ranks are 25, 25 and 6.
    assert after == [(64, 25), (25, 64), (64, 25), (25, 64), (64, 6), (6, 10)]
    # Factorised first, the ranks are 34, 51 and 7, of which a half stays.
    assert before == [(64, 17), (17, 64), (64, 25), (25, 64), (64, 3), (3, 10)]


def test_a_prefix_is_one_of_the_order() -> None:
    candidate = SPACE.candidate({"prune": PRUNE, "factorize": {**THIN, "first": True}})
    assert list(candidate.prefix(1).as_dict()) == ["factorize"]


@pytest.mark.parametrize("convolution", ["spatial", "tucker", "grouped", "bottleneck"])
@pytest.mark.parametrize("kind", ["cnn", "resnet"])
def test_pruning_narrows_the_parts_of_every_kind_of_factors(kind: str, convolution: str) -> None:
    model, context = make(kind)
    configs = {"prune": PRUNE, "factorize": {**THIN, "convolution": convolution, "first": True}}
    stages = {stage.name: stage for stage in SPACE.stages}
    sizes = [sum(each.numel() for each in model.parameters())]
    for name, config in SPACE.candidate(configs).configs:
        model = stages[name].apply(model, config, context).model
        sizes.append(sum(each.numel() for each in model.parameters()))
    assert sizes[0] > sizes[1] > sizes[2]
    assert_ships(model, context)


@pytest.mark.parametrize("kind", ["cnn", "resnet"])
def test_several_kernels_for_a_channel_keep_their_channels_and_it_is_said(kind: str) -> None:
    model, context = make(kind)
    thin = {**THIN, "convolution": "separable", "first": True}
    stages = {stage.name: stage for stage in SPACE.stages}
    achieved = {}
    for name, config in SPACE.candidate({"prune": PRUNE, "factorize": thin}).configs:
        applied = stages[name].apply(model, config, context)
        model, achieved[name] = applied.model, applied.achieved
    assert_ships(model, context)
    reasons = achieved["prune"]["skipped"].values()
    assert any("several kernels for each of its input channels" in reason for reason in reasons)
