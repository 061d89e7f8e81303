"""Parts of a model that can be skipped: they give tensors of the shape they are given.

Such are residual blocks, the layers of a transformer and hidden layers between equal widths.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import torch
from torch import nn

from parefront.errors import StageError
from parefront.spaces.inspection import brief, count_parameters, run
from parefront.spaces.stage import Inputs

LEAST = 256
"""Elements of its largest matrix or kernel below which a part is left alone."""
CONTAINERS = (nn.Sequential, nn.ModuleList)
_STACKS = (nn.TransformerEncoder, nn.TransformerDecoder)


class Skip(nn.Module):
    """Stands where a part was, and gives back a copy of the first of its inputs.

    A copy, because what follows a part may change in place what it is given, which is then the
    model's own input or a shortcut around the part. In an exported file it costs nothing.

    Args:
        part: The part that was there.
        fields: How many fields it gave in a tuple, of which the first counts and the others are
            `None`; 0 if it gave a tensor.
    """

    def __init__(self, part: nn.Module, fields: int = 0) -> None:
        super().__init__()
        self.fields = fields
        self.train(part.training)
        attention = getattr(part, "self_attn", None)
        if attention is not None and hasattr(attention, "batch_first"):
            # nn.TransformerEncoder asks its first layer for this, whatever the layer does.
            self.self_attn = SimpleNamespace(batch_first=attention.batch_first)

    def forward(self, first: torch.Tensor, *others: Any, **options: Any) -> object:  # noqa: ANN401, ARG002
        """The first input, whatever else is given, such as masks."""
        return (first.clone(), *[None] * (self.fields - 1)) if self.fields else first.clone()


@dataclass(frozen=True)
class Part:
    """A part that can be skipped.

    Attributes:
        name: Name of the part in the model; the first of several.
        module: The part itself.
        fields: How many fields it gives in a tuple, of which only the first is not `None`; 0 if it
            gives a tensor.
    """

    name: str
    module: nn.Module
    fields: int = 0


def dense(model: nn.Module) -> nn.Module:
    """A copy in evaluation mode whose transformers never compute with nested tensors.

    Nested tensors have no shape to compare, and `nn.TransformerEncoder` looks into its first layer
    to see whether it can use them.
    """
    work = copy.deepcopy(model).eval()
    _without_nested_tensors(work)
    return work


def find_parts(
    model: nn.Module, example: Inputs, tick: Callable[[], None]
) -> tuple[list[Part], dict[str, str]]:
    """The parts that can be skipped one at a time, in the order of the model.

    A part counts if it is in an `nn.Sequential` or `nn.ModuleList` (such as the layers of an
    `nn.TransformerEncoder`), holds a weight of at least `LEAST` elements, and gives one tensor of
    the shape and type of its first input, whenever it is called; alone, or first in a tuple of
    which all else is `None`. Of parts within each other the
    outermost counts, unless it is only a row of others: an `nn.Sequential` of blocks, or a whole
    transformer.

    Args:
        model: The model, as `dense` gives it; it is as it was afterwards.
        example: Example inputs.
        tick: Called between steps.

    Returns:
        The parts, and why other parts that keep the shape cannot be skipped, by name.

    Raises:
        StageError: If the model does not run on the example.
    """
    try:
        expected = _signature(run(model, example))
        keeping = _shape_keeping(model, example)
    except Exception as error:  # a user's forward pass may raise anything
        raise StageError(f"the model does not run on its example: {brief(error)}") from error
    found, left = [], {}
    for part in _outermost(model, keeping, set()):
        tick()
        calls: list[object] = []
        handle = part.module.register_forward_hook(lambda *call, calls=calls: calls.append(call[0]))
        with skipped(model, part):
            reason = why_not(model, example, expected)
        handle.remove()
        if reason is None and calls:
            reason = "it is also called from where it is not registered, such as a plain list"
        if reason is None:
            found.append(part)
        else:
            left[part.name] = reason
    return found, left


def without(model: nn.Module, parts: Sequence[Part], example: Inputs) -> nn.Module:
    """A copy of the model that skips some parts.

    Args:
        model: The model.
        parts: The parts, as `find_parts` gives them of the model or a copy.
        example: Example inputs.

    Raises:
        StageError: If the model without them does not run, gives outputs of another shape, or has
            no parameter left.
    """
    expected = _signature(run(dense(model), example))
    result = copy.deepcopy(model)
    for part, module in [(part, result.get_submodule(part.name)) for part in parts]:
        put(result, module, Skip(module, part.fields))
    for stack in [m for m in result.modules() if isinstance(m, nn.TransformerEncoder)]:
        if any(isinstance(layer, Skip) for layer in stack.layers):
            _without_nested_tensors(stack)
    reason = why_not(result, example, expected)
    if reason is not None:
        names = ", ".join(part.name for part in parts)
        raise StageError(f"the model cannot do without {names}: {reason}; remove a smaller share")
    return result


@contextmanager
def skipped(model: nn.Module, part: Part) -> Iterator[None]:
    """Skips a part of the model while inside."""
    skip = Skip(part.module, part.fields)
    put(model, part.module, skip)
    try:
        yield
    finally:
        put(model, skip, part.module)


def why_not(
    model: nn.Module, example: Inputs, expected: list[tuple[torch.Size, torch.dtype]]
) -> str | None:
    """Why a model with skipped parts is no model any more, or `None` if it is."""
    if not count_parameters(model):
        return "no parameter would be left"
    try:
        found = _signature(run(model, example))
    except Exception as error:  # noqa: BLE001 - a user's forward pass may raise anything
        return f"it does not run: {brief(error)}"
    if found != expected:
        shapes = [[list(shape) for shape, _ in each] for each in (expected, found)]
        return f"the outputs change from {shapes[0]} to {shapes[1]}"
    return None


def _signature(outputs: list[torch.Tensor]) -> list[tuple[torch.Size, torch.dtype]]:
    return [(output.shape, output.dtype) for output in outputs]


def put(model: nn.Module, old: nn.Module, new: nn.Module) -> None:
    """Puts a module wherever another one is registered."""
    for holder in list(model.modules()):
        for name, child in list(holder._modules.items()):
            if child is old:
                setattr(holder, name, new)


def _without_nested_tensors(model: nn.Module) -> None:
    for module in model.modules():
        if isinstance(module, nn.TransformerEncoder):
            module.use_nested_tensor = False


def _shape_keeping(model: nn.Module, example: Inputs) -> dict[nn.Module, int]:
    """Modules that give one tensor like their first input in every call, as `Part.fields`."""
    verdicts: dict[nn.Module, int | None] = {}

    def judge(module: nn.Module, inputs: tuple[object, ...], output: object) -> None:
        first = inputs[0] if inputs else None
        fields = len(output) if type(output) is tuple else 0
        if isinstance(output, tuple) and fields and all(each is None for each in output[1:]):
            output = output[0]
        keeps = (
            isinstance(first, torch.Tensor)
            and isinstance(output, torch.Tensor)
            and output.shape == first.shape
            and output.dtype == first.dtype
        )
        agrees = keeps and verdicts.get(module, fields) == fields
        verdicts[module] = fields if agrees else None

    # A transformer's layers take no fused path, which calls no inner layer, while they have hooks.
    handles = [module.register_forward_hook(judge) for module in model.modules()]
    try:
        run(model, example)
    finally:
        for handle in handles:
            handle.remove()
    return {module: fields for module, fields in verdicts.items() if fields is not None}


def _outermost(
    model: nn.Module, keeping: Mapping[nn.Module, int], seen: set[nn.Module], prefix: str = ""
) -> Iterator[Part]:
    for name, child in model.named_children():
        if child in seen:
            continue
        seen.add(child)
        path = f"{prefix}{name}"
        within = isinstance(model, CONTAINERS) and child in keeping and not _row(child, keeping)
        if within and large(child):
            yield Part(path, child, keeping[child])
        else:
            yield from _outermost(child, keeping, seen, f"{path}.")


def large(module: nn.Module) -> bool:
    """Whether a module holds a weight of at least `LEAST` elements."""
    return any(p.ndim > 1 and p.numel() >= LEAST for p in module.parameters())


def _row(module: nn.Module, keeping: Collection[nn.Module]) -> bool:
    """Whether a module is only a row of blocks, each of which has layers and can be skipped."""
    if isinstance(module, _STACKS):
        return True
    # A subclass with a forward pass of its own, such as one with a shortcut, is a block.
    plain = isinstance(module, nn.Sequential) and type(module).forward is nn.Sequential.forward
    blocks = [child for child in module.children() if any(True for _ in child.children())]
    return plain and any(block in keeping and large(block) for block in blocks)
