"""Facts about a torch module that several stages need: size, outputs, shared weights."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import torch
from torch import nn

from parefront.spaces.stage import Inputs


def count_parameters(model: nn.Module) -> int:
    """Number of parameters; one that is shared counts once."""
    return sum(parameter.numel() for parameter in model.parameters())


def run(model: nn.Module, example: Inputs) -> list[torch.Tensor]:
    """The output tensors of one forward pass in evaluation mode, in a fixed order.

    The global random state and the mode of each module are left as they were. A model that draws
    random numbers draws the same ones in every call.
    """
    modes = {module: module.training for module in model.modules()}
    model.eval()
    try:
        with torch.no_grad(), torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            return list(tensors(model(*example)))
    finally:
        for module, training in modes.items():
            module.training = training


def tensors(value: object) -> Iterator[torch.Tensor]:
    """The tensors in what a module returned, however nested, in a fixed order."""
    if isinstance(value, torch.Tensor):
        yield value
    elif isinstance(value, Mapping):
        for item in value.values():
            yield from tensors(item)
    elif isinstance(value, Sequence) and not isinstance(value, str):
        for item in value:
            yield from tensors(item)


def shared_weights(model: nn.Module) -> dict[str, str]:
    """Modules that hold a parameter of another module, by name, with the other's name.

    A module that is registered under several names holds its own weights only once.
    """
    holders: dict[nn.Parameter, list[str]] = {}
    for name, module in model.named_modules():
        for parameter in module.parameters(recurse=False):
            holders.setdefault(parameter, []).append(name)
    return {
        name: next(other for other in names if other != name)
        for names in holders.values()
        if len(set(names)) > 1
        for name in names
    }


def other_matrices(model: nn.Module, types: tuple[type[nn.Module], ...]) -> dict[str, str]:
    """Modules besides those of some types that hold matrices themselves, with the names of theirs.

    Args:
        model: The model.
        types: Types that are left out, with all that derive from them.
    """
    return {
        name: type(module).__name__
        for name, module in model.named_modules()
        if not isinstance(module, types)
        and any(parameter.ndim > 1 for parameter in module.parameters(recurse=False))
    }


def brief(error: BaseException) -> str:
    """An error in one line: its type and the first line of its message."""
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0]}" if lines else type(error).__name__
