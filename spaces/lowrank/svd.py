"""The stage `factorize`: replaces layers by two thinner ones of low rank."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import ClassVar

import optuna
from torch import nn

from parefront.errors import StageError
from parefront.spaces.inspection import count_parameters, other_matrices
from parefront.spaces.lowrank.config import (
    FactorizationChoices,
    FactorizationConfig,
    kinds,
)
from parefront.spaces.lowrank.layerwise import distil, seen
from parefront.spaces.lowrank.shares import Named, Shares, by_latency, by_sensitivity
from parefront.spaces.lowrank.surgery import failure, replace, replaceable
from parefront.spaces.lowrank.ways import Wanted, plan, why_not
from parefront.spaces.pruning.parts import dense
from parefront.spaces.ranges import Choice
from parefront.spaces.stage import (
    Applied,
    Form,
    Stage,
    StageChoices,
    StageConfig,
    StageContext,
    TargetTraits,
)

_DENSE = (nn.Linear, nn.modules.conv._ConvNd)
_PRUNE = "prune"
"""Channel pruning by name: were its code imported, a change of it would be one of this stage's."""


class Factorization(Stage[FactorizationConfig, nn.Module]):
    """Replaces Linear and Conv2d layers by some of low rank, where that saves parameters.

    `achieved` holds `parameters_before` and `parameters_after`; `ranks`, the full and the kept
    rank of every layer that was replaced, for separable convolutions the size of a kernel and the
    kernels for each channel, for Tucker-2 the channels of inputs and outputs and then the ranks of
    both, for grouped ones the channels and the groups; `left`, a reason for every other Conv and
    Linear layer; and `others`, one for every other part that holds matrices, such as a recurrent
    layer. With `layerwise` also `layer_errors`, the squared error of each replaced layer over its
    squared outputs, before and after it learnt by itself, or why it did not. Ranks by sensitivity
    come with `sensitivity`, how much the loss grew by layer and share of its break-even rank that
    went; ranks by latency with `latency`, by layer and share of its break-even rank.
    """

    name: ClassVar[str] = "factorize"
    form: ClassVar[Form] = Form.MODULE
    choices_type: ClassVar[type[StageChoices]] = FactorizationChoices
    config_type: ClassVar[type[StageConfig]] = FactorizationConfig
    choices: FactorizationChoices

    def __init__(self, choices: FactorizationChoices, target: TargetTraits) -> None:
        """Binds the stage to its ranges and to the target's channel multiple."""
        super().__init__(choices, target)
        self.multiple = choices.multiple or Choice[int](options=(target.channel_multiple,))

    def nothing_to_do(self, model: nn.Module, context: StageContext) -> str | None:  # noqa: ARG002
        """Why no layer of the model can be factorised, or `None`."""
        reasons: dict[str, str] = {}
        choices = self.choices
        multiple = min(self.multiple.options)
        # What is easiest: the largest share of break-even, or the least energy.
        energy = Wanted(choices.energy.low, multiple, energy=True)
        ways = choices.convolution.options
        for layers in choices.layers.options:
            eligible, left = replaceable(model, kinds(layers, True in choices.embeddings.options))
            for rank in choices.rank.options:
                wanted = energy if rank == "energy" else Wanted(1.0, multiple)
                for layer in eligible.values():
                    # A weight that is not finite has no energy; that is said when it is met.
                    if not layer.weight.isfinite().all() or any(
                        plan(layer, way, wanted) for way in ways
                    ):
                        return None
                reasons.update(dict.fromkeys(eligible, why_not(wanted)))
            reasons = left | reasons
        if not reasons:
            return "the model has no Conv or Linear layer"
        name, reason = next(iter(reasons.items()))
        return f"no layer can be factorised, such as {name}: {reason}"

    def draw(
        self,
        trial: optuna.trial.BaseTrial,
        earlier: Mapping[str, StageConfig],
    ) -> FactorizationConfig:
        """Draws what is not fixed; a ratio or an energy, as the rank is chosen."""
        choices = self.choices
        first = choices.first.prefer(False)
        if _PRUNE in earlier:
            first = choices.first.suggest(trial, f"{self.name}.first")
        rank = choices.rank.suggest(trial, f"{self.name}.rank")
        ratio = energy = None
        if rank != "energy":
            ratio = choices.ratio.suggest(trial, f"{self.name}.ratio")
        else:
            energy = choices.energy.suggest(trial, f"{self.name}.energy")
        return FactorizationConfig(
            rank=rank,
            ratio=ratio,
            energy=energy,
            layers=choices.layers.suggest(trial, f"{self.name}.layers"),
            convolution=choices.convolution.suggest(trial, f"{self.name}.convolution"),
            multiple=self.multiple.suggest(trial, f"{self.name}.multiple"),
            embeddings=choices.embeddings.suggest(trial, f"{self.name}.embeddings"),
            layerwise=choices.layerwise.suggest(trial, f"{self.name}.layerwise"),
            first=first,
        )

    def anchors(self) -> Sequence[FactorizationConfig]:
        """Half the break-even rank or nine tenths of the energy, in each way, and the least."""
        choices = self.choices
        ranks, ways = choices.rank.options, choices.convolution.options
        usual = {"energy": choices.energy.clip(0.9)}
        least = {"energy": choices.energy.low}
        half = choices.ratio.clip(0.5)
        wanted = [(rank, usual.get(rank, half), way) for rank in ranks for way in ways]
        wanted.append((ranks[0], least.get(ranks[0], choices.ratio.low), ways[0]))
        return [
            FactorizationConfig(
                rank=rank,
                ratio=share if rank != "energy" else None,
                energy=share if rank == "energy" else None,
                layers=choices.layers.prefer("all", "linear"),
                convolution=way,
                multiple=self.multiple.prefer(self.target.channel_multiple),
                embeddings=choices.embeddings.prefer(True),
                layerwise=choices.layerwise.prefer(False),
                first=choices.first.prefer(False),
            )
            for rank, share, way in dict.fromkeys(wanted)
        ]

    def apply(
        self, model: nn.Module, config: FactorizationConfig, context: StageContext
    ) -> Applied[nn.Module]:
        """Factorises layers of a copy of the model.

        Raises:
            StageError: If the model does not run, a weight is not finite, or ranks are to be chosen
                by latency and nothing can be timed.
        """
        eligible, left = replaceable(model, config.kinds)
        _check(eligible, config)
        shares = _shares(model, eligible, config, context)
        left.update(shares.left)
        ranks: dict[str, list[int]] = {}
        parts: dict[str, nn.Module] = {}
        for name, share in shares.kept.items():
            context.tick()
            wanted = dataclasses.replace(config.wanted, share=share)
            found = plan(eligible[name], config.convolution, wanted)
            if found is None:
                left[name] = why_not(wanted)
            else:
                ranks[name] = found.ranks
                parts[name] = found.make()
        context.tick()
        if failure(replace(model, parts), context.example) is not None:
            for name in tuple(parts):
                context.tick()
                reason = failure(replace(model, {name: parts[name]}), context.example)
                if reason is not None:
                    left[name] = f"the model needs its dense weight: {reason}"
                    del parts[name], ranks[name]
        learnt = {"layer_errors": _learn(model, parts, context)} if config.layerwise else {}
        factorized = replace(model, parts)
        reason = failure(factorized, context.example)
        if reason is not None:
            raise StageError(f"the model does not run: {reason}")
        return Applied(
            factorized,
            {
                "parameters_before": count_parameters(model),
                "parameters_after": count_parameters(factorized),
                "ranks": ranks,
                "left": left,
                "others": {
                    name: f"the weights of {kind} are not factorised"
                    for name, kind in other_matrices(model, (*_DENSE, *config.kinds)).items()
                },
                **shares.achieved,
                **learnt,
            },
        )

    def goes_before(self, config: FactorizationConfig) -> str | None:
        """Channel pruning, if that is to narrow the factors."""
        return _PRUNE if config.first else None

    def timed(self, config: FactorizationConfig) -> bool:
        """Ranks by latency are."""
        return config.rank == "latency"


def _check(layers: Named, config: FactorizationConfig) -> None:
    """Checks that what would be factorised has finite weights.

    Raises:
        StageError: If not.
    """
    for name, layer in layers.items():
        # Without finite weights there is no energy to tell ranks by.
        if not layer.weight.isfinite().all() and (
            config.rank == "energy" or plan(layer, config.convolution, config.wanted)
        ):
            raise StageError(f"cannot factorise {name}: its weight is not finite")


def _shares(
    model: nn.Module, layers: Named, config: FactorizationConfig, context: StageContext
) -> Shares:
    """How much each layer keeps, of what the rank says."""
    if config.rank == "sensitivity":
        return by_sensitivity(model, layers, config, context)
    if config.rank == "latency":
        return by_latency(model, layers, config, context)
    return Shares(dict.fromkeys(layers, config.share))


def _learn(
    model: nn.Module, parts: Mapping[str, nn.Module], context: StageContext
) -> dict[str, list[float] | str]:
    """Distils the parts one by one; their errors before and after, or why one was left alone."""
    work = dense(model)
    errors: dict[str, list[float] | str] = {}
    for name, part in parts.items():
        data = seen(work, name, context)
        found = None if data is None else distil(part, data, context.seed, context.tick)
        errors[name] = found or "it is not called, or not trained"
    return errors
