"""Tucker-2 of convolutions against closed forms."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from parefront.spaces.inspection import count_parameters
from parefront.spaces.lowrank.config import FactorizationChoices, FactorizationConfig
from parefront.spaces.lowrank.svd import Factorization
from parefront.spaces.lowrank.tucker import factorize_tucker, tucker, tucker_ranks
from parefront.spaces.stage import TargetTraits
from tests.zoo import make


def random(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def rebuilt(parts: tuple[torch.Tensor, torch.Tensor, torch.Tensor]) -> torch.Tensor:
    inward, core, outward = parts
    return torch.einsum("srhw,os,ri->oihw", core, outward, inward)


def test_a_kernel_of_low_rank_comes_back() -> None:
    kernel = rebuilt((random(3, 10), random(4, 3, 3, 3), random(12, 4)))
    torch.testing.assert_close(rebuilt(tucker(kernel, 3, 4)), kernel, rtol=1e-4, atol=1e-4)


@settings(deadline=None, max_examples=30)
@given(st.integers(1, 6), st.integers(1, 7), st.integers(0, 99))
def test_the_factors_are_orthogonal_and_no_worse_than_singular_vectors(
    first: int, second: int, seed: int
) -> None:
    kernel = random(7, 6, 3, 3, seed=seed)
    inward, core, outward = tucker(kernel, first, second)
    torch.testing.assert_close(inward @ inward.T, torch.eye(first), rtol=0, atol=1e-5)
    torch.testing.assert_close(outward.T @ outward, torch.eye(second), rtol=0, atol=1e-5)
    error = (rebuilt((inward, core, outward)) - kernel).square().sum()
    # A second implementation: projects on the singular vectors of each side, once.
    u = torch.linalg.svd(kernel.flatten(1)).U[:, :second]
    v = torch.linalg.svd(kernel.movedim(1, 0).flatten(1)).U[:, :first]
    once = torch.einsum("oihw,oa,pa,ib,jb->pjhw", kernel, u, u, v, v)
    assert error <= (once - kernel).square().sum() * (1 + 1e-5) + 1e-6
    # What is lost is what the core does not hold, since the factors are orthogonal.
    lost = kernel.square().sum() - core.square().sum()
    torch.testing.assert_close(error, lost, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize(
    "layer",
    [
        nn.Conv2d(16, 24, 3, padding=1),
        nn.Conv2d(16, 24, 3, stride=2, padding=1, bias=False),
        nn.Conv2d(16, 24, (3, 5), padding="same", dilation=2),
        nn.Conv2d(16, 24, 3, padding=1, padding_mode="circular"),
    ],
    ids=str,
)
def test_at_full_rank_it_is_the_same_layer(layer: nn.Conv2d) -> None:
    x = random(2, 16, 9, 9)
    parts = factorize_tucker(layer, 16, 24)
    torch.testing.assert_close(parts(x), layer(x), rtol=1e-4, atol=1e-5)


@given(
    st.integers(1, 128), st.integers(1, 128), st.integers(1, 7),
    st.floats(0, 1, exclude_min=True), st.sampled_from([1, 4, 8]),
)  # fmt: skip
def test_ranks_save_parameters(
    inputs: int, outputs: int, size: int, ratio: float, multiple: int
) -> None:
    layer = nn.Conv2d(inputs, outputs, size, bias=False, device="meta")
    found = tucker_ranks(layer, ratio, multiple)
    if found is not None:
        first, second = found
        assert first % multiple == second % multiple == 0
        kept = inputs * first + first * second * size**2 + second * outputs
        assert 0 < kept < inputs * outputs * size**2


def test_ranks_in_closed_form() -> None:
    # 64 -> 64, 3x3: 9 s^2 + 2 s = 9 at s = 0.895; half of it is 28.6 channels.
    layer = nn.Conv2d(64, 64, 3)
    assert tucker_ranks(layer, 0.5, 1) == (28, 28)
    assert tucker_ranks(layer, 0.5, 8) == (24, 24)
    assert tucker_ranks(nn.Conv2d(4, 64, 3), 0.5, 8) is None


def test_the_stage_factorises_kernels_so_and_the_rest_as_before() -> None:
    model, context = make("cnn")
    stage = Factorization(FactorizationChoices(), TargetTraits(format="onnx", channel_multiple=8))
    config = FactorizationConfig(ratio=0.8, layers="all", convolution="tucker", multiple=4)
    applied = stage.apply(model, config, context)
    assert len(applied.model.get_submodule("features.4")) == 3  # type: ignore[arg-type]
    assert applied.achieved["ranks"]["features.4"][:2] == [16, 32]
    assert count_parameters(applied.model) < count_parameters(model)
    assert any(len(ranks) == 2 for ranks in applied.achieved["ranks"].values())
