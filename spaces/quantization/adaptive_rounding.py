"""Adaptive rounding: whether each weight goes to the level above or below, learnt on examples.

Nagel et al., "Up or down? Adaptive rounding for post-training quantization" (AdaRound, 2020). The
nearest level of each weight alone is not the best choice for a layer's output, in which the errors
of weights add up or cancel. Layer after layer, in the order of the model, the choices are learnt
that bring the output of a layer, given what the rounded layers before it make, nearest to what the
layer computed before. No label is needed, and little data.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

import torch
from torch import nn

from parefront.spaces.inspection import run, tensors
from parefront.spaces.quantization.level_rule import Rounded
from parefront.spaces.quantization.rounding_descent import Moments, Solvable, solvable
from parefront.spaces.ruled import LAYERS, Rule, Ruled, Weights, with_rule
from parefront.spaces.stage import Inputs, StageContext

STEPS = 200
"""Steps of Adam for each layer."""
_BATCHES = 8
_BATCH = 32
_RATE = 0.03
_PRESSURE = 0.3
"""Weight of the regulariser, beside an error that is 1 for the nearest levels."""
_FREE = 0.2
"""Share of the steps without it."""
_SHARPNESS = (20.0, 2.0)
_FEW, _DRAWS = 64, 24
"""Where channels are small, flips begin from so many drawn choices as well."""
_LOW, _HIGH = -0.1, 1.1
"""The sigmoid is stretched to these and cut, so that it reaches 0 and 1."""


class Undecided(Rule):
    """Weights between the two levels around each, as far up as the rectified sigmoid says.

    A weight of zero stays zero, since it may have been pruned.

    Args:
        weight: The weight as it is before.
        rounded: Gives the levels and the steps.
    """

    def __init__(self, weight: torch.Tensor, rounded: Rounded) -> None:
        super().__init__()
        levels, step = rounded.levels, rounded.step.detach()
        scaled = (weight.detach() / step).contiguous()
        below = (torch.bucketize(scaled, levels, right=True) - 1).clamp(0, len(levels) - 2)
        self._lower, self._upper = levels[below], levels[below + 1]
        self._step = step
        self._zero = weight == 0
        share = ((scaled - self._lower) / (self._upper - self._lower)).clamp(0, 1).float()
        self._start = share
        self.place = nn.Parameter(torch.logit((share - _LOW) / (_HIGH - _LOW)))
        self.chosen: torch.Tensor | None = None
        """What to compute with once it is decided."""

    def share(self) -> torch.Tensor:
        """How far up each weight is, from 0 to 1."""
        return (self.place.sigmoid() * (_HIGH - _LOW) + _LOW).clamp(0, 1)

    def forward(self, weight: torch.Tensor) -> torch.Tensor:
        """The weights chosen, or those between the levels."""
        if self.chosen is not None:
            return self.chosen
        level = self._lower + (self._upper - self._lower) * self.share().to(weight.dtype)
        return torch.where(self._zero, 0.0, level * self._step)

    def decided(self) -> torch.Tensor:
        """The nearer of the two for each weight."""
        level = torch.where(self.share() >= 0.5, self._upper, self._lower)
        return torch.where(self._zero, 0.0, level * self._step).detach()

    def drawn(self, generator: torch.Generator) -> torch.Tensor:
        """Levels drawn by how near they are (stochastic rounding)."""
        up = torch.rand(self._zero.shape, generator=generator) < self._start
        level = torch.where(up, self._upper, self._lower)
        return torch.where(self._zero, 0.0, level * self._step)

    def flipped(self, made: torch.Tensor) -> torch.Tensor:
        """The other of the two for each of some chosen weights."""
        low, high = self._lower * self._step, self._upper * self._step
        return torch.where(self._zero, 0.0, torch.where(made == low, high, low))

    def indecision(self, sharpness: float) -> torch.Tensor:
        """1 where a weight is half-way and 0 at the levels, on average (equation 24)."""
        return (1 - (2 * self.share() - 1).abs().pow(sharpness)).mean()


@dataclass(frozen=True)
class _Call:
    """One call of a layer: what it was given, and what it should return."""

    inputs: tuple[Any, ...]
    options: Mapping[str, Any]
    wanted: Sequence[torch.Tensor]

    def error(self, layer: nn.Module) -> torch.Tensor:
        """Squared error of what a layer returns, summed."""
        found = _floats(layer(*self.inputs, **self.options))
        errors = [(a - b).square().sum() for a, b in zip(found, self.wanted, strict=True)]
        return torch.stack(errors).sum()


def adapt(
    before: nn.Module,
    model: nn.Module,
    weights: Sequence[Weights],
    rules: Mapping[str, Rounded],
    context: StageContext,
) -> tuple[nn.Module, dict[str, dict[str, float]], dict[str, str]]:
    """Gives weights their rules, in place, and moves them to the levels that suit their layers.

    Args:
        before: The model before any rounding; it is not changed.
        model: A copy of it, which is.
        weights: Weights of the copy, in the order of the model.
        rules: The rule of each, by name.
        context: Up to 256 examples are taken of those for calibration.

    Returns:
        The model; of each layer the squared error of its output relative to the size of the output,
        with the `nearest` levels and as it is now, `adaptive`, which is never larger; and why each
        other weight has its nearest levels.
    """
    batches = context.calibration.batches(_BATCH) if len(context.calibration) else ()
    examples = [inputs for inputs, _ in islice(batches, _BATCHES)]
    generator = torch.Generator().manual_seed(context.seed)
    errors: dict[str, dict[str, float]] = {}
    nearest: dict[str, str] = {}
    for path, group in _by_layer(model, weights).items():
        context.tick()
        calls = _calls(before, model, path, examples)
        if isinstance(calls, str):
            nearest |= {each.name: calls for each in group}
        else:
            layer = copy.deepcopy(model.get_submodule(path)).eval().requires_grad_(False)
            start = len(path) + 1 if path else 0
            undecided = {each.name: Undecided(each.weight, rules[each.name]) for each in group}
            layer = layer if isinstance(layer, Ruled) else Ruled(layer)
            for name, rule in undecided.items():
                with_rule(layer, name[start:], rule)
            errors[path or "the model"] = _learn(
                layer, calls, list(undecided.values()), generator, context.tick
            )
            for each in group:
                made = undecided[each.name].chosen
                if made is not None:
                    with torch.no_grad():
                        # What was pruned stays behind its mask, which may open again.
                        each.held.copy_(torch.where(each.weight == 0, each.held, made))
        for each in group:
            model = with_rule(model, each.name, rules[each.name])
    return model, errors, nearest


def _by_layer(model: nn.Module, weights: Sequence[Weights]) -> dict[str, list[Weights]]:
    """Weights by the path of the layer that is called; attention calls none of its parts."""
    groups: dict[str, list[Weights]] = {}
    for each in weights:
        path = each.name
        if not isinstance(each.layer, LAYERS):
            path = each.name.rpartition(".")[0]
        parent = path.rpartition(".")[0]
        around = model.get_submodule(parent)
        inner = around.layer if isinstance(around, Ruled) else around
        if path and isinstance(inner, nn.MultiheadAttention):
            path = parent
        groups.setdefault(path, []).append(each)
    return groups


def _calls(
    before: nn.Module, model: nn.Module, path: str, examples: Sequence[Inputs]
) -> list[_Call] | str:
    """The calls of a layer, or why there is nothing to learn from."""
    wanted = [_floats(output) for _, _, output in _observed(before, path, examples)]
    given = _observed(model, path, examples)
    if not wanted:
        return "its layer is not called by itself" if examples else "there are no examples"
    if [[x.shape for x in each] for each in wanted] != [
        [x.shape for x in _floats(output)] for _, _, output in given
    ]:
        return "what its layer is called with depends on the values before it"
    calls = [_Call(a, b, c) for (a, b, _), c in zip(given, wanted, strict=True)]
    if not all(x.isfinite().all() for call in calls for x in call.wanted):
        return "its layer returns what is not finite"
    return calls


def _observed(
    model: nn.Module, path: str, examples: Sequence[Inputs]
) -> list[tuple[tuple[Any, ...], Mapping[str, Any], Any]]:
    """What a layer is given and returns while the model runs."""
    seen: list[tuple[tuple[Any, ...], Mapping[str, Any], Any]] = []

    def keep(_: nn.Module, given: tuple[Any, ...], options: Mapping[str, Any], out: Any) -> None:  # noqa: ANN401
        # Copies, because what comes after may change either in place.
        seen.append(copy.deepcopy((given, options, out)))

    handle = model.get_submodule(path).register_forward_hook(keep, with_kwargs=True)
    try:
        for inputs in examples:
            run(model, inputs)
    finally:
        handle.remove()
    return seen


def _floats(output: object) -> list[torch.Tensor]:
    return [each for each in tensors(output) if each.is_floating_point()]


def _learn(
    layer: Ruled,
    calls: Sequence[_Call],
    rules: Sequence[Undecided],
    generator: torch.Generator,
    tick: Callable[[], None],
) -> dict[str, float]:
    """Decides the rules of a layer; the errors of its output before and after."""
    size = sum(float(x.square().sum()) for call in calls for x in call.wanted) or 1.0
    closest = [rule.decided() for rule in rules]
    nearest = _error(layer, calls, rules, closest)
    usual = nearest / len(calls) or 1.0
    optimizer = torch.optim.Adam([rule.place for rule in rules], lr=_RATE)
    for rule in rules:
        rule.chosen = None
    for step in range(STEPS if nearest > 0 else 0):
        tick()
        call = calls[int(torch.randint(len(calls), (), generator=generator))]
        optimizer.zero_grad()
        loss = call.error(layer) / usual
        done = (step / STEPS - _FREE) / (1 - _FREE)
        if done >= 0:
            first, last = _SHARPNESS
            sharpness = last + (first - last) * (1 + math.cos(done * math.pi)) / 2
            for rule in rules:
                loss = loss + _PRESSURE * rule.indecision(sharpness)
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    learnt = [rule.decided() for rule in rules]
    if solvable(plain := layer.layer):
        starts = [closest[0], learnt[0]]
        if closest[0][0].numel() <= _FEW:
            starts += [rules[0].drawn(generator) for _ in range(_DRAWS)]
        learnt = [_descended(plain, calls, rules[0], starts, tick)]
    adaptive = _error(layer, calls, rules, learnt)
    if not adaptive < nearest:
        adaptive = _error(layer, calls, rules, closest)
    return {"nearest": nearest / size, "adaptive": adaptive / size}


@torch.no_grad()
def _descended(
    layer: Solvable,
    calls: Sequence[_Call],
    rule: Undecided,
    starts: Sequence[torch.Tensor],
    tick: Callable[[], None],
) -> torch.Tensor:
    """The best of each channel that flips from some starts lead to."""
    moments = Moments(layer, ((call.inputs[0], call.wanted[0]) for call in calls))
    ends = []
    for start in starts:
        rows = start.flatten(1).double()
        ends.append(moments.descend(rows, rule.flipped(start).flatten(1).double(), tick))
    errors = torch.stack([moments.error(rows) for rows in ends])
    best = torch.stack(ends)[errors.argmin(dim=0), torch.arange(len(ends[0]))]
    return best.to(starts[0].dtype).reshape(starts[0].shape)


@torch.no_grad()
def _error(
    layer: nn.Module,
    calls: Sequence[_Call],
    rules: Sequence[Undecided],
    chosen: Sequence[torch.Tensor],
) -> float:
    """The error with some weights chosen, summed over all calls, and chosen they stay."""
    for rule, made in zip(rules, chosen, strict=True):
        rule.chosen = made
    return sum(float(call.error(layer)) for call in calls)
