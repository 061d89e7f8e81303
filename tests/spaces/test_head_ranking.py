"""Which heads go, by their scores."""

from __future__ import annotations

import copy
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import nn

from parefront.spaces.pruning.head_groups import find_heads
from parefront.spaces.pruning.head_ranking import heads_to_remove, l2, random, taylor
from tests.spaces.attentions import HEADS, WIDTH, net


@pytest.mark.parametrize(
    ("ratio", "scope", "removed"),
    [
        (0.0, "uniform", {}),
        (0.25, "uniform", {"a": [1], "b": [0]}),
        (0.5, "uniform", {"a": [1, 2], "b": [0]}),
        (0.99, "uniform", {"a": [0, 1, 2], "b": [0]}),
        (0.5, "global", {"a": [0, 1, 2]}),
        (0.99, "global", {"a": [0, 1, 2], "b": [0]}),
    ],
)
def test_the_least_important_go_and_one_stays(
    ratio: float, scope: Any, removed: dict[str, list[int]]
) -> None:
    scores = {"a": torch.tensor([0.3, torch.nan, 0.2, 0.4]), "b": torch.tensor([0.5, 0.6])}
    assert heads_to_remove(scores, ratio, scope) == removed


def test_taylor_is_the_mean_size_of_each_examples_slope() -> None:
    model, context = net("separate")
    work, groups, _ = find_heads(model, context.example, context.tick)
    scores = taylor(work, groups, context)
    # The same by differences: a head's columns a little larger and smaller, in double precision.
    double = copy.deepcopy(model).double()
    (x,), y = next(context.calibration.batches(24))
    for at, group in enumerate(groups):
        slopes = []
        for head in range(HEADS):
            losses = []
            for step in (1e-4, -1e-4):
                moved = copy.deepcopy(double)
                weight = moved.get_parameter(f"layers.{at}.out_lin.weight")
                weight.data.view(WIDTH, HEADS, -1)[:, head] *= 1 + step
                with torch.no_grad():
                    losses.append(
                        nn.functional.cross_entropy(moved(x.double()), y, reduction="none")
                    )
            slopes.append(((losses[0] - losses[1]) / 2e-4).abs().mean())
        expected = torch.stack(slopes)
        torch.testing.assert_close(
            scores[group.name].double(), expected / expected.norm(), rtol=1e-3, atol=1e-4
        )


def test_l2_is_the_squares_of_all_weights_of_a_head() -> None:
    model, context = net("separate")
    work, groups, _ = find_heads(model, context.example, context.tick)
    scores = l2(work, groups, context)
    for at, group in enumerate(groups):
        layer = model.layers[at]
        squares = torch.zeros(HEADS)
        for head in range(HEADS):
            own = slice(8 * head, 8 * head + 8)
            for name in ("q_lin", "k_lin", "v_lin"):
                squares[head] += layer.get_parameter(f"{name}.weight").detach()[own].square().sum()
            squares[head] += layer.get_parameter("out_lin.weight").detach()[:, own].square().sum()
        torch.testing.assert_close(scores[group.name], squares / squares.mean())


def test_taylor_of_a_layer_that_runs_twice_is_of_both_runs() -> None:
    model, context = net("separate")
    model.layers[1] = model.layers[0]
    work, groups, _ = find_heads(model, context.example, context.tick)
    assert [group.name for group in groups] == ["layers.0"]
    assert taylor(work, groups, context)["layers.0"].norm() == pytest.approx(1.0)


def test_random_follows_the_seed() -> None:
    model, context = net("separate")
    work, groups, _ = find_heads(model, context.example, context.tick)
    first, second, other = (
        random(work, groups, replace(context, seed=seed))["layers.1"] for seed in (0, 0, 3)
    )
    assert torch.equal(first, second)
    assert not torch.equal(first, other)
