"""Layers whose weights keep to a rule while they are trained, such as a mask or a few levels.

A stage wraps a layer with `Ruled`; training goes on with the weights behind the rule; `baked` puts
the weights that the rule makes into ordinary layers, which is what is exported. The file is small
because such weights pack well; see `parefront.spaces.packing`.
"""

from __future__ import annotations

import copy
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import nn

LAYERS = (
    nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d,
    nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d, nn.Embedding,
)  # fmt: skip
"""Layers that hold one large `weight`."""
OTHERS = (nn.LSTM, nn.GRU, nn.RNN, nn.LSTMCell, nn.GRUCell, nn.RNNCell, nn.MultiheadAttention)
"""Layers that hold several weights under other names, and nothing else that is large."""
LEAST = 256
"""Elements below which a weight is left alone: the file would not be smaller."""


class Rule(nn.Module, ABC):
    """Makes the weight a layer computes with out of the one it holds, of the same shape.

    Attributes:
        paced: Whether it changes with the training, as it is told by `progress`.
    """

    paced: ClassVar[bool] = False

    @abstractmethod
    def forward(self, weight: torch.Tensor) -> torch.Tensor:
        """The weight to compute with."""

    def progress(self, share: float, weight: torch.Tensor) -> None:
        """Told before each step how much of a training is done, and 1 at its end.

        Args:
            share: From 0 to 1.
            weight: The weight that the layer holds, before any rule, as it is by then.
        """


class Ruled(nn.Module):
    """A layer with rules for weights of its own.

    Whatever else is asked of it, such as its sizes or its bias, is the layer's.

    Args:
        layer: The layer, which holds the weights as they are trained.
    """

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.layer = layer
        self.rules = nn.ModuleDict()
        self.train(layer.training)

    def add(self, parameter: str, rule: Rule) -> None:
        """Adds a rule for a weight; it sees the weight as earlier rules made it."""
        before = self.rules[parameter].children() if parameter in self.rules else ()
        self.rules[parameter] = nn.ModuleList([*before, rule.train(self.training)])

    def made(self, parameter: str) -> torch.Tensor:
        """A weight after all its rules, or as it is if it has none."""
        weight: torch.Tensor = self.layer.get_parameter(parameter)
        if parameter in self.rules:
            for rule in self.rules[parameter].children():
                weight = rule(weight)
        return weight

    @property
    def paced(self) -> bool:
        """Whether one of the rules changes with the training."""
        return any(isinstance(rule, Rule) and rule.paced for rule in self.modules())

    def advance(self, share: float) -> None:
        """Tells each rule how much of the training is done, from 0 to 1."""
        for parameter, rules in self.rules.items():
            held = self.layer.get_parameter(parameter).detach()
            for rule in rules.children():
                if isinstance(rule, Rule):
                    rule.progress(share, held)

    def __getattr__(self, name: str) -> Any:  # noqa: ANN401 - as of any module
        """A ruled weight, or else the layer's own; attention asks for those of its parts."""
        try:
            return super().__getattr__(name)
        except AttributeError:
            if name.startswith("__"):  # how to copy or pickle the layer is not how to do it here
                raise
        return (
            self.made(name) if name in self.rules else getattr(super().__getattr__("layer"), name)
        )

    def forward(self, *inputs: Any, **options: Any) -> Any:  # noqa: ANN401 - as the layer's
        """Runs the layer with the weights that the rules make."""
        made = {parameter: self.made(parameter) for parameter in self.rules}
        return torch.func.functional_call(self.layer, made, inputs, options)


def baked(model: nn.Module) -> nn.Module:
    """The model with ordinary layers: each holds what its rules make of its weights.

    Returns:
        The model itself if nothing in it has a rule, else a copy.
    """
    if not any(isinstance(module, Ruled) for module in model.modules()):
        return model
    return _baked(copy.deepcopy(model))


def _baked(module: nn.Module) -> nn.Module:
    layer = module
    if isinstance(module, Ruled):
        layer = module.layer
        for parameter in module.rules:
            with torch.no_grad():
                made = module.made(parameter).detach().clone()
            trained = layer.get_parameter(parameter).requires_grad
            setattr(layer, parameter, nn.Parameter(made, requires_grad=trained))
    for name, child in list(layer.named_children()):
        setattr(layer, name, _baked(child))
    return layer


@dataclass(frozen=True)
class Weights:
    """A weight that a rule may be made for.

    Attributes:
        name: Name of its layer in the model, or its own where the layer holds several.
        layer: The layer itself.
        parameter: Name of the weight in the layer.
        weight: The weight, as earlier rules make it.
    """

    name: str
    layer: nn.Module
    parameter: str
    weight: torch.Tensor

    @property
    def held(self) -> nn.Parameter:
        """The weight that the layer holds, before any rule."""
        return self.layer.get_parameter(self.parameter)

    @property
    def channels(self) -> int:
        """Dimension of the weight that counts output channels, or the entries of an embedding."""
        transposed = (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)
        return 1 if isinstance(self.layer, transposed) else 0


def weights_of(model: nn.Module) -> tuple[list[Weights], dict[str, str]]:
    """The weights that rules may be made for, in the order of the model.

    Returns:
        The weights, and why each other part that holds weights is left alone.
    """
    parts, repeated = _parts(model)
    holders: dict[nn.Parameter, list[str]] = {}
    for path, module in parts:
        for each in _plain(module).parameters(recurse=False):
            holders.setdefault(each, []).append(path or "the model")
    found: list[Weights] = []
    left: dict[str, str] = {}
    for path, module in parts:
        layer = _plain(module)
        matrices = {n: p for n, p in layer.named_parameters(recurse=False) if p.ndim > 1}
        if not isinstance(layer, LAYERS + OTHERS):
            if any(weight.numel() >= LEAST for weight in matrices.values()):
                left[path] = f"{type(layer).__name__} holds weights in a way of its own"
            continue
        for parameter, weight in matrices.items():
            if "weight" not in parameter:  # attention's biases of one more key and value
                continue
            name = path
            if isinstance(layer, OTHERS):
                name = f"{path}.{parameter}" if path else parameter
            reason = _obstacle(layer, weight, holders[weight], path or "the model")
            if reason is None and module in repeated:
                reason = f"it is also {repeated[module]}, and a rule would hold in one place only"
            if reason is not None:
                left[name] = reason
            else:
                made = module.made(parameter) if isinstance(module, Ruled) else weight
                found.append(Weights(name, layer, parameter, made.detach()))
    return found, left


def _obstacle(
    layer: nn.Module, weight: nn.Parameter, holders: Sequence[str], path: str
) -> str | None:
    """Why a weight is left alone, or `None`."""
    others = [other for other in holders if other != path]
    if others:
        return f"its weight is also that of {others[0]}"
    if isinstance(layer, LAYERS) and weight is not layer._parameters.get("weight"):
        return "its weight is computed from others"
    if weight.numel() < LEAST:
        return f"it has fewer than {LEAST} weights"
    if getattr(layer, "sparse", False):
        return "its gradients are sparse"
    if not weight.isfinite().all():
        return "its weight is not finite"
    return None


def _parts(model: nn.Module) -> tuple[list[tuple[str, nn.Module]], dict[nn.Module, str]]:
    """All modules by their first name, those with rules as one, under the names they had without.

    What is within a block that is used several times is there once: a rule holds wherever the block
    is used. A module that is itself in several places has another name in the second result.
    """
    found: list[tuple[str, nn.Module]] = []
    seen: set[nn.Module] = set()
    repeated: dict[nn.Module, str] = {}

    def visit(path: str, module: nn.Module) -> None:
        if module in seen:
            repeated[module] = path
            return
        seen.add(module)
        found.append((path, module))
        for name, child in _plain(module)._modules.items():
            if child is not None:
                visit(f"{path}.{name}" if path else name, child)

    visit("", model)
    return found, repeated


def with_rule(model: nn.Module, name: str, rule: Rule) -> nn.Module:
    """Gives a weight one more rule, in place.

    Args:
        model: The model.
        name: Name of the weight, as `Weights.name`; empty if the model is the layer.
        rule: The rule.

    Returns:
        The model; another object only if it is itself the layer.
    """
    path, _, last = name.rpartition(".")
    own = dict(_plain(model.get_submodule(path)).named_parameters(recurse=False))
    path, parameter = (path, last) if last in own else (name, "weight")
    layer = model.get_submodule(path)
    if isinstance(layer, Ruled):
        layer.add(parameter, rule)
        return model
    ruled = Ruled(layer)
    ruled.add(parameter, rule)
    if not path:
        return ruled
    parent, _, last = path.rpartition(".")
    setattr(_plain(model.get_submodule(parent)), last, ruled)
    return model


def _plain(module: nn.Module) -> nn.Module:
    return module.layer if isinstance(module, Ruled) else module
