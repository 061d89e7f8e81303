"""The stage `quantize`: integer weights and activations, by ONNX Runtime's quantiser."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import onnx
import optuna
from torch import nn

from parefront.errors import StageError
from parefront.spaces.quantization.equalization import equalize
from parefront.spaces.quantization.graph import (
    INTEGER_OPERATORS,
    nodes_on_integers,
    prepared,
    tidy,
)
from parefront.spaces.quantization.int8_config import Method, OnnxInt8Choices, OnnxInt8Config
from parefront.spaces.quantization.quantisers import dynamic_int8, static_int8
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

__all__ = ["OnnxInt8", "OnnxInt8Choices", "OnnxInt8Config"]

WEIGHTED = (
    *("Conv", "ConvTranspose", "Gemm", "MatMul", "LSTM", "GRU", "RNN"),
    *INTEGER_OPERATORS,
)
"""Operators that multiply weights."""


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

    def __init__(self, choices: OnnxInt8Choices, target: TargetTraits) -> None:
        """Binds the stage to its ranges and to what the target's products of integers need."""
        super().__init__(choices, target)
        self.reduce_range = choices.reduce_range or Choice[bool](options=(target.saturates,))

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
        if fields.get("activation_bits") != 16:
            fields["reduce_range"] = self.reduce_range.suggest(trial, f"{self.name}.reduce_range")
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
            "reduce_range": self.reduce_range.prefer(self.target.saturates),
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
                "reduce_range": bits == 8 and plain["reduce_range"],
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
            result = dynamic_int8(folded, config.per_channel, config.reduce_range)
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
