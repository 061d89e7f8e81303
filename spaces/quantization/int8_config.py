"""What the stage `quantize` may be told, and one way to quantise."""

from __future__ import annotations

from typing import Literal

from pydantic import model_validator

from parefront.spaces.quantization.calibration import Calibration
from parefront.spaces.quantization.precision import Bits, Precision
from parefront.spaces.ranges import Choice
from parefront.spaces.stage import StageChoices, StageConfig

Method = Literal["static", "dynamic"]

_ONLY_STATIC = ("correct_bias", "symmetric_activations", "symmetric_weights")


class OnnxInt8Config(StageConfig):
    """One way to quantise.

    Attributes:
        method: `"static"` fixes the ranges of activations beforehand, on calibration examples;
            `"dynamic"` computes them in each run, and only for matrix products, convolutions
            and LSTMs.
        calibration: How static quantisation chooses ranges; `None` for dynamic.
        per_channel: Whether each output channel of a weight has a scale of its own.
        equalize: Whether channels of consecutive layers are rescaled to equal ranges before.
        correct_bias: Whether the mean error of static quantisation on calibration examples is
            taken out of the biases; `None` for dynamic.
        activation_bits: Bits of an activation; 16 for static quantisation alone.
        weight_bits: Bits of a weight; 16 only beside activations of 16.
        symmetric_activations: Whether ranges of activations reach as far below zero as above;
            `None` for dynamic, which computes them as they come.
        symmetric_weights: Whether zero is the integer 0 of a weight, as it is wherever each channel
            has a scale of its own, or weights have 16 bits; `None` for dynamic, which has what is
            fastest for each operator.
        reduce_range: Whether weights of 8 bits use 7 of them, so that sums of products do not
            saturate on processors that add them in 16 bits.

    Example:
        >>> OnnxInt8Config(method="static", calibration="minmax", per_channel=True).correct_bias
        False
    """

    method: Method
    calibration: Calibration | None = None
    per_channel: bool
    equalize: bool = False
    correct_bias: bool | None = None
    activation_bits: Bits = 8
    weight_bits: Bits = 8
    symmetric_activations: bool | None = None
    symmetric_weights: bool | None = None
    reduce_range: bool = False

    @model_validator(mode="before")
    @classmethod
    def _plain_unless_told(cls, given: object) -> object:
        if isinstance(given, dict) and given.get("method") == "static":
            return dict.fromkeys(_ONLY_STATIC, False) | {"symmetric_weights": True} | given
        return given

    @model_validator(mode="after")
    def _calibrates_only_static(self) -> OnnxInt8Config:
        if self.method == "static" and self.calibration is None:
            raise ValueError("expected a calibration for static quantisation, got none")
        if self.method == "dynamic" and self.calibration is not None:
            raise ValueError(
                f"expected no calibration for dynamic quantisation, got '{self.calibration}'"
            )
        for name in _ONLY_STATIC:
            value = getattr(self, name)
            if self.method == "static" and value is None:
                raise ValueError(f"expected {name} true or false for static quantisation, got none")
            if self.method == "dynamic" and value is not None:
                raise ValueError(
                    f"expected no {name} for dynamic quantisation, got {value}; leave it out"
                )
        return self

    @model_validator(mode="after")
    def _wide_or_asymmetric_where_it_runs(self) -> OnnxInt8Config:
        if self.method == "dynamic" and 16 in (self.activation_bits, self.weight_bits):
            raise ValueError("expected 8 bits for dynamic quantisation, got 16; use static")
        if self.weight_bits > self.activation_bits:
            raise ValueError(
                "expected weights of at most the activations' bits, got weight_bits"
                f" {self.weight_bits} beside activation_bits {self.activation_bits}"
            )
        # The quantiser makes channels symmetric whatever it is told, and keeps biases within their
        # 32 bits only where weights are: of 16 bits, they would overflow.
        if self.symmetric_weights is False and (self.per_channel or self.weight_bits == 16):
            raise ValueError(
                "expected symmetric_weights true beside per_channel or 16-bit weights, got false"
            )
        if self.reduce_range and self.activation_bits == 16:
            raise ValueError(
                "expected reduce_range false beside activation_bits of 16, whose products do not"
                " saturate, got true"
            )
        return self

    @property
    def precision(self) -> Precision:
        """What static quantisation stores."""
        return Precision(
            activations=self.activation_bits,
            weights=self.weight_bits,
            per_channel=self.per_channel,
            symmetric_activations=bool(self.symmetric_activations),
            symmetric_weights=bool(self.symmetric_weights),
            reduce_range=self.reduce_range,
        )


class OnnxInt8Choices(StageChoices):
    """What a study file may say about quantisation.

    Attributes:
        method: Methods to choose from.
        calibration: Calibrations to choose from, drawn only for static quantisation.
        per_channel: Whether weights may have one scale, or one for each channel.
        equalize: Whether channels may be rescaled to equal ranges before.
        correct_bias: Whether biases may be corrected, drawn only for static quantisation.
        activation_bits: 8 or 16 bits of an activation, drawn only for static quantisation.
        weight_bits: 8 or 16 bits of a weight, drawn only beside activations of 16.
        symmetric_activations: Whether ranges of activations are the same on both sides of zero,
            drawn only for static quantisation.
        symmetric_weights: Whether zero is the integer 0 of a weight, drawn only for static
            quantisation with one scale for a tensor and weights of 8 bits.
        reduce_range: Whether weights of 8 bits use 7 of them, drawn only beside activations of 8;
            what the target needs if not given.
    """

    method: Choice[Method] = Choice[Method](options=("static", "dynamic"))
    calibration: Choice[Calibration] = Choice[Calibration](
        options=("minmax", "entropy", "percentile")
    )
    per_channel: Choice[bool] = Choice[bool](options=(True, False))
    equalize: Choice[bool] = Choice[bool](options=(False,))
    correct_bias: Choice[bool] = Choice[bool](options=(False,))
    activation_bits: Choice[Bits] = Choice[Bits](options=(8,))
    weight_bits: Choice[Bits] = Choice[Bits](options=(8,))
    symmetric_activations: Choice[bool] = Choice[bool](options=(False,))
    symmetric_weights: Choice[bool] = Choice[bool](options=(True,))
    reduce_range: Choice[bool] | None = None

    @model_validator(mode="after")
    def _something_can_be_drawn(self) -> OnnxInt8Choices:
        if 16 in self.weight_bits.options and 16 not in self.activation_bits.options:
            raise ValueError("expected 16 among activation_bits beside weight_bits of 16, got 8")
        if False in self.symmetric_weights.options and False not in self.per_channel.options:
            raise ValueError(
                "expected false among per_channel beside symmetric_weights false, got true"
            )
        return self
