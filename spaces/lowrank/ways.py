"""How each kind of layer is factorised: the ranks that are wanted of it, and its parts."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Literal

import torch
from torch import nn

from parefront.spaces.lowrank.embedding import factorize_embedding
from parefront.spaces.lowrank.energy import (
    energy_rank,
    energy_separable_rank,
    energy_tucker_ranks,
)
from parefront.spaces.lowrank.grouped import (
    energy_held,
    factorize_grouped,
    grouped_size,
    groupings,
)
from parefront.spaces.lowrank.layers import Dense, as_matrix, factorize
from parefront.spaces.lowrank.matrix import chosen_rank
from parefront.spaces.lowrank.separable import factorize_separable, separable_rank
from parefront.spaces.lowrank.tucker import factorize_tucker, tucker_ranks

Convolution = Literal["spatial", "tucker", "separable", "grouped", "bottleneck"]


@dataclass(frozen=True)
class Wanted:
    """How much of a layer is to be kept.

    Attributes:
        share: The share, in (0, 1], of the rank at which nothing would be saved.
        multiple: Widths that are multiples of this run well on the target.
        energy: Whether it is a share of the squared sum of the singular values instead.
    """

    share: float
    multiple: int
    energy: bool = False


@dataclass(frozen=True)
class Plan:
    """What a layer is to become.

    Attributes:
        ranks: The full and the kept ranks; see `achieved` of the stage.
        make: Makes the parts.
    """

    ranks: list[int]
    make: Callable[[], nn.Module]


def plan(layer: Dense | nn.Embedding, convolution: Convolution, wanted: Wanted) -> Plan | None:
    """What a layer is to become, or `None` if nothing that is wanted saves parameters.

    Args:
        layer: The layer; its weight is finite if energy is wanted.
        convolution: How kernels larger than 1x1 are factorised.
        wanted: How much is to be kept.
    """
    if isinstance(layer, nn.Embedding):
        return _in_two(layer.weight, partial(factorize_embedding, layer), wanted)
    if isinstance(layer, nn.Conv2d) and max(layer.kernel_size) > 1:
        return KERNELS[convolution](layer, wanted)
    return _spatial(layer, wanted)


def why_not(wanted: Wanted) -> str:
    """Why a layer has no plan."""
    holding = f" and holds {wanted.share:g} of the energy" if wanted.energy else ""
    return f"no rank that is a multiple of {wanted.multiple}{holding} saves parameters"


def _in_two(matrix: torch.Tensor, make: Callable[[int], nn.Module], wanted: Wanted) -> Plan | None:
    """Two factors of a matrix, which `make` makes of a rank."""
    rows, columns = matrix.shape
    if wanted.energy:
        rank = energy_rank(matrix.detach(), wanted.share, wanted.multiple)
    else:
        rank = chosen_rank(rows, columns, wanted.share, wanted.multiple)
    return None if rank is None else Plan([min(rows, columns), rank], partial(make, rank))


def _spatial(layer: Dense, wanted: Wanted) -> Plan | None:
    return _in_two(as_matrix(layer), partial(factorize, layer), wanted)


def _tucker(layer: nn.Conv2d, wanted: Wanted) -> Plan | None:
    find = energy_tucker_ranks if wanted.energy else tucker_ranks
    ranks = find(layer, wanted.share, wanted.multiple)
    if ranks is None:
        return None
    full = [layer.in_channels, layer.out_channels]
    return Plan([*full, *ranks], partial(factorize_tucker, layer, *ranks))


def _separable(layer: nn.Conv2d, wanted: Wanted) -> Plan | None:
    find = energy_separable_rank if wanted.energy else separable_rank
    count = find(layer, wanted.share)
    if count is None:
        return None
    size = layer.kernel_size[0] * layer.kernel_size[1]
    return Plan([size, count], partial(factorize_separable, layer, count))


def _bottleneck(layer: nn.Conv2d, wanted: Wanted) -> Plan | None:
    return _in_two(layer.weight.flatten(1), partial(factorize_grouped, layer, 1), wanted)


def _grouped(layer: nn.Conv2d, wanted: Wanted) -> Plan | None:
    """With energy as many groups as hold it; else as few as leave this share of the weights."""
    possible = groupings(layer, wanted.multiple)
    if wanted.energy:
        groups = max((g for g in possible if energy_held(layer, g) >= wanted.share), default=None)
    else:
        most = wanted.share * layer.weight.numel()
        small = (g for g in possible if grouped_size(layer, g) <= most)
        groups = min(small, default=possible[-1] if possible else None)
    if groups is None:
        return None
    full = [layer.in_channels, layer.out_channels]
    return Plan([*full, groups], partial(factorize_grouped, layer, groups, layer.out_channels))


KERNELS: Mapping[Convolution, Callable[[nn.Conv2d, Wanted], Plan | None]] = {
    "spatial": _spatial,
    "tucker": _tucker,
    "separable": _separable,
    "grouped": _grouped,
    "bottleneck": _bottleneck,
}
"""How kernels larger than 1x1 are factorised."""
