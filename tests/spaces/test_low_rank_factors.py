"""Low-rank factors of matrices and layers, against closed forms."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from parefront.spaces.lowrank.layers import factorize, matrix_shape
from parefront.spaces.lowrank.matrix import chosen_rank, truncate


def random(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(0))


@settings(deadline=None)
@given(
    rows=st.integers(1, 300),
    columns=st.integers(1, 300),
    ratio=st.floats(0, 1, exclude_min=True),
    multiple=st.sampled_from([1, 4, 8]),
)
def test_ranks_save_parameters(rows: int, columns: int, ratio: float, multiple: int) -> None:
    rank = chosen_rank(rows, columns, ratio, multiple)
    if rank is None:
        assert multiple * (rows + columns) >= rows * columns
        return
    assert rank >= multiple
    assert rank % multiple == 0
    assert rank * (rows + columns) < rows * columns
    wanted = ratio * rows * columns / (rows + columns)
    assert rank <= max(wanted, multiple)
    larger = rank + multiple  # would be above what was wanted, or save nothing
    assert larger > wanted or larger * (rows + columns) >= rows * columns


def test_ranks_in_closed_form() -> None:
    # 64 x 64 breaks even at rank 32, where the factors have 32 * 128 = 4096 parameters.
    assert chosen_rank(64, 64, 0.5, 8) == 16
    assert chosen_rank(64, 64, 1.0, 1) == 31
    assert chosen_rank(64, 64, 1.0, 8) == 24
    assert chosen_rank(64, 64, 0.01, 8) == 8
    assert chosen_rank(4, 4, 1.0, 1) == 1
    assert chosen_rank(4, 4, 1.0, 2) is None
    assert chosen_rank(1, 100, 1.0, 1) is None


@settings(deadline=None)
@given(
    rows=st.integers(1, 12), columns=st.integers(1, 12), rank=st.integers(1, 12), seed=st.integers()
)
def test_the_error_is_the_energy_of_the_discarded_singular_values(
    rows: int, columns: int, rank: int, seed: int
) -> None:
    generator = torch.Generator().manual_seed(seed % 2**31)
    matrix = torch.randn(rows, columns, generator=generator, dtype=torch.float64)
    rank = min(rank, rows, columns)
    left, right = truncate(matrix, rank)
    assert left.shape == (rows, rank)
    assert right.shape == (rank, columns)
    # A second way to the singular values: eigenvalues of the Gram matrix.
    energy = torch.linalg.eigvalsh(matrix @ matrix.T).flip(0)
    error = (matrix - left @ right).square().sum()
    torch.testing.assert_close(error, energy[rank:].sum(), rtol=1e-6, atol=1e-9)
    # Both factors are equally large.
    torch.testing.assert_close(left.norm(), right.norm())


def full_rank(layer: nn.Linear | nn.Conv2d) -> nn.Sequential:
    return factorize(layer, min(matrix_shape(layer)))


@pytest.mark.parametrize("bias", [True, False])
def test_a_linear_layer_of_full_rank_is_the_layer(bias: bool) -> None:
    layer = nn.Linear(12, 20, bias=bias)
    x = random(3, 5, 12)
    torch.testing.assert_close(full_rank(layer)(x), layer(x), rtol=0, atol=1e-5)


CONVOLUTIONS: list[dict[str, Any]] = [
    {"kernel_size": 3},
    {"kernel_size": 3, "padding": 1, "bias": False},
    {"kernel_size": (5, 3), "padding": (2, 1), "stride": (2, 1)},
    {"kernel_size": (3, 5), "padding": (0, 4), "stride": (1, 3), "dilation": (1, 2)},
    {"kernel_size": (2, 3), "padding": "same", "dilation": (2, 3)},
    {"kernel_size": 3, "padding": "valid", "stride": 2},
    {"kernel_size": 1, "stride": 2},
    {"kernel_size": (1, 4), "padding": (0, 3)},
    {"kernel_size": 3, "padding": (1, 2), "padding_mode": "reflect"},
    {"kernel_size": 3, "padding": (2, 1), "padding_mode": "replicate"},
    {"kernel_size": (3, 5), "padding": (1, 2), "padding_mode": "circular", "stride": 2},
]


@pytest.mark.parametrize("arguments", CONVOLUTIONS, ids=str)
def test_a_convolution_of_full_rank_is_the_layer(arguments: dict[str, Any]) -> None:
    layer = nn.Conv2d(4, 6, **arguments)
    x = random(2, 4, 11, 13)
    torch.testing.assert_close(full_rank(layer)(x), layer(x), rtol=0, atol=1e-5)


def test_the_error_of_a_convolution_is_that_of_its_matrix() -> None:
    layer = nn.Conv2d(3, 5, (3, 2), bias=False)
    vertical, horizontal = factorize(layer, 4)
    # The kernel of the two together, found by what they do to single pixels.
    kernel = torch.einsum("nroj,rcio->ncij", horizontal.weight, vertical.weight)
    matrix = layer.weight.permute(0, 3, 1, 2).reshape(10, 9)
    energy = torch.linalg.eigvalsh(matrix @ matrix.T).flip(0)[4:].sum()
    torch.testing.assert_close((layer.weight - kernel).square().sum(), energy, rtol=1e-4, atol=0)


def test_type_mode_and_frozen_weights_are_the_layers() -> None:
    layer = nn.Linear(16, 16, dtype=torch.bfloat16).train()
    layer.weight.requires_grad_(False)
    parts = factorize(layer, 4)
    assert {p.dtype for p in parts.parameters()} == {torch.bfloat16}
    assert {n: p.requires_grad for n, p in parts.named_parameters()} == {
        "0.weight": False,
        "1.weight": False,
        "1.bias": True,
    }
    assert all(module.training for module in parts.modules())
    assert not any(module.training for module in factorize(layer.eval(), 4).modules())
    assert [type(part) for part in parts] == [nn.Linear, nn.Linear]
