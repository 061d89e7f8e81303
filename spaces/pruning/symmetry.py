"""Whether channels that would be removed together really belong together.

Permuting the channels of a correct group, in every layer that writes or reads them, leaves the
function of the model unchanged: the layers only see their channels in another order. Where the
group is wrong, because channels are split into attention heads, added to a fixed input or read
by an operation that mixes them, the outputs change.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import nn

from parefront.spaces.inspection import run
from parefront.spaces.stage import Inputs

# Sums in another order differ by about 1e-6 in float32; a wrong group changes far more.
_TOLERANCE = 1e-4


@dataclass(frozen=True)
class Member:
    """One layer, operation or bare parameter of a group.

    Attributes:
        module: The layer, operation or parameter.
        written: Whether the channels are its outputs; its inputs otherwise.
        parameter_dim: Dimension of the channels in a bare parameter.
        channels: Its channels.
        roots: The channel of the group's root that each of `channels` follows.
    """

    module: nn.Module | nn.Parameter
    written: bool
    parameter_dim: int
    channels: Sequence[int]
    roots: Sequence[int | None]


@dataclass(frozen=True)
class Permutable:
    """A group as far as permuting it needs.

    Attributes:
        width: Number of channels of the root.
        blocks: Number of equal, consecutive blocks inside which channels may move.
        members: What writes or reads the channels.
    """

    width: int
    blocks: int
    members: Sequence[Member]


def is_symmetric(model: nn.Module, example: Inputs, groups: Sequence[Permutable]) -> bool:
    """Whether permuting the channels of all groups at once leaves the outputs unchanged.

    The model is permuted in place and put back, bit for bit.
    """
    moves: list[tuple[torch.Tensor, int, torch.Tensor]] = []
    for group in groups:
        permutation = _permutation(group.width, group.blocks)
        for member in group.members:
            for tensor, dim in _tensors(member):
                order = _order(member, permutation, tensor.shape[dim])
                if order is None:
                    return False
                moves.append((tensor, dim, order))
    before = run(model, example)
    for tensor, dim, order in moves:
        tensor.copy_(tensor.index_select(dim, order))
    try:
        after = run(model, example)
    finally:
        for tensor, dim, order in reversed(moves):
            tensor.copy_(tensor.index_select(dim, torch.argsort(order)))
    return all(close(a, b) for a, b in zip(before, after, strict=True))


def close(a: torch.Tensor, b: torch.Tensor) -> bool:
    """Whether two outputs differ by no more than sums in another order do."""
    if not a.is_floating_point() or a.numel() == 0:
        return torch.equal(a, b)
    return torch.allclose(a, b, rtol=0.0, atol=_TOLERANCE * a.abs().max().item(), equal_nan=True)


def _permutation(width: int, blocks: int) -> list[int]:
    """Where each channel comes from: another place of its block, the same in all blocks."""
    size = width // blocks
    cycle = torch.randperm(size, generator=torch.Generator().manual_seed(0))
    inside = torch.empty_like(cycle)
    inside[cycle] = cycle.roll(1)  # one cycle, so that no channel stays
    return [block * size + int(i) for block in range(blocks) for i in inside]


def _order(member: Member, permutation: Sequence[int], size: int) -> torch.Tensor | None:
    """Where each of `size` channels of a member comes from, or `None` if that cannot be said.

    A channel of the root may be several channels of a member, as when a feature map is flattened
    into a Linear layer. A grouped convolution holds the input channels of one block only.
    """
    places: dict[int, list[int]] = {root: [] for root in range(len(permutation))}
    for channel, root in zip(member.channels, member.roots, strict=True):
        if root is None:
            return None
        places[root].append(channel)
    if len({len(channels) for channels in places.values()}) != 1:
        return None
    order = torch.arange(max(size, max(member.channels) + 1))
    for root, source in enumerate(permutation):
        order[sorted(places[root])] = torch.tensor(sorted(places[source]))
    order = order[:size]
    return order if torch.equal(order.sort().values, torch.arange(size)) else None


def _tensors(member: Member) -> Iterator[tuple[torch.Tensor, int]]:
    """Tensors of a member that hold its channels, each with the dimension of the channels."""
    module = member.module
    if isinstance(module, nn.Parameter):
        yield module.data, member.parameter_dim
    elif isinstance(module, nn.Embedding):
        yield module.weight.data, 1
    elif isinstance(module, nn.Linear | nn.modules.conv._ConvNd):
        transposed = isinstance(module, nn.modules.conv._ConvNd) and module.transposed
        yield module.weight.data, int(member.written == transposed)
        if member.written and module.bias is not None:
            yield module.bias.data, 0
    else:  # normalisation, PReLU; operations have no tensors
        for tensor in (*module.parameters(recurse=False), *module.buffers(recurse=False)):
            if tensor.numel() > 1:
                yield tensor.data, tensor.dim() - 1
