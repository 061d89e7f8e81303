"""Blocks of a model that have the same form, and one block in the place of several."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping, Sequence

import torch
from torch import nn

from parefront.spaces.inspection import shared_weights
from parefront.spaces.pruning.parts import CONTAINERS, large

_OWN = frozenset(vars(nn.Module()))
"""What every module has, such as hooks."""


def equal_blocks(model: nn.Module) -> tuple[list[list[str]], dict[str, str]]:
    """Blocks of the same form that are in one `nn.Sequential` or `nn.ModuleList`.

    Such are the layers of an `nn.TransformerEncoder`, residual blocks of equal widths, and hidden
    layers between equal widths. Blocks have the same form if everything about them is equal but
    their weights: their types, shapes and settings. Of blocks within each other the outermost
    count.

    Args:
        model: The model; it is not changed.

    Returns:
        The names of each two or more blocks of one form, in the order of the model, and why other
        blocks of some size in such containers are left alone.
    """
    tied = shared_weights(model)
    names: dict[nn.Module, list[str]] = {}
    for name, module in model.named_modules(remove_duplicate=False):
        names.setdefault(module, []).append(name)
    found: list[list[str]] = []
    left: dict[str, str] = {}
    for path, container in _containers(model):
        rows: list[list[tuple[str, nn.Module]]] = []
        for name, child in container.named_children():
            each = f"{path}.{name}" if path else name
            if not large(child) or any(each.startswith(f"{b}.") for row in found for b in row):
                continue
            reason = _obstacle(each, child, tied, names)
            if reason is not None:
                left[each] = reason
                continue
            like = next((row for row in rows if _alike(row[0][1], child)), None)
            if like is None:
                rows.append([(each, child)])
            else:
                like.append((each, child))
        for row in rows:
            if len(row) > 1:
                found.append([name for name, _ in row])
            else:
                left[row[0][0]] = "no other block beside it has the same form"
    inside = tuple(f"{name}." for row in found for name in row)
    return found, {
        name: reason
        for name, reason in left.items()
        # Of a block around those that are shared nothing is left alone.
        if not name.startswith(inside)
        and not any(other.startswith(f"{name}.") for row in found for other in row)
    }


def with_shared(
    model: nn.Module, groups: Sequence[Sequence[str]], start: Mapping[str, torch.Tensor]
) -> nn.Module:
    """A copy of the model in which the first block of each group stands for all of it.

    Args:
        model: The model.
        groups: Names of the blocks that become one.
        start: Weights and buffers to begin with, by their names in the model.
    """
    result = copy.deepcopy(model)
    for group in groups:
        block = result.get_submodule(group[0])
        for name in group[1:]:
            parent, _, last = name.rpartition(".")
            setattr(result.get_submodule(parent), last, block)
    state = result.state_dict()
    with torch.no_grad():
        for name, value in start.items():
            state[name].copy_(value)
    return result


def mean_of(model: nn.Module, group: Sequence[str]) -> dict[str, torch.Tensor]:
    """The mean of the weights and running statistics of blocks, under the names of the first."""
    states = [model.get_submodule(name).state_dict() for name in group]
    return {
        f"{group[0]}.{key}": torch.stack([state[key] for state in states]).mean(0)
        for key, value in states[0].items()
        if value.is_floating_point()
    }


def _containers(model: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    for name, module in model.named_modules():
        if isinstance(module, CONTAINERS):
            yield name, module


def _obstacle(
    name: str,
    block: nn.Module,
    tied: Mapping[str, str],
    names: Mapping[nn.Module, Sequence[str]],
) -> str | None:
    inner = {f"{name}.{each}" if each else name for each, _ in block.named_modules()}
    for module in block.modules():
        if len(names[module]) > 1:
            return "it is used in several places already"
        if module._forward_hooks or module._forward_pre_hooks:
            return "it has hooks"
    for each in inner & tied.keys():
        if tied[each] not in inner:
            return f"a weight of it is also that of {tied[each]}"
    return None


def _alike(first: nn.Module, second: nn.Module) -> bool:
    """Whether two blocks compute the same but for their weights, as far as their state tells."""
    mine, other = list(first.named_modules()), list(second.named_modules())
    if [name for name, _ in mine] != [name for name, _ in other]:
        return False
    return all(_same(a, b) for (_, a), (_, b) in zip(mine, other, strict=True))


def _same(first: nn.Module, second: nn.Module) -> bool:
    if type(first) is not type(second) or first.training != second.training:
        return False
    for mine, other in (
        (first._parameters, second._parameters), (first._buffers, second._buffers),
    ):  # fmt: skip
        if [_form(each) for each in mine.items()] != [_form(each) for each in other.items()]:
            return False
    mine_own, other_own = (
        {key: value for key, value in vars(module).items() if key not in _OWN}
        for module in (first, second)
    )
    return mine_own.keys() == other_own.keys() and all(
        _equal(value, other_own[key]) for key, value in mine_own.items()
    )


def _form(named: tuple[str, torch.Tensor | None]) -> object:
    name, tensor = named
    if tensor is None:
        return name
    return name, tensor.shape, tensor.dtype, tensor.requires_grad


def _equal(first: object, second: object) -> bool:
    """Whether two settings are the same; those that are neither plain nor one object are not."""
    plain = (bool, int, float, str, bytes, type(None), torch.dtype, torch.device, torch.Size)
    if first is second:
        return True
    if type(first) is not type(second):
        return False
    if isinstance(first, plain):
        return first == second
    if isinstance(first, tuple | list) and isinstance(second, tuple | list):
        return len(first) == len(second) and all(map(_equal, first, second))
    return False
