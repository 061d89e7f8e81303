"""The stage `quantize`: integer weights and activations, by ONNX Runtime's quantiser."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Literal

import onnx
import optuna
from pydantic import model_validator
from torch import nn

from parefront.errors import StageError
from parefront.spaces.quantization.calibration import Calibration
from parefront.spaces.quantization.equalization import equalize
from parefront.spaces.quantization.graph import (
    INTEGER_OPERATORS,
    nodes_on_integers,
    prepared,
    tidy,
)
from parefront.spaces.quantization.precision import Bits, Precision
from parefront.spaces.quantization.quantisers import dynamic_int8, static_int8
from parefront.spaces.ranges import Choice
from parefront.spaces.stage import (
    Applied,
    Form,
    Stage,
    StageChoices,
    StageConfig,
    StageContext,
)

Method = Literal["static", "dynamic"]

_ONLY_STATIC = ("correct_bias", "symmetric_activations", "symmetric_weights")

WEIGHTED = (
    *("Conv", "ConvTranspose", "Gemm", "MatMul", "LSTM", "GRU", "RNN"),
    *INTEGER_OPERATORS,
)
"""Operators that multiply weights."""


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

    @model_validator(mode="after")
    def _something_can_be_drawn(self) -> OnnxInt8Choices:
        if 16 in self.weight_bits.options and 16 not in self.activation_bits.options:
            raise ValueError("expected 16 among activation_bits beside weight_bits of 16, got 8")
        if False in self.symmetric_weights.options and False not in self.per_channel.options:
            raise ValueError(
                "expected false among per_channel beside symmetric_weights false, got true"
            )
        return self


class OnnxInt8(Stage[OnnxInt8Config, onnx.ModelProto]):
    """Quantises an exported model to 8 or 16 bits.

    Static quantisation writes weights as int8 and biases as int32, and rounds activations to
    uint8 by QuantizeLinear and DequantizeLinear pairs; int8 activations are slower than floating
    point on x86. Activations of 16 bits, with weights of 8 or 16, are nearer to floating point,
    and slower than it here. Dynamic quantisation is fast on transformers and slow on convolutions.

    `achieved` holds `quantized_nodes` and `float_nodes`: how many nodes of each operator work on
    integers, and how many with weights, or products, do not; with `equalize` also
    `equalized_pairs`, between how many pairs of layers channels were rescaled, and with
    `correct_bias` also `corrected_biases`, of how many layers the bias was corrected.
    """

    name: ClassVar[str] = "quantize"
    form: ClassVar[Form] = Form.ONNX
    rounds: ClassVar[bool] = True
    choices_type: ClassVar[type[StageChoices]] = OnnxInt8Choices
    config_type: ClassVar[type[StageConfig]] = OnnxInt8Config
    choices: OnnxInt8Choices

    def nothing_to_do(self, model: nn.Module, context: StageContext) -> str | None:  # noqa: ARG002
        """Whether the model has no weight to quantise."""
        if not any(parameter.ndim > 1 for parameter in model.parameters()):
            return "the model has no weight matrix or convolution kernel"
        return None

    def clashes(self, earlier: Sequence[type[Stage[Any, Any]]]) -> str | None:
        """Weights of 16 bits that were rounded again would only be worse."""
        rounded = any(stage.rounds and stage.form is Form.ONNX for stage in earlier)
        return "the weights have 16 bits already" if rounded else None

    def draw(
        self,
        trial: optuna.trial.BaseTrial,
        earlier: Mapping[str, StageConfig],  # noqa: ARG002
    ) -> OnnxInt8Config:
        """Draws a config; a calibration only for static quantisation."""

        def chosen(name: str) -> Any:  # noqa: ANN401 - the type of the field
            return getattr(self.choices, name).suggest(trial, f"{self.name}.{name}")

        fields: dict[str, Any] = {"method": chosen("method")}
        static = fields["method"] == "static"
        if static:
            fields["calibration"] = chosen("calibration")
        fields["per_channel"] = chosen("per_channel")
        fields["equalize"] = chosen("equalize")
        if static:
            fields["correct_bias"] = chosen("correct_bias")
            fields["activation_bits"] = chosen("activation_bits")
            if fields["activation_bits"] == 16:
                fields["weight_bits"] = chosen("weight_bits")
            fields["symmetric_activations"] = chosen("symmetric_activations")
            if not fields["per_channel"] and fields.get("weight_bits") != 16:
                fields["symmetric_weights"] = chosen("symmetric_weights")
        return OnnxInt8Config(**fields)

    def anchors(self) -> Sequence[OnnxInt8Config]:
        """Each method, by the plainest calibration and with a scale for each channel."""
        return [self._anchor(method) for method in self.choices.method.options]

    def _anchor(self, method: Method) -> OnnxInt8Config:
        choices = self.choices
        per_channel = choices.per_channel.prefer(True)
        plain = {
            "method": method,
            "per_channel": per_channel,
            "equalize": choices.equalize.prefer(False),
        }
        if method == "dynamic":
            return OnnxInt8Config.model_validate(plain)
        bits = choices.activation_bits.prefer(8)
        weight_bits = choices.weight_bits.prefer(8) if bits == 16 else 8
        return OnnxInt8Config.model_validate(
            plain
            | {
                "calibration": choices.calibration.prefer("minmax"),
                "correct_bias": choices.correct_bias.prefer(False),
                "activation_bits": bits,
                "weight_bits": weight_bits,
                "symmetric_activations": choices.symmetric_activations.prefer(False),
                "symmetric_weights": per_channel
                or weight_bits == 16
                or choices.symmetric_weights.prefer(True),
            }
        )

    def apply(
        self, model: onnx.ModelProto, config: OnnxInt8Config, context: StageContext
    ) -> Applied[onnx.ModelProto]:
        """Quantises a copy of the model.

        Raises:
            StageError: If nothing in the model can be quantised, there is nothing to calibrate
                on, or ONNX Runtime refuses the model.
        """
        folded = prepared(model)
        context.tick()
        done = {}
        if config.equalize:
            done["equalized_pairs"] = equalize(folded, context.tick)
        if config.calibration is None:
            result = dynamic_int8(folded, config.per_channel)
        else:
            result, corrected = static_int8(
                folded, config.precision, config.calibration, bool(config.correct_bias), context
            )
            if config.correct_bias:
                done["corrected_biases"] = corrected
        tidy(result)
        on_integers = Counter(node.op_type for node in nodes_on_integers(result))
        present = Counter(node.op_type for node in result.graph.node)
        quantized = {op: on_integers[op] for op in WEIGHTED if on_integers[op]}
        left = {
            op: present[op] - on_integers[op] for op in WEIGHTED if present[op] > on_integers[op]
        }
        if not quantized:
            raise StageError(
                f"{config.method} quantisation found nothing to quantise among the operators"
                f" {', '.join(sorted(present))}"
            )
        return Applied(result, {"quantized_nodes": quantized, "float_nodes": left} | done)
