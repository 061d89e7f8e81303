"""The stage `factorize`: replaces layers by two thinner ones of low rank."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, ClassVar, Literal

import optuna
from pydantic import Field, ValidationInfo, field_validator, model_validator
from torch import nn

from parefront.errors import StageError
from parefront.spaces.inspection import count_parameters, other_matrices
from parefront.spaces.lowrank.layers import Dense
from parefront.spaces.lowrank.layerwise import distil, seen
from parefront.spaces.lowrank.surgery import failure, replace, replaceable
from parefront.spaces.lowrank.ways import Convolution, Rank, Wanted, plan, why_not
from parefront.spaces.pruning.parts import dense
from parefront.spaces.ranges import Choice, FloatRange
from parefront.spaces.stage import (
    Applied,
    Form,
    Stage,
    StageChoices,
    StageConfig,
    StageContext,
    TargetTraits,
)

Layers = Literal["linear", "conv", "all"]

KINDS: dict[Layers, tuple[type[Dense], ...]] = {
    "linear": (nn.Linear,),
    "conv": (nn.Conv2d,),
    "all": (nn.Linear, nn.Conv2d),
}
_DENSE = (nn.Linear, nn.modules.conv._ConvNd)


class FactorizationConfig(StageConfig):
    """One way to factorise layers.

    Attributes:
        rank: How ranks are chosen: `"ratio"`, the same share of what would save nothing in each
            layer; or `"energy"`, in each layer as few as hold a share of its energy, the squared
            sum of its singular values, so that layers that lose much by it stay dense.
        ratio: Rank as a fraction, in (0, 1], of the rank at which the factors have as many
            parameters as the layer; `None` when, and only when, ranks are chosen by energy.
        energy: Share of the energy that is held, in (0, 1]; `None` for `"ratio"`.
        layers: `"linear"` for Linear layers, `"conv"` for Conv2d layers, `"all"` for both.
        convolution: How a kernel larger than 1x1 is factorised: `"spatial"`, into a vertical and a
            horizontal one; `"tucker"`, into fewer channels before and after a kernel of the same
            size; `"separable"`, into kernels for each input channel and a mixture of them;
            `"grouped"`, into kernels for each of some groups of channels and a mixture; or
            `"bottleneck"`, into fewer kernels and a mixture.
        multiple: Ranks are rounded down to multiples of this, but not to 0; by energy, up.
        embeddings: Whether embeddings are factorised too.
        layerwise: Whether each replaced layer then learns by itself what the dense one answers.

    Example:
        >>> FactorizationConfig(ratio=0.5, layers="all", multiple=8).convolution
        'spatial'
    """

    rank: Rank = "ratio"
    ratio: Annotated[float, Field(gt=0, le=1)] | None = None
    energy: Annotated[float, Field(gt=0, le=1)] | None = None
    layers: Layers
    convolution: Convolution = "spatial"
    multiple: Annotated[int, Field(ge=1)]
    embeddings: bool = False
    layerwise: bool = False

    @model_validator(mode="after")
    def _a_share_of_one_thing(self) -> FactorizationConfig:
        by_energy = self.rank == "energy"
        if (self.ratio is None) != by_energy or (self.energy is None) == by_energy:
            wanted = "an energy and no ratio" if by_energy else "a ratio and no energy"
            raise ValueError(
                f"expected {wanted} for the rank '{self.rank}', got ratio {self.ratio} and "
                f"energy {self.energy}"
            )
        return self

    @property
    def wanted(self) -> Wanted:
        """How much of each layer is to be kept."""
        share = self.ratio if self.energy is None else self.energy
        return Wanted(self.rank, 1.0 if share is None else share, self.multiple)

    @property
    def kinds(self) -> tuple[type[Dense | nn.Embedding], ...]:
        """Types of the layers that are factorised."""
        return _kinds(self.layers, self.embeddings)


class FactorizationChoices(StageChoices):
    """What a study file may say about factorisation.

    Attributes:
        rank: Ways to choose ranks to choose from.
        ratio: Fraction of the break-even rank, within (0, 1]; drawn only for the rank `"ratio"`.
        energy: Share of the energy to hold, within (0, 1]; drawn only for the rank `"energy"`.
        layers: Kinds of layers to choose from. `"linear"` and `"conv"` besides `"all"` are worth
            a parameter only in models that have both.
        convolution: Ways to factorise a kernel to choose from.
        multiple: Multiples to round ranks to; what runs well on the target if not given.
        embeddings: Whether embeddings may be factorised too.
        layerwise: Whether each replaced layer may learn by itself what the dense one answers.
    """

    rank: Choice[Rank] = Choice[Rank](options=("ratio",))
    ratio: FloatRange = FloatRange(low=0.2, high=0.8)
    energy: FloatRange = FloatRange(low=0.5, high=0.98)
    layers: Choice[Layers] = Choice[Layers](options=("all",))
    convolution: Choice[Convolution] = Choice[Convolution](options=("spatial",))
    multiple: Choice[Annotated[int, Field(ge=1)]] | None = None
    embeddings: Choice[bool] = Choice[bool](options=(False,))
    layerwise: Choice[bool] = Choice[bool](options=(False,))

    @field_validator("ratio", "energy")
    @classmethod
    def _fractions(cls, value: FloatRange, info: ValidationInfo) -> FloatRange:
        if value.low <= 0 or value.high > 1:
            of = "the break-even rank" if info.field_name == "ratio" else "the energy"
            raise ValueError(
                f"expected fractions of {of} within (0, 1], got [{value.low}, {value.high}]"
            )
        return value


class Factorization(Stage[FactorizationConfig, nn.Module]):
    """Replaces Linear and Conv2d layers by some of low rank, where that saves parameters.

    `achieved` holds `parameters_before` and `parameters_after`; `ranks`, the full and the kept
    rank of every layer that was replaced, for separable convolutions the size of a kernel and the
    kernels for each channel, for Tucker-2 the channels of inputs and outputs and then the ranks of
    both, for grouped ones the channels and the groups; `left`, a reason for every other Conv and
    Linear layer; and `others`, one for every other part that holds matrices, such as a recurrent
    layer. With `layerwise` also `layer_errors`, the squared error of each replaced layer over its
    squared outputs, before and after it learnt by itself, or why it did not.
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
        # What is easiest: the largest share of break-even, or the least energy.
        shares: dict[Rank, float] = {"ratio": 1.0, "energy": choices.energy.low}
        multiple = min(self.multiple.options)
        ways = choices.convolution.options
        for layers in choices.layers.options:
            kinds = _kinds(layers, True in choices.embeddings.options)
            eligible, left = replaceable(model, kinds)
            for rank in choices.rank.options:
                wanted = Wanted(rank, shares[rank], multiple)
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
        earlier: Mapping[str, StageConfig],  # noqa: ARG002
    ) -> FactorizationConfig:
        """Draws what is not fixed; a ratio or an energy, as the rank is chosen."""
        choices = self.choices
        rank = choices.rank.suggest(trial, f"{self.name}.rank")
        ratio = energy = None
        if rank == "ratio":
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
        )

    def anchors(self) -> Sequence[FactorizationConfig]:
        """Half the break-even rank or nine tenths of the energy, in each way, and the least."""
        choices = self.choices
        ranks, ways = choices.rank.options, choices.convolution.options
        usual = {"ratio": choices.ratio.clip(0.5), "energy": choices.energy.clip(0.9)}
        least = {"ratio": choices.ratio.low, "energy": choices.energy.low}
        wanted = [(rank, usual[rank], way) for rank in ranks for way in ways]
        wanted.append((ranks[0], least[ranks[0]], ways[0]))
        return [
            FactorizationConfig(
                rank=rank,
                ratio=share if rank == "ratio" else None,
                energy=share if rank == "energy" else None,
                layers=choices.layers.prefer("all", "linear"),
                convolution=way,
                multiple=self.multiple.prefer(self.target.channel_multiple),
                embeddings=choices.embeddings.prefer(True),
                layerwise=choices.layerwise.prefer(False),
            )
            for rank, share, way in dict.fromkeys(wanted)
        ]

    def apply(
        self, model: nn.Module, config: FactorizationConfig, context: StageContext
    ) -> Applied[nn.Module]:
        """Factorises layers of a copy of the model.

        Raises:
            StageError: If the model does not run, or a weight is not finite.
        """
        eligible, left = replaceable(model, config.kinds)
        by_ratio = config.rank == "ratio"
        ranks: dict[str, list[int]] = {}
        parts: dict[str, nn.Module] = {}
        for name, layer in eligible.items():
            context.tick()
            finite = bool(layer.weight.isfinite().all())
            # Without finite weights there is no energy to tell ranks by.
            found = plan(layer, config.convolution, config.wanted) if by_ratio or finite else None
            if not finite and (found or not by_ratio):
                raise StageError(f"cannot factorise {name}: its weight is not finite")
            if found is None:
                left[name] = why_not(config.wanted)
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
                **learnt,
            },
        )


def _kinds(layers: Layers, embeddings: bool) -> tuple[type[Dense | nn.Embedding], ...]:
    return (*KINDS[layers], nn.Embedding) if embeddings else KINDS[layers]


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
