"""Ranks by energy against Eckart and Young."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError
from torch import nn

from parefront.errors import StageError
from parefront.spaces.lowrank.config import FactorizationChoices, FactorizationConfig
from parefront.spaces.lowrank.energy import (
    energy_rank,
    energy_separable_rank,
    energy_tucker_ranks,
    rank_holding,
)
from parefront.spaces.lowrank.layers import as_matrix, factorize
from parefront.spaces.lowrank.separable import factorize_separable
from parefront.spaces.lowrank.svd import Factorization
from parefront.spaces.lowrank.tucker import tucker
from parefront.spaces.stage import TargetTraits
from tests.zoo import make, weight

TARGET = TargetTraits(format="onnx", channel_multiple=8)


def decaying(rows: int, columns: int, base: float = 0.7) -> torch.Tensor:
    """A matrix with the singular values 1, base, base ** 2 ..."""
    generator = torch.Generator().manual_seed(0)
    u, _, vh = torch.linalg.svd(
        torch.randn(rows, columns, generator=generator, dtype=torch.double), full_matrices=False
    )
    matrix: torch.Tensor = (u * base ** torch.arange(min(rows, columns))) @ vh
    return matrix


def config(energy: float, **fields: Any) -> FactorizationConfig:
    given = {"rank": "energy", "energy": energy, "layers": "all", "multiple": 1, **fields}
    return FactorizationConfig.model_validate(given)


def test_ranks_in_closed_form() -> None:
    values = torch.tensor([3.0, 2.0, 1.0, 1.0])  # 9, 4, 1, 1 of 15
    assert rank_holding(values, 9 / 15) == 1
    assert rank_holding(values, 9.1 / 15) == 2
    assert rank_holding(values, 14 / 15) == 3
    assert rank_holding(values, 1.0) == 4
    assert rank_holding(torch.zeros(4), 0.5) == 1


@settings(deadline=None, max_examples=40)
@given(st.integers(2, 20), st.integers(2, 20), st.floats(0.05, 0.999), st.integers(0, 99))
def test_the_error_is_that_of_eckart_and_young(
    rows: int, columns: int, share: float, seed: int
) -> None:
    layer = nn.Linear(columns, rows, bias=False).double()
    generator = torch.Generator().manual_seed(seed)
    matrix = torch.randn(rows, columns, generator=generator, dtype=torch.double)
    layer.weight = nn.Parameter(matrix)
    values = torch.linalg.svdvals(matrix)
    rank = rank_holding(values, share)
    parts = factorize(layer, rank)
    rebuilt = parts.get_parameter("1.weight") @ parts.get_parameter("0.weight")
    error = (rebuilt - matrix).square().sum()
    torch.testing.assert_close(error, values[rank:].square().sum(), rtol=1e-6, atol=1e-9)
    allowed = (1 - share) * matrix.square().sum()
    assert error <= allowed + 1e-9
    if rank > 1:  # one less would lose too much
        assert values[rank - 1 :].square().sum() > allowed - 1e-9


@settings(deadline=None, max_examples=40)
@given(
    st.integers(1, 40), st.integers(1, 40), st.floats(0.3, 1.0), st.sampled_from([1, 4, 8]),
    st.floats(0.3, 1.0),
)  # fmt: skip
def test_ranks_are_rounded_and_save(
    rows: int, columns: int, share: float, multiple: int, base: float
) -> None:
    matrix = decaying(rows, columns, base)
    rank = energy_rank(matrix, share, multiple)
    least = rank_holding(torch.linalg.svdvals(matrix), share)
    rounded = -(-least // multiple) * multiple
    if rounded * (rows + columns) < rows * columns:
        assert rank == rounded
    else:
        assert rank is None


@pytest.mark.parametrize("share", [0.3, 0.6, 0.9])
def test_what_is_asked_of_kernels_is_held(share: float) -> None:
    layer = nn.Conv2d(12, 16, 3).double()
    u = decaying(16, 12 * 9, 0.6).reshape(16, 12, 3, 3)
    layer.weight = nn.Parameter(u)
    whole = u.square().sum()
    ranks = energy_tucker_ranks(layer, share, 1)
    assert ranks is not None
    _, core, _ = tucker(u, *ranks)
    assert core.square().sum() >= share * whole  # the factors are orthogonal
    rank = energy_separable_rank(layer, share)
    assert rank is not None
    parts = factorize_separable(layer, rank)
    kernels = parts.get_parameter("0.weight").reshape(12, rank, 3, 3)
    mixture = parts.get_parameter("1.weight").reshape(16, 12, rank)
    rebuilt = torch.einsum("oir,irhw->oihw", mixture, kernels)
    assert (rebuilt - u).square().sum() <= (1 - share) * whole + 1e-9
    if rank > 1:
        parts = factorize_separable(layer, rank - 1)
        kernels = parts.get_parameter("0.weight").reshape(12, rank - 1, 3, 3)
        mixture = parts.get_parameter("1.weight").reshape(16, 12, rank - 1)
        rebuilt = torch.einsum("oir,irhw->oihw", mixture, kernels)
        assert (rebuilt - u).square().sum() > (1 - share) * whole


def test_layers_of_one_model_get_ranks_of_their_own() -> None:
    model, context = make("mlp")
    with torch.no_grad():
        weight(model.get_submodule("layers.0")).copy_(decaying(128, 64, 0.3))
    stage = Factorization(
        FactorizationChoices.model_validate({"rank": "energy", "multiple": 1}), TARGET
    )
    applied = stage.apply(model, config(0.9), context)
    assert applied.achieved["ranks"] == {"layers.0": [64, 1], "layers.4": [10, 9]}
    said = "no rank that is a multiple of 1 and holds 0.9 of the energy saves parameters"
    assert applied.achieved["left"] == {"layers.2": said}


def test_what_lies_between_a_ratio_and_an_energy_is_refused() -> None:
    for fields in (
        {"rank": "energy", "ratio": 0.5},
        {"rank": "ratio", "energy": 0.5},
        {"rank": "energy"},
        {"ratio": 0.5, "energy": 0.5},
    ):
        with pytest.raises(ValidationError, match=r"expected an? (ratio|energy) and no"):
            FactorizationConfig.model_validate({"layers": "all", "multiple": 8, **fields})
    with pytest.raises(ValidationError, match=r"fractions of the energy within \(0, 1\]"):
        FactorizationChoices.model_validate({"energy": [0.0, 0.5]})


def test_a_weight_that_is_not_finite_fails_by_name() -> None:
    model, context = make("mlp")
    with torch.no_grad():
        weight(model.get_submodule("layers.4"))[0, 0] = torch.inf
    stage = Factorization(FactorizationChoices.model_validate({"rank": "energy"}), TARGET)
    with pytest.raises(StageError, match=r"cannot factorise layers\.4: its weight is not finite"):
        stage.apply(model, config(0.5), context)


def test_nothing_to_do_asks_for_the_least_energy() -> None:
    _, context = make("mlp")
    model = nn.Sequential(nn.Linear(32, 32))
    model[0].weight = nn.Parameter(torch.eye(32))
    choices = FactorizationChoices.model_validate({"rank": "energy", "energy": [0.8, 0.9]})
    reason = Factorization(choices, TARGET).nothing_to_do(model, context)
    assert reason == (
        "no layer can be factorised, such as 0: no rank that is a multiple of 8 and holds "
        "0.8 of the energy saves parameters"
    )
    choices = FactorizationChoices.model_validate({"rank": "energy", "energy": [0.2, 0.9]})
    assert Factorization(choices, TARGET).nothing_to_do(model, context) is None


def test_a_matrix_is_what_spatial_factors_are_made_of() -> None:
    layer = nn.Conv2d(3, 4, (3, 5))
    assert as_matrix(layer).shape == (4 * 5, 3 * 3)
