"""Layers whose weights keep to a rule while they are trained, such as a mask or a few levels.

A stage wraps a layer with `Ruled`; training goes on with the weights behind the rule; `baked` puts
the weights that the rule makes into ordinary layers, which is what is exported. The file is small
because such weights pack well; see `parefront.spaces.packing`.
"""

from __future__ import annotations

import copy
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from parefront.spaces.inspection import shared_weights

LAYERS = (
    nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d,
    nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d, nn.Embedding,
)  # fmt: skip
"""Layers that hold one large `weight`."""
LEAST = 256
"""Elements below which a weight is left alone: the file would not be smaller."""


class Rule(nn.Module):
    """Makes the weight a layer computes with out of the one it holds, of the same shape."""

    def forward(self, weight: torch.Tensor) -> torch.Tensor:
        """The weight to compute with."""
        raise NotImplementedError


class Ruled(nn.Module):
    """A layer with a rule for its weight.

    Args:
        layer: The layer, which holds the weight as it is trained.
        rule: The rule; it sees the weight as earlier rules made it.
    """

    def __init__(self, layer: nn.Module, rule: Rule) -> None:
        super().__init__()
        self.layer = layer
        self.rules = nn.ModuleList([rule])
        self.train(layer.training)

    @property
    def weight(self) -> torch.Tensor:
        """The weight after all rules; modules such as `nn.MultiheadAttention` ask for it."""
        weight = held(self.layer)
        for rule in self.rules:
            weight = rule(weight)
        return weight

    @property
    def bias(self) -> nn.Parameter | None:
        """The layer's own."""
        bias: nn.Parameter | None = getattr(self.layer, "bias", None)
        return bias

    def __getattr__(self, name: str) -> Any:  # noqa: ANN401 - whatever the layer has
        """What the layer has, such as its number of features."""
        try:
            return super().__getattr__(name)
        except AttributeError:
            if name == "layer":
                raise
            return getattr(self.layer, name)

    def forward(self, *inputs: torch.Tensor, **named: object) -> torch.Tensor:
        """Runs the layer with the weight that the rules make."""
        result: torch.Tensor = torch.func.functional_call(
            self.layer, {"weight": self.weight}, inputs, named
        )
        return result


def baked(model: nn.Module) -> nn.Module:
    """The model with ordinary layers: each holds what its rules make of its weight.

    Returns:
        The model itself if nothing in it has a rule, else a copy.
    """
    if not any(isinstance(module, Ruled) for module in model.modules()):
        return model
    result = copy.deepcopy(model)
    return _baked(result) if isinstance(result, Ruled) else _bake_children(result)


def _bake_children(module: nn.Module) -> nn.Module:
    for name, child in list(module.named_children()):
        setattr(module, name, _baked(child) if isinstance(child, Ruled) else _bake_children(child))
    return module


def _baked(ruled: Ruled) -> nn.Module:
    with torch.no_grad():
        weight = ruled.weight.detach().clone()
    ruled.layer.weight = nn.Parameter(weight, requires_grad=held(ruled.layer).requires_grad)
    return ruled.layer


def held(layer: nn.Module) -> nn.Parameter:
    """The weight that a layer holds, before any rule."""
    return _layer(layer).get_parameter("weight")


@dataclass(frozen=True)
class Weights:
    """A layer whose weight a rule may be made for.

    Attributes:
        name: Name of the layer in the model.
        layer: The layer itself.
        weight: Its weight, as earlier rules make it.
    """

    name: str
    layer: nn.Module
    weight: torch.Tensor

    @property
    def channels(self) -> int:
        """Dimension of the weight that counts output channels, or the entries of an embedding."""
        transposed = (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)
        return 1 if isinstance(self.layer, transposed) else 0


def weights_of(model: nn.Module) -> tuple[list[Weights], dict[str, str]]:
    """The layers that rules may be made for, in the order of the model.

    Returns:
        The layers, and why each other part that holds weights is left alone.
    """
    parts = [(name, module, _layer(module)) for name, module in _parts(model)]
    times = Counter(id(layer) for _, _, layer in parts)
    shared = shared_weights(model)
    found, left = [], {}
    for name, module, layer in parts:
        large = [p for p in layer.parameters(recurse=False) if p.ndim > 1 and p.numel() >= LEAST]
        if not large:
            continue
        # Names of the layers within parts with rules are those of the layers.
        other = shared.get(f"{name}.layer" if isinstance(module, Ruled) else name)
        reason = _obstacle(layer, times[id(layer)], other)
        if reason is not None:
            left[name] = reason
        else:
            made = module.weight if isinstance(module, Ruled) else held(layer)
            found.append(Weights(name, layer, made.detach()))
    return found, left


def _obstacle(layer: nn.Module, times: int, other: str | None) -> str | None:
    """Why a layer is left alone, or `None`."""
    if not isinstance(layer, LAYERS):
        return f"{type(layer).__name__} holds weights in a way of its own"
    if "weight" not in layer._parameters:
        return "its weight is computed from others"
    if times > 1:
        return f"it is used in {times} places"
    if other is not None:
        return f"its weight is also that of {other or 'the model'}"
    if getattr(layer, "sparse", False):
        return "its gradients are sparse"
    if not held(layer).isfinite().all():
        return "its weight is not finite"
    return None


def _layer(module: nn.Module) -> nn.Module:
    layer: nn.Module = module.layer if isinstance(module, Ruled) else module
    return layer


def _parts(model: nn.Module, prefix: str = "") -> Iterator[tuple[str, nn.Module]]:
    """All modules by all their names, those with rules as one."""
    yield prefix, model
    if not isinstance(model, Ruled):
        for name, child in model._modules.items():
            if child is not None:
                yield from _parts(child, f"{prefix}.{name}" if prefix else name)


def with_rule(model: nn.Module, name: str, rule: Rule) -> nn.Module:
    """Gives a layer one more rule, in place.

    Args:
        model: The model.
        name: Name of the layer; empty if the model is the layer.
        rule: The rule.

    Returns:
        The model; another object only if it is itself the layer.
    """
    parent, _, last = name.rpartition(".")
    layer = model.get_submodule(name)
    if isinstance(layer, Ruled):
        layer.rules.append(rule)
        return model
    ruled = Ruled(layer, rule)
    if not name:
        return ruled
    holder: Any = model.get_submodule(parent)
    setattr(holder, last, ruled)
    return model
