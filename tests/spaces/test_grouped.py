"""Grouped and bottleneck forms of convolutions against closed forms."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from parefront.spaces.lowrank.config import FactorizationChoices, FactorizationConfig
from parefront.spaces.lowrank.grouped import (
    energy_held,
    factorize_grouped,
    grouped_size,
    groupings,
)
from parefront.spaces.lowrank.separable import factorize_separable
from parefront.spaces.lowrank.svd import Factorization
from parefront.spaces.stage import TargetTraits
from tests.zoo import make


def random(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def kernel(parts: nn.Sequential) -> torch.Tensor:
    """The one kernel that computes what both parts do."""
    first, second = parts[0], parts[1]
    assert isinstance(first, nn.Conv2d)
    width = len(first.weight) // first.groups
    spread = first.weight.new_zeros(len(first.weight), first.in_channels, *first.kernel_size)
    each = first.in_channels // first.groups
    for group in range(first.groups):
        rows = slice(group * width, (group + 1) * width)
        spread[rows, group * each : (group + 1) * each] = first.weight[rows].detach()
    return torch.einsum("om,mihw->oihw", second.get_parameter("weight").detach()[..., 0, 0], spread)


@pytest.mark.parametrize(
    "layer",
    [
        nn.Conv2d(16, 24, 3, padding=1),
        nn.Conv2d(16, 24, 3, stride=2, padding=1, bias=False),
        nn.Conv2d(16, 24, (3, 5), padding="same", dilation=2),
        nn.Conv2d(16, 24, 3, padding=1, padding_mode="circular"),
        nn.Conv2d(2, 64, 3),
    ],
    ids=str,
)
def test_one_group_with_all_kernels_is_the_same_layer(layer: nn.Conv2d) -> None:
    x = random(2, layer.in_channels, 9, 9)
    parts = factorize_grouped(layer, 1, layer.out_channels)
    torch.testing.assert_close(parts(x), layer(x), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(kernel(parts), layer.weight.detach(), rtol=1e-4, atol=1e-5)


@settings(deadline=None, max_examples=25)
@given(st.integers(1, 12), st.integers(0, 99))
def test_a_bottleneck_loses_what_eckart_and_young_say(kernels: int, seed: int) -> None:
    layer = nn.Conv2d(6, 12, 3)
    layer.weight = nn.Parameter(random(12, 6, 3, 3, seed=seed))
    lost = (kernel(factorize_grouped(layer, 1, kernels)) - layer.weight).square().sum()
    tail = torch.linalg.svdvals(layer.weight.detach().flatten(1))[kernels:].square().sum()
    torch.testing.assert_close(lost.detach(), tail, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("groups", [2, 3, 6])
def test_groups_lose_what_eckart_and_young_say_of_each(groups: int) -> None:
    layer = nn.Conv2d(6, 12, 3)
    layer.weight = nn.Parameter(random(12, 6, 3, 3))
    parts = factorize_grouped(layer, groups, 12)
    lost = (kernel(parts) - layer.weight).detach().square().sum()
    tails = torch.tensor(0.0)
    for group in layer.weight.detach().chunk(groups, dim=1):
        tails += torch.linalg.svdvals(group.flatten(1))[12 // groups :].square().sum()
    torch.testing.assert_close(lost, tails, rtol=1e-4, atol=1e-5)
    whole = layer.weight.detach().square().sum()
    assert energy_held(layer, groups) == pytest.approx(float(1 - tails / whole), rel=1e-4)
    assert sum(p.numel() for p in parts.parameters() if p.ndim > 1) == grouped_size(layer, groups)


def test_a_group_for_each_channel_is_the_separable_form() -> None:
    layer = nn.Conv2d(6, 12, 3, padding=1)
    x = random(2, 6, 7, 7)
    separable = factorize_separable(layer, 2)
    torch.testing.assert_close(factorize_grouped(layer, 6, 12)(x), separable(x))


def test_the_least_squares_of_each_group() -> None:
    """No other mixture of the same kernels is nearer to the dense one."""
    layer = nn.Conv2d(8, 8, 3, bias=False)
    parts = factorize_grouped(layer, 2, 8)
    first = parts[0].get_parameter("weight").detach()
    for group in (0, 1):
        rows = slice(4 * group, 4 * group + 4)
        basis = first[rows].flatten(1)
        wanted = layer.weight.detach()[:, rows].flatten(1)
        best = torch.linalg.lstsq(basis.T, wanted.T).solution.T
        found = parts[1].get_parameter("weight").detach()[:, rows, 0, 0]
        torch.testing.assert_close(found, best, rtol=1e-3, atol=1e-5)


def test_groupings_in_closed_form() -> None:
    assert groupings(nn.Conv2d(64, 64, 3), 8) == [2, 4, 8]
    assert groupings(nn.Conv2d(64, 32, 3), 8) == [2, 4]
    assert groupings(nn.Conv2d(64, 48, 3), 1) == [2, 4, 8, 16]
    assert groupings(nn.Conv2d(3, 64, 3), 1) == []  # the mixture alone is larger than the layer
    assert groupings(nn.Conv2d(8, 8, 3), 8) == []


def bound(**choices: object) -> Factorization:
    return Factorization(
        FactorizationChoices.model_validate(choices),
        TargetTraits(format="onnx", channel_multiple=8),
    )


@pytest.mark.parametrize(("ratio", "groups"), [(0.9, 2), (0.5, 4), (0.01, 4)])
def test_the_fewest_groups_that_are_small_enough(ratio: float, groups: int) -> None:
    # 9,216 weights in each: (9 / groups + 1) / 9 of them in two parts.
    model, context = make("resnet")
    config = FactorizationConfig(ratio=ratio, layers="conv", convolution="grouped", multiple=8)
    applied = bound().apply(model, config, context)
    assert applied.achieved["ranks"]["blocks.0.conv1"] == [32, 32, groups]
    assert "stem" in applied.achieved["left"]


def test_the_most_groups_that_hold_the_energy() -> None:
    model, context = make("resnet")
    layer = model.get_submodule("blocks.0.conv1")
    assert isinstance(layer, nn.Conv2d)
    for energy in (energy_held(layer, 2), energy_held(layer, 4)):
        config = FactorizationConfig(
            rank="energy", energy=energy, layers="conv", convolution="grouped", multiple=8
        )
        ranks = bound().apply(model, config, context).achieved["ranks"]["blocks.0.conv1"]
        assert energy_held(layer, ranks[2]) >= energy
        assert ranks[2] == 4 or energy_held(layer, 4) < energy


def test_nothing_to_do_is_said_of_what_cannot_be_grouped() -> None:
    _, context = make("mlp")
    model = nn.Sequential(nn.Conv2d(3, 5, 3))
    reason = bound(convolution="grouped").nothing_to_do(model, context)
    assert reason is not None
    assert reason.startswith("no layer can be factorised, such as 0: ")
