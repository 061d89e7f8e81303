"""The stage `factorize`: replaces layers by two thinner ones of low rank."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Annotated, ClassVar, Literal

import optuna
from pydantic import Field, field_validator
from torch import nn

from parefront.errors import StageError
from parefront.spaces.inspection import count_parameters, other_matrices
from parefront.spaces.lowrank.layers import Dense, factorize, matrix_shape
from parefront.spaces.lowrank.matrix import chosen_rank
from parefront.spaces.lowrank.separable import factorize_separable, separable_rank
from parefront.spaces.lowrank.surgery import failure, replace, replaceable
from parefront.spaces.lowrank.tucker import factorize_tucker, tucker_ranks
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
Convolution = Literal["spatial", "tucker", "separable"]

KINDS: dict[Layers, tuple[type[Dense], ...]] = {
    "linear": (nn.Linear,),
    "conv": (nn.Conv2d,),
    "all": (nn.Linear, nn.Conv2d),
}
_DENSE = (nn.Linear, nn.modules.conv._ConvNd)


class FactorizationConfig(StageConfig):
    """One way to factorise layers.

    Attributes:
        ratio: Rank as a fraction, in (0, 1], of the rank at which the factors have as many
            parameters as the layer.
        layers: `"linear"` for Linear layers, `"conv"` for Conv2d layers, `"all"` for both.
        convolution: How a kernel larger than 1x1 is factorised: `"spatial"`, into a vertical and a
            horizontal one; `"tucker"`, into fewer channels before and after a kernel of the same
            size; or `"separable"`, into kernels for each input channel and a mixture of them.
        multiple: Ranks are rounded down to multiples of this, but not to 0.

    Example:
        >>> FactorizationConfig(ratio=0.5, layers="all", multiple=8).convolution
        'spatial'
    """

    ratio: Annotated[float, Field(gt=0, le=1)]
    layers: Layers
    convolution: Convolution = "spatial"
    multiple: Annotated[int, Field(ge=1)]


class FactorizationChoices(StageChoices):
    """What a study file may say about factorisation.

    Attributes:
        ratio: Fraction of the break-even rank, within (0, 1].
        layers: Kinds of layers to choose from. `"linear"` and `"conv"` besides `"all"` are worth
            a parameter only in models that have both.
        convolution: Ways to factorise a kernel to choose from.
        multiple: Multiples to round ranks to; what runs well on the target if not given.
    """

    ratio: FloatRange = FloatRange(low=0.2, high=0.8)
    layers: Choice[Layers] = Choice[Layers](options=("all",))
    convolution: Choice[Convolution] = Choice[Convolution](options=("spatial",))
    multiple: Choice[Annotated[int, Field(ge=1)]] | None = None

    @field_validator("ratio")
    @classmethod
    def _fractions(cls, value: FloatRange) -> FloatRange:
        if value.low <= 0 or value.high > 1:
            raise ValueError(
                "expected fractions of the break-even rank within (0, 1], "
                f"got [{value.low}, {value.high}]"
            )
        return value


class Factorization(Stage[FactorizationConfig, nn.Module]):
    """Replaces Linear and Conv2d layers by some of low rank, where that saves parameters.

    `achieved` holds `parameters_before` and `parameters_after`; `ranks`, the full and the kept
    rank of every layer that was replaced, for separable convolutions the size of a kernel and the
    kernels for each channel, for Tucker-2 the channels of inputs and outputs and then the ranks of
    both; `left`, a reason for every other Conv and Linear layer; and `others`,
    one for every other part that holds matrices, such as a recurrent layer.
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
        multiple = min(self.multiple.options)
        for layers in self.choices.layers.options:
            eligible, left = replaceable(model, KINDS[layers])
            ways = self.choices.convolution.options
            if any(_parts(each, way, 1.0, multiple) for each in eligible.values() for way in ways):
                return None
            reasons.update(left)
            reasons.update(dict.fromkeys(eligible, _no_saving(multiple)))
        if not reasons:
            return "the model has no Conv or Linear layer"
        name, reason = next(iter(reasons.items()))
        return f"no layer can be factorised, such as {name}: {reason}"

    def draw(
        self,
        trial: optuna.trial.BaseTrial,
        earlier: Mapping[str, StageConfig],  # noqa: ARG002
    ) -> FactorizationConfig:
        """Draws the rank, kinds of layers and multiple that are not fixed."""
        choices = self.choices
        return FactorizationConfig(
            ratio=choices.ratio.suggest(trial, f"{self.name}.ratio"),
            layers=choices.layers.suggest(trial, f"{self.name}.layers"),
            convolution=choices.convolution.suggest(trial, f"{self.name}.convolution"),
            multiple=self.multiple.suggest(trial, f"{self.name}.multiple"),
        )

    def anchors(self) -> Sequence[FactorizationConfig]:
        """All layers at half the break-even rank, in each way, and at the least rank."""
        choices = self.choices
        ways = [(choices.ratio.clip(0.5), way) for way in choices.convolution.options]
        ways.append((choices.ratio.low, choices.convolution.options[0]))
        return [
            FactorizationConfig(
                ratio=ratio,
                layers=choices.layers.prefer("all", "linear"),
                convolution=way,
                multiple=self.multiple.prefer(self.target.channel_multiple),
            )
            for ratio, way in dict.fromkeys(ways)
        ]

    def apply(
        self, model: nn.Module, config: FactorizationConfig, context: StageContext
    ) -> Applied[nn.Module]:
        """Factorises layers of a copy of the model.

        Raises:
            StageError: If the model does not run, or a weight is not finite.
        """
        eligible, left = replaceable(model, KINDS[config.layers])
        ranks: dict[str, list[int]] = {}
        parts: dict[str, nn.Module] = {}
        for name, layer in eligible.items():
            context.tick()
            way = _parts(layer, config.convolution, config.ratio, config.multiple)
            if way is None:
                left[name] = _no_saving(config.multiple)
            elif not layer.weight.isfinite().all():
                raise StageError(f"cannot factorise {name}: its weight is not finite")
            else:
                ranks[name], make = way
                parts[name] = make()
        context.tick()
        if failure(replace(model, parts), context.example) is not None:
            for name in tuple(parts):
                context.tick()
                reason = failure(replace(model, {name: parts[name]}), context.example)
                if reason is not None:
                    left[name] = f"the model needs its dense weight: {reason}"
                    del parts[name], ranks[name]
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
                    for name, kind in other_matrices(model, _DENSE).items()
                },
            },
        )


def _parts(
    layer: Dense, convolution: Convolution, ratio: float, multiple: int
) -> tuple[list[int], Callable[[], nn.Module]] | None:
    """The full and the kept ranks, and what makes the parts; `None` if no parameters are saved."""
    kernel = layer if isinstance(layer, nn.Conv2d) and max(layer.kernel_size) > 1 else None
    if kernel is not None and convolution == "tucker":
        both = tucker_ranks(kernel, ratio, multiple)
        if both is None:
            return None
        channels = [kernel.in_channels, kernel.out_channels]
        return [*channels, *both], partial(factorize_tucker, kernel, *both)
    if kernel is not None and convolution == "separable":
        count = separable_rank(kernel, ratio)
        if count is None:
            return None
        size = kernel.kernel_size[0] * kernel.kernel_size[1]
        return [size, count], partial(factorize_separable, kernel, count)
    rank = chosen_rank(*matrix_shape(layer), ratio, multiple)
    if rank is None:
        return None
    return [min(matrix_shape(layer)), rank], partial(factorize, layer, rank)


def _no_saving(multiple: int) -> str:
    return f"no rank that is a multiple of {multiple} saves parameters"
