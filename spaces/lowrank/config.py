"""What is chosen about factorisation."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, ValidationInfo, field_validator, model_validator
from torch import nn

from parefront.spaces.lowrank.layers import Dense
from parefront.spaces.lowrank.ways import Convolution, Wanted
from parefront.spaces.ranges import Choice, FloatRange
from parefront.spaces.stage import StageChoices, StageConfig

Layers = Literal["linear", "conv", "all"]
Rank = Literal["ratio", "sensitivity", "latency", "energy"]

KINDS: dict[Layers, tuple[type[Dense], ...]] = {
    "linear": (nn.Linear,),
    "conv": (nn.Conv2d,),
    "all": (nn.Linear, nn.Conv2d),
}


class FactorizationConfig(StageConfig):
    """One way to factorise layers.

    Attributes:
        rank: How ranks are chosen: `"ratio"`, the same share of what would save nothing in each
            layer; `"sensitivity"`, that share of all weights together, more in layers that the
            loss needs; `"latency"`, in each layer the largest rank that was seen to run in a share
            of the layer's time on the target; or `"energy"`, in each layer as few as hold a share
            of its energy, the squared sum of its singular values. But for the first, layers that
            lose too much by it, or gain nothing, stay dense.
        ratio: Rank as a fraction, in (0, 1], of the rank at which the factors have as many
            parameters as the layer; for `"latency"`, latency as a fraction of the layer's, at 1
            that of the rank which just breaks even; `None` when, and only when, ranks are chosen
            by energy.
        energy: Share of the energy that is held, in (0, 1]; `None` but for `"energy"`.
        layers: `"linear"` for Linear layers, `"conv"` for Conv2d layers, `"all"` for both.
        convolution: How a kernel larger than 1x1 is factorised: `"spatial"`, into a vertical and a
            horizontal one; `"tucker"`, into fewer channels before and after a kernel of the same
            size; `"separable"`, into kernels for each input channel and a mixture of them;
            `"grouped"`, into kernels for each of some groups of channels and a mixture; or
            `"bottleneck"`, into fewer kernels and a mixture.
        multiple: Ranks are rounded down to multiples of this, but not to 0; by energy, up.
        embeddings: Whether embeddings are factorised too.
        layerwise: Whether each replaced layer then learns by itself what the dense one answers.
        first: Whether layers are factorised before channels are pruned, which then narrows the
            factors too, and not after.

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
    first: bool = False

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
    def share(self) -> float:
        """The ratio or the energy."""
        return self.ratio or self.energy or 1.0

    @property
    def wanted(self) -> Wanted:
        """How much of a layer is to be kept, unless layers differ in it."""
        return Wanted(self.share, self.multiple, energy=self.rank == "energy")

    @property
    def kinds(self) -> tuple[type[Dense | nn.Embedding], ...]:
        """Types of the layers that are factorised."""
        return kinds(self.layers, self.embeddings)


class FactorizationChoices(StageChoices):
    """What a study file may say about factorisation.

    Attributes:
        rank: Ways to choose ranks to choose from.
        ratio: Fraction of the break-even rank, or of the latency for the rank `"latency"`, within
            (0, 1]; not drawn for the rank `"energy"`.
        energy: Share of the energy to hold, within (0, 1]; drawn only for the rank `"energy"`.
        layers: Kinds of layers to choose from. `"linear"` and `"conv"` besides `"all"` are worth
            a parameter only in models that have both.
        convolution: Ways to factorise a kernel to choose from.
        multiple: Multiples to round ranks to; what runs well on the target if not given.
        embeddings: Whether embeddings may be factorised too.
        layerwise: Whether each replaced layer may learn by itself what the dense one answers.
        first: Whether layers may be factorised before channels are pruned; drawn only where both
            are done.
    """

    rank: Choice[Rank] = Choice[Rank](options=("ratio",))
    ratio: FloatRange = FloatRange(low=0.2, high=0.8)
    energy: FloatRange = FloatRange(low=0.5, high=0.98)
    layers: Choice[Layers] = Choice[Layers](options=("all",))
    convolution: Choice[Convolution] = Choice[Convolution](options=("spatial",))
    multiple: Choice[Annotated[int, Field(ge=1)]] | None = None
    embeddings: Choice[bool] = Choice[bool](options=(False,))
    layerwise: Choice[bool] = Choice[bool](options=(False,))
    first: Choice[bool] = Choice[bool](options=(False,))

    @field_validator("ratio", "energy")
    @classmethod
    def _fractions(cls, value: FloatRange, info: ValidationInfo) -> FloatRange:
        if value.low <= 0 or value.high > 1:
            of = "the break-even rank or latency" if info.field_name == "ratio" else "the energy"
            raise ValueError(
                f"expected fractions of {of} within (0, 1], got [{value.low}, {value.high}]"
            )
        return value


def kinds(layers: Layers, embeddings: bool) -> tuple[type[Dense | nn.Embedding], ...]:
    """Types of the layers that are factorised."""
    return (*KINDS[layers], nn.Embedding) if embeddings else KINDS[layers]
