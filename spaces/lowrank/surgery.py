"""Replacing layers inside a model: which ones allow it, and keeping the rest of it working."""

from __future__ import annotations

import copy
from collections.abc import Mapping

from torch import nn

from parefront.spaces.inspection import brief, run, shared_weights
from parefront.spaces.lowrank.layers import Dense
from parefront.spaces.stage import Inputs


def replaceable(
    model: nn.Module, kinds: tuple[type[Dense | nn.Embedding], ...]
) -> tuple[dict[str, Dense | nn.Embedding], dict[str, str]]:
    """The layers that can be replaced, and why other layers cannot.

    Args:
        model: Model to look through; it is not changed.
        kinds: Types of the layers that are wanted.

    Returns:
        The layers by name, and a reason for every other Conv and Linear layer, and every other
        embedding if embeddings are wanted.
    """
    names: dict[nn.Module, list[str]] = {}
    for name, module in model.named_modules(remove_duplicate=False):
        names.setdefault(module, []).append(name)
    shared = shared_weights(model)
    shared |= {name: others[1] for others in names.values() for name in others[:1] if others[1:]}
    layers: dict[str, Dense | nn.Embedding] = {}
    concerned = (nn.Linear, nn.modules.conv._ConvNd, *kinds)
    left: dict[str, str] = {}
    for name, layer in model.named_modules():
        if isinstance(layer, concerned):
            reason = _obstacle(model, name, layer, kinds)
            if reason is None and name in shared:
                reason = f"its weight is shared with {shared[name]}"
            if reason is not None:
                left[name] = reason
            elif isinstance(layer, nn.Linear | nn.Conv2d | nn.Embedding):
                layers[name] = layer
    return layers, left


def replace(model: nn.Module, parts: Mapping[str, nn.Module]) -> nn.Module:
    """A copy of the model with some of its layers, given by name, replaced."""
    new = copy.deepcopy(model)
    changed = set()
    for name, part in parts.items():
        parent, _, attribute = name.rpartition(".")
        owner = new.get_submodule(parent)
        setattr(owner, attribute, part)
        if isinstance(owner, nn.TransformerEncoderLayer):
            # Its fused kernel wants dense weights; torch takes it for known activations only.
            owner.activation_relu_or_gelu = 0
            changed.add(owner)
    for encoder in new.modules():
        if isinstance(encoder, nn.TransformerEncoder) and not changed.isdisjoint(encoder.layers):
            encoder.use_nested_tensor = False  # nested tensors are for the fused kernel
    return new


def failure(model: nn.Module, example: Inputs) -> str | None:
    """Why a model does not run on the example, or `None` if it does."""
    try:
        run(model, example)
    except Exception as error:  # noqa: BLE001 - a user's forward pass may raise anything
        return brief(error)
    return None


def _obstacle(
    model: nn.Module,
    name: str,
    layer: nn.Module,
    kinds: tuple[type[Dense | nn.Embedding], ...],
) -> str | None:
    """Why a layer cannot be replaced, as far as the layer and its parent tell."""
    if isinstance(model.get_submodule(name.rpartition(".")[0]), nn.MultiheadAttention):
        return "MultiheadAttention reads its weight directly"
    if type(layer) not in (
        nn.Linear,
        nn.Conv2d,
        nn.Embedding,
    ):  # a subclass may compute something else
        return f"a {type(layer).__name__} is not factorised"
    if type(layer) not in kinds:
        return f"a {type(layer).__name__} was not asked for"
    if isinstance(layer, nn.Conv2d) and layer.groups > 1:
        return f"a convolution in {layer.groups} groups is not factorised"
    if isinstance(layer, nn.Embedding):
        for option in ("max_norm", "scale_grad_by_freq", "sparse"):
            if getattr(layer, option):
                return f"an embedding with {option} is not factorised"
    if layer._forward_hooks or layer._forward_pre_hooks:
        return "it has hooks"
    return None
