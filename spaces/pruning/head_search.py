"""Where the heads of attentions may be, by the widths of layers, attributes and order of calls."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations

import torch
from torch import nn

from parefront.spaces.inspection import run
from parefront.spaces.stage import Inputs

_SIZE = re.compile(r".*head.*(dim|size|width|channels)|.*dim.*head|d_(head|k|v|kv)|.*proj_dim")
_COUNT = re.compile(r".*heads?")


@dataclass(frozen=True, eq=False)
class Slices:
    """What of a Linear layer's outputs, or inputs, is each head's.

    Attributes:
        layer: Name of the layer.
        places: `(heads, channels)`: the channels of each head.
    """

    layer: str
    places: torch.Tensor


@dataclass(frozen=True, eq=False)
class HeadGroup:
    """An attention with heads that are removed from several layers at once.

    Attributes:
        name: Name of the attention in the model.
        heads: Number of heads; those that share keys and values count as one.
        writers: The projections of queries, keys and values, by their outputs.
        reader: The output projection, by its inputs.
        attributes: Integers of the attention that grow with the heads, and how much with each.
    """

    name: str
    heads: int
    writers: tuple[Slices, ...]
    reader: Slices
    attributes: tuple[tuple[str, int], ...]


def guesses(model: nn.Module, example: Inputs) -> tuple[dict[str, list[HeadGroup]], dict[str, str]]:
    """What may be attentions with heads: modules with Linear layers that speak of heads.

    Such a module has an integer named like a number of heads (`num_heads`, `n_head`, `heads`) or a
    width of one (`head_dim`, `attention_head_size`). The first of its own Linear layers that run
    are projections of queries, keys and values, or of two or three of them at once; the next one
    in the model that reads as many channels is the output projection.

    Args:
        model: The model.
        example: Example inputs.

    Returns:
        For each attention what it may be, the most likely first, and why other modules that speak
        of heads are none, by name.
    """
    names = {layer: name for name, layer in model.named_modules() if _plain(layer)}
    calls, alike = _calls(model, names, example)
    found: dict[str, list[HeadGroup]] = {}
    missed: dict[str, str] = {}
    for name, module in model.named_modules():
        if isinstance(module, nn.MultiheadAttention):
            continue
        own = {names[child] for child in module.children() if child in names}
        speaks = any(_SIZE.fullmatch(n) or _COUNT.fullmatch(n) for n in _integers(module))
        if speaks and any(True for _ in module.parameters()):
            groups, reason = _guess(model, name, own, calls)
            if groups:
                found[name] = groups
            else:
                missed[name] = reason
        elif any(projections <= own for projections in alike):
            missed[name] = "it has no attribute that says how many heads it has"
    within = [f"{name}." for name in (*found, *missed)]
    for name in list(missed):  # a module that only holds attentions
        inside = f"{name}." if name else ""
        if any(other.startswith(inside) for other in within if other != f"{name}."):
            del missed[name]
    return found, missed


def _guess(
    model: nn.Module, name: str, own: set[str], calls: Sequence[str]
) -> tuple[list[HeadGroup], str]:
    """What a module that speaks of heads may be, or why it is no attention."""
    if not own:
        return [], "its projections are not plain Linear layers of its own"
    called = list(dict.fromkeys(layer for layer in calls if layer in own))
    if not called:
        return [], "its layers do not run on the example"
    groups = [
        group
        for count in (3, 2, 1)
        if len(called) >= count
        for group in _variants(model, name, called[:count], calls)
    ]
    return groups, "its Linear layers are not those of an attention with equal heads"


def _variants(
    model: nn.Module, name: str, writers: Sequence[str], calls: Sequence[str]
) -> Iterator[HeadGroup]:
    """Ways in which some layers may be the projections of an attention."""
    widths = [_linear(model, writer).out_features for writer in writers]
    last = max(calls.index(writer) for writer in writers)
    reader = next(
        (
            layer
            for layer in calls[last + 1 :]
            if layer not in writers
            and _linear(model, layer).in_features
            in (widths if len(writers) > 1 else [widths[0] // 3])
        ),
        None,
    )
    if reader is None:
        return
    read = _linear(model, reader).in_features
    # Two layers are one of queries and one of keys and values, one layer is one of all three.
    parts = {3: [1, 1, 1], 2: [1 if width == read else 2 for width in widths], 1: [3]}[len(writers)]
    if sum(parts) != 3 or (len(writers) < 3 and sum(widths) != 3 * read):
        return
    module = model.get_submodule(name)
    integers = _integers(module)
    grown = [n for n, value in integers.items() if value in (read, *widths)]
    for heads in _numbers(integers, [w // p for w, p in zip(widths, parts, strict=True)], read):
        counts = [
            (n, value // heads)
            for n, value in integers.items()
            if _COUNT.fullmatch(n) and not _SIZE.fullmatch(n) and value % heads == 0
        ]
        sized = [n for n in grown if n not in dict(counts)]
        for side_by_side in (True, False) if len(writers) < 3 else (True,):
            slices = tuple(
                Slices(writer, _places(width, heads, part if side_by_side else 1))
                for writer, width, part in zip(writers, widths, parts, strict=True)
            )
            for chosen in _subsets(sized):
                amounts = [(n, integers[n] // heads) for n in chosen]
                attributes = (*counts, *amounts)
                yield HeadGroup(
                    name, heads, slices, Slices(reader, _places(read, heads, 1)), attributes
                )


def _numbers(integers: Mapping[str, int], widths: Sequence[int], read: int) -> list[int]:
    """How many heads there may be: as the attributes say, most first.

    Where heads share keys and values there are as many as of these.
    """
    numbers = set()
    for name, value in integers.items():
        if _SIZE.fullmatch(name):
            numbers |= {min(widths) // value} if value > 0 else set()
        elif _COUNT.fullmatch(name):
            numbers.add(value)
    divided = [n for n in numbers if n > 0 and all(width % n == 0 for width in (*widths, read))]
    return sorted(divided, reverse=True)


def _places(width: int, heads: int, parts: int) -> torch.Tensor:
    """The channels of each head in some parts, one after the other, each of all heads."""
    return torch.arange(width).view(parts, heads, -1).transpose(0, 1).reshape(heads, -1)


def _subsets(names: Sequence[str]) -> Iterator[tuple[str, ...]]:
    """All or some of a few names, most first; of many, all or none."""
    sizes = range(len(names), -1, -1) if len(names) <= 3 else (len(names), 0)
    for size in sizes:
        yield from combinations(names, size)


def _calls(
    model: nn.Module, names: Mapping[nn.Module, str], example: Inputs
) -> tuple[list[str], list[set[str]]]:
    """Layers in the order in which they run, and threes of equal ones that read one tensor."""
    calls: list[str] = []
    given: list[torch.Tensor] = []  # kept, so that no two have one address

    def keep(layer: nn.Module, inputs: tuple[torch.Tensor, ...]) -> None:
        calls.append(names[layer])
        given.append(inputs[0])

    handles = [layer.register_forward_pre_hook(keep) for layer in names]
    try:
        run(model, example)
    finally:
        for handle in handles:
            handle.remove()
    alike = [
        set(calls[at : at + 3])
        for at in range(len(calls) - 2)
        if given[at] is given[at + 1] is given[at + 2]
        and len({_linear(model, layer).out_features for layer in calls[at : at + 3]}) == 1
        and len(set(calls[at : at + 3])) == 3
    ]
    return calls, alike


def _plain(module: nn.Module) -> bool:
    """Whether a module is a Linear layer and nothing else."""
    return type(module) is nn.Linear and not (module._forward_hooks or module._forward_pre_hooks)


def _linear(model: nn.Module, name: str) -> nn.Linear:
    layer = model.get_submodule(name)
    if not isinstance(layer, nn.Linear):
        raise TypeError(f"expected {name} to be a Linear layer, got a {type(layer).__name__}")
    return layer


def _integers(module: nn.Module) -> dict[str, int]:
    """Integer attributes of a module itself."""
    return {name: value for name, value in vars(module).items() if type(value) is int}
