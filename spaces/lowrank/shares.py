"""How much each layer keeps of its break-even rank, by what that costs in loss or in time."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from torch import nn

from parefront.errors import StageError
from parefront.spaces.allocation import by_loss, sensitivities, shared_out
from parefront.spaces.lowrank.config import FactorizationConfig
from parefront.spaces.lowrank.layers import Dense
from parefront.spaces.lowrank.surgery import failure, replace
from parefront.spaces.lowrank.ways import Plan, Wanted, plan
from parefront.spaces.stage import StageContext

PROBED = (0.15, 0.3, 0.5, 0.75)
"""Shares of the break-even rank that are tried on a layer by itself."""
TIMED = (0.1, 0.25, 0.5, 0.75, 1.0)
"""Shares of the break-even rank that are timed."""

_NOTHING = "nothing saves parameters in it"

Named = Mapping[str, Dense | nn.Embedding]
"""Layers by their names."""


@dataclass(frozen=True)
class Shares:
    """How much each layer keeps.

    Attributes:
        kept: Share of the break-even rank by name of the layer; what is not here stays dense.
        left: By name, why a layer stays dense.
        achieved: JSON-able facts of what it was told from.
    """

    kept: Mapping[str, float]
    left: Mapping[str, str] = field(default_factory=dict)
    achieved: Mapping[str, Any] = field(default_factory=dict)


def by_sensitivity(
    model: nn.Module, layers: Named, config: FactorizationConfig, context: StageContext
) -> Shares:
    """Shares that cost the least loss in sum, as far as each layer by itself tells.

    Each layer alone is factorised at the shares `PROBED`, and the loss is taken without training.

    Args:
        model: The model; it is not changed.
        layers: Layers that can be replaced, with finite weights.
        config: Its ratio is the share that all weights keep together.
        context: Gives the loss and examples.
    """
    plans = {name: _plans(layer, config, PROBED) for name, layer in layers.items()}

    def thinned(name: str, share: float) -> nn.Module | None:
        probe = replace(model, {name: plans[name][share].make()})
        return None if failure(probe, context.example) else probe

    levels = {name: list(each) for name, each in plans.items()}
    what = f"factorize, {config.convolution}, {config.multiple}"
    told = sensitivities(model, levels, thinned, context, what=what)
    grown = {name: {**losses, 1.0: 0.0} for name, losses in told.items() if losses}
    sizes = {name: layers[name].weight.numel() for name in grown}
    shares = shared_out(grown, sizes, config.share)
    kept = {name: share for name, share in shares.items() if share < 1}
    left = {}
    for name in layers:
        if name in grown and name not in kept:
            left[name] = "the loss needs it dense"
        elif name not in grown and levels[name]:
            left[name] = "the model needs its dense weight"
        elif name not in grown:
            left[name] = _NOTHING
    return Shares(kept, left, {"sensitivity": by_loss(grown)})


def by_latency(
    model: nn.Module, layers: Named, config: FactorizationConfig, context: StageContext
) -> Shares:
    """The largest of some shares with which each layer was seen to run in a share of its time.

    Each layer alone is timed at the shares `TIMED` beside the dense one.

    Args:
        model: The model; it is not changed.
        layers: Layers that can be replaced, with finite weights.
        config: Its ratio is the share of the latency.
        context: Gives the clock.

    Raises:
        StageError: If there is no clock.
    """
    clock = context.clock
    if clock is None:
        raise StageError("ranks by latency need a target that layers can be timed on")

    kept, left, latencies = {}, {}, {}
    for name, layer in layers.items():
        plans = _plans(layer, config, TIMED)
        if not plans:
            left[name] = _NOTHING
            continue

        def measure(name: str = name, plans: Mapping[float, Plan] = plans) -> dict[str, float]:
            found = {}
            for share, each in plans.items():
                context.tick()
                found[str(share)] = clock(model, name, each.make())
            return found

        what = ["latency of ranks", config.convolution, config.multiple, name]
        try:
            ratios = context.remember(json.dumps(what), measure)
        except StageError as error:  # which is not remembered: it may go well another time
            left[name] = str(error)
            continue
        latencies[name] = {share: round(ratio, 4) for share, ratio in ratios.items()}
        fast = [float(share) for share, ratio in ratios.items() if ratio <= config.share]
        if fast:
            kept[name] = max(fast)
        else:
            left[name] = f"at no rank was it seen to run in {config.share:.3g} of its latency"
    return Shares(kept, left, {"latency": latencies})


def _plans(
    layer: Dense | nn.Embedding, config: FactorizationConfig, shares: Sequence[float]
) -> dict[float, Plan]:
    """What the layer becomes by share; each only once, and nothing that saves no parameters."""
    found: dict[tuple[int, ...], tuple[float, Plan]] = {}
    for share in shares:
        each = plan(layer, config.convolution, Wanted(share, config.multiple))
        if each is not None:
            found.setdefault(tuple(each.ranks), (share, each))
    return dict(found.values())
