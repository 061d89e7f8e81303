"""Depthwise-separable factors of convolutions against closed forms."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from parefront.spaces.inspection import count_parameters
from parefront.spaces.lowrank.config import FactorizationChoices, FactorizationConfig
from parefront.spaces.lowrank.separable import factorize_separable, separable_rank
from parefront.spaces.lowrank.svd import Factorization
from parefront.spaces.stage import TargetTraits
from tests.zoo import make


def random(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(0))


def kernel_of(parts: nn.Sequential, inputs: int) -> torch.Tensor:
    """The dense kernel that a depthwise and a pointwise convolution are."""
    depthwise, pointwise = (part.get_parameter("weight") for part in parts)
    outputs, rank = len(pointwise), len(depthwise) // inputs
    mixture = pointwise.reshape(outputs, inputs, rank)
    return torch.einsum("oir,irhw->oihw", mixture, depthwise.reshape(inputs, rank, 3, 3))


@pytest.mark.parametrize(
    "layer",
    [
        nn.Conv2d(8, 24, 3, padding=1),
        nn.Conv2d(8, 24, 3, stride=2, padding=1, bias=False),
        nn.Conv2d(8, 24, (3, 5), padding="same", dilation=2),
        nn.Conv2d(8, 24, 3, padding=1, padding_mode="circular"),
        nn.Conv2d(8, 4, 3),
    ],
    ids=str,
)
def test_at_full_rank_it_is_the_same_layer(layer: nn.Conv2d) -> None:
    x = random(2, 8, 9, 9)
    size = layer.kernel_size[0] * layer.kernel_size[1]
    parts = factorize_separable(layer, size)
    torch.testing.assert_close(parts(x), layer(x), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("rank", [1, 2, 5])
def test_the_error_is_what_each_channel_s_singular_values_leave(rank: int) -> None:
    layer = nn.Conv2d(6, 20, 3, bias=False)
    found = kernel_of(factorize_separable(layer, rank), 6)
    error = (found - layer.weight).square().sum()
    left = torch.zeros(())
    for channel in range(6):
        values = torch.linalg.svdvals(layer.weight[:, channel].reshape(20, 9))
        left = left + values[rank:].square().sum()
    torch.testing.assert_close(error, left, rtol=1e-4, atol=1e-5)


def test_a_separable_kernel_comes_back() -> None:
    kernel = random(20, 6)[:, :, None, None] * random(1, 6, 3, 3)
    layer = nn.Conv2d(6, 20, 3, bias=False)
    layer.weight = nn.Parameter(kernel)
    found = kernel_of(factorize_separable(layer, 1), 6)
    torch.testing.assert_close(found, kernel, rtol=1e-4, atol=1e-5)


@given(st.integers(1, 128), st.integers(1, 128), st.integers(2, 7), st.floats(0.01, 1))
def test_kernels_save_parameters(inputs: int, outputs: int, size: int, ratio: float) -> None:
    layer = nn.Conv2d(inputs, outputs, size, bias=False, device="meta")
    rank = separable_rank(layer, ratio)
    dense, each = outputs * inputs * size**2, inputs * (size**2 + outputs)
    if rank is None:
        assert max(1, int(ratio * dense / each)) * each >= dense
    else:
        assert 1 <= rank <= size**2
        assert rank * each < dense


def test_kernels_in_closed_form() -> None:
    # 64 outputs, 3x3: 576 / 73 = 7.9 kernels break even, half of it is 3.
    assert separable_rank(nn.Conv2d(64, 64, 3), 0.5) == 3
    assert separable_rank(nn.Conv2d(64, 64, 3), 0.01) == 1
    assert separable_rank(nn.Conv2d(64, 1, 3), 0.5) is None


def test_the_stage_makes_them_of_kernels_and_the_rest_as_before() -> None:
    model, context = make("cnn")
    stage = Factorization(FactorizationChoices(), TargetTraits(format="onnx", channel_multiple=8))
    config = FactorizationConfig(ratio=0.5, layers="all", convolution="separable", multiple=4)
    applied = stage.apply(model, config, context)
    depthwise = applied.model.get_submodule("features.4.0")
    assert isinstance(depthwise, nn.Conv2d)
    assert depthwise.groups == 16
    assert applied.achieved["ranks"]["features.4"][0] == 9
    assert count_parameters(applied.model) < count_parameters(model)
