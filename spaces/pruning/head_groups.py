"""Attention heads that can be removed from a model, and removing them.

A head is rows of the projections of queries, keys and values and columns of the output projection.
Where they are is guessed from widths, attributes and the order in which layers run, and a guess
counts only if the model without a head gives what it gives with the head's columns of the output
projection at zero.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

from parefront.errors import StageError
from parefront.spaces.inspection import brief, run, shared_weights
from parefront.spaces.pruning.attention import Attention
from parefront.spaces.pruning.head_search import HeadGroup, guesses
from parefront.spaces.pruning.parts import dense, put
from parefront.spaces.pruning.symmetry import close
from parefront.spaces.stage import Inputs

Edit = tuple[nn.Module, str, Any]


def find_heads(
    model: nn.Module, example: Inputs, tick: Callable[[], None]
) -> tuple[nn.Module, list[HeadGroup], dict[str, str]]:
    """The attentions of which heads can be removed.

    Args:
        model: The model; it is not changed.
        example: Example inputs.
        tick: Called between steps.

    Returns:
        A copy of the model in evaluation mode with `Attention` for each `nn.MultiheadAttention` it
        can stand for, what was found in it, and why every other attention keeps its heads.

    Raises:
        StageError: If the model does not run on the example.
    """
    work = dense(model)
    try:
        before = run(work, example)
        left = _unpacked(work)
        different = _difference(work, example, before)
        if different is not None:
            packed = {n for n, m in model.named_modules() if isinstance(m, nn.MultiheadAttention)}
            left = dict.fromkeys(packed, f"with separate projections {different}")
            work = dense(model)
        guessed, missed = guesses(work, example)
    except Exception as error:  # a user's forward pass may raise anything
        raise StageError(f"the model does not run on its example: {brief(error)}") from error
    left |= {name or "the model": reason for name, reason in missed.items()}
    shared = shared_weights(work)
    found: list[HeadGroup] = []
    for name, variants in guessed.items():
        tick()
        layers = [slices.layer for group in variants for slices in (*group.writers, group.reader)]
        tied = next((layer for layer in layers if layer in shared), None)
        if variants[0].heads == 1:
            left[name or "the model"] = "it has one head"
        elif tied is not None:
            left[name or "the model"] = f"the weight of {tied} is shared with {shared[tied]}"
        else:
            group, reason = _confirmed(work, example, variants)
            if group is not None:
                found.append(group)
            else:
                left[name or "the model"] = reason
    return work, found, left


def remove_heads(
    model: nn.Module, groups: Sequence[HeadGroup], removals: Mapping[str, Sequence[int]]
) -> nn.Module:
    """A copy of the model without some heads.

    Args:
        model: The model, as `find_heads` was given it.
        groups: What it found.
        removals: Heads to remove, by the name of their attention.
    """
    result = copy.deepcopy(model)
    _unpacked(result, removals)
    for group in groups:
        if group.name in removals:
            for owner, attribute, value in _edits(result, group, removals[group.name]):
                setattr(owner, attribute, value)
    return result


@contextmanager
def silenced(
    work: nn.Module, groups: Sequence[HeadGroup], removals: Mapping[str, Sequence[int]]
) -> Iterator[None]:
    """Puts zeros in the output projections where they read some heads, while inside."""
    edits: list[Edit] = []
    for group in groups:
        if group.name in removals:
            layer = work.get_submodule(group.reader.layer)
            weight = layer.get_parameter("weight")
            silent = weight.detach().clone()
            silent[:, group.reader.places[list(removals[group.name])].flatten()] = 0
            edits.append((layer, "weight", nn.Parameter(silent, requires_grad=False)))
    with _edited(edits):
        yield


def difference(
    work: nn.Module,
    result: nn.Module,
    groups: Sequence[HeadGroup],
    removals: Mapping[str, Sequence[int]],
    example: Inputs,
) -> str | None:
    """How a model without heads differs from one with silent heads, or `None`.

    Args:
        work: The model, as `find_heads` gave it back.
        result: The model without the heads.
        groups: What was found.
        removals: The heads that are gone.
        example: Example inputs.
    """
    with silenced(work, groups, removals):
        expected = run(work, example)
    return _difference(result, example, expected)


def _difference(model: nn.Module, example: Inputs, expected: Sequence[torch.Tensor]) -> str | None:
    try:
        outputs = run(model, example)
    except Exception as error:  # noqa: BLE001 - a user's forward pass may raise anything
        return f"the model does not run: {brief(error)}"
    alike = [a.shape == b.shape and close(a, b) for a, b in zip(expected, outputs, strict=False)]
    if len(outputs) != len(expected) or not all(alike):
        return "the outputs are not those of the model with silent heads"
    return None


def _confirmed(
    work: nn.Module, example: Inputs, variants: Sequence[HeadGroup]
) -> tuple[HeadGroup | None, str]:
    """The first variant that removing a head confirms, or why there is none."""
    reasons = []
    before = run(work, example)
    for group in variants:
        if group.heads == 1:
            continue
        gone = {group.name: [group.heads // 2]}
        with silenced(work, [group], gone):
            expected = run(work, example)
        if all(torch.equal(a, b) for a, b in zip(before, expected, strict=True)):
            reasons.append("no output depends on one of its heads, so that nothing can be checked")
            continue
        with _edited(_edits(work, group, gone[group.name])):
            different = _difference(work, example, expected)
        if different is None:
            return group, ""
        reasons.append(f"without one of its heads {different}")
    return None, reasons[0]  # what the most likely one failed of tells the most


def _edits(model: nn.Module, group: HeadGroup, gone: Sequence[int]) -> list[Edit]:
    """What to set in a model so that some heads are gone."""
    keep = [head for head in range(group.heads) if head not in set(gone)]
    edits: list[Edit] = []
    for slices in group.writers:
        layer = model.get_submodule(slices.layer)
        rows = slices.places[keep].flatten().sort().values
        edits.append((layer, "out_features", len(rows)))
        edits += [
            (layer, name, _selected(parameter, 0, rows))
            for name, parameter in layer.named_parameters(recurse=False)
        ]
    layer = model.get_submodule(group.reader.layer)
    columns = group.reader.places[keep].flatten().sort().values
    edits.append((layer, "in_features", len(columns)))
    edits.append((layer, "weight", _selected(layer.get_parameter("weight"), 1, columns)))
    attention = model.get_submodule(group.name)
    edits += [(attention, name, each * len(keep)) for name, each in group.attributes]
    if isinstance(attention, Attention):
        edits.append((attention, "kept", tuple(attention.kept[head] for head in keep)))
    return edits


def _selected(parameter: nn.Parameter, dim: int, places: torch.Tensor) -> nn.Parameter:
    values = parameter.detach().index_select(dim, places.to(parameter.device))
    return nn.Parameter(values, requires_grad=parameter.requires_grad)


@contextmanager
def _edited(edits: Sequence[Edit]) -> Iterator[None]:
    """Sets attributes while inside."""
    before = [(owner, name, getattr(owner, name)) for owner, name, _ in edits]
    for owner, name, value in edits:
        setattr(owner, name, value)
    try:
        yield
    finally:
        for owner, name, value in before:
            setattr(owner, name, value)


def _unpacked(model: nn.Module, wanted: Collection[str] | None = None) -> dict[str, str]:
    """Puts an `Attention` for each `nn.MultiheadAttention`, in place.

    Args:
        model: The model.
        wanted: Names of those that are replaced; `None` for all.

    Returns:
        Why some cannot be replaced, by name.
    """
    shared = shared_weights(model)
    left: dict[str, str] = {}
    for name, layer in list(model.named_modules()):
        if isinstance(layer, nn.MultiheadAttention) and (wanted is None or name in wanted):
            reason = _obstacle(name, layer, shared)
            if reason is None:
                put(model, layer, Attention.of(layer))
            else:
                left[name or "the model"] = reason
    for stack in model.modules():
        if isinstance(stack, nn.TransformerEncoder) and any(
            isinstance(part, Attention) for part in stack.modules()
        ):
            stack.use_nested_tensor = False  # nested tensors are for the fused path
    return left


def _obstacle(name: str, layer: nn.MultiheadAttention, shared: Mapping[str, str]) -> str | None:
    """Why an `Attention` cannot stand for a layer, or `None`."""
    if not name:
        return "it is the whole model"
    if type(layer) is not nn.MultiheadAttention:  # a subclass may compute something else
        return f"a {type(layer).__name__} may compute something else than its base class"
    if layer.bias_k is not None or layer.add_zero_attn:
        return "it has keys and values of its own beside those it is given"
    if any(part._forward_hooks or part._forward_pre_hooks for part in layer.modules()):
        return "it has hooks"
    part = next((part for part in (name, f"{name}.out_proj") if part in shared), None)
    return None if part is None else f"its weight is shared with {shared[part]}"
