"""The stage `quantize`: 8-bit weights and activations, by ONNX Runtime's quantiser."""

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

    Example:
        >>> OnnxInt8Config(method="static", calibration="minmax", per_channel=True).correct_bias
        False
    """

    method: Method
    calibration: Calibration | None = None
    per_channel: bool
    equalize: bool = False
    correct_bias: bool | None = None

    @model_validator(mode="before")
    @classmethod
    def _corrects_nothing_unless_told(cls, given: object) -> object:
        if isinstance(given, dict) and given.get("method") == "static":
            return {"correct_bias": False} | given
        return given

    @model_validator(mode="after")
    def _calibrates_only_static(self) -> OnnxInt8Config:
        if self.method == "static" and self.calibration is None:
            raise ValueError("expected a calibration for static quantisation, got none")
        if self.method == "dynamic" and self.calibration is not None:
            raise ValueError(
                f"expected no calibration for dynamic quantisation, got '{self.calibration}'"
            )
        if self.method == "static" and self.correct_bias is None:
            raise ValueError(
                "expected correct_bias true or false for static quantisation, got none"
            )
        if self.method == "dynamic" and self.correct_bias is not None:
            raise ValueError(
                f"expected no correct_bias for dynamic quantisation, got {self.correct_bias};"
                " leave it out"
            )
        return self


class OnnxInt8Choices(StageChoices):
    """What a study file may say about quantisation.

    Attributes:
        method: Methods to choose from.
        calibration: Calibrations to choose from, drawn only for static quantisation.
        per_channel: Whether weights may have one scale, or one for each channel.
        equalize: Whether channels may be rescaled to equal ranges before.
        correct_bias: Whether biases may be corrected, drawn only for static quantisation.
    """

    method: Choice[Method] = Choice[Method](options=("static", "dynamic"))
    calibration: Choice[Calibration] = Choice[Calibration](
        options=("minmax", "entropy", "percentile")
    )
    per_channel: Choice[bool] = Choice[bool](options=(True, False))
    equalize: Choice[bool] = Choice[bool](options=(False,))
    correct_bias: Choice[bool] = Choice[bool](options=(False,))


class OnnxInt8(Stage[OnnxInt8Config, onnx.ModelProto]):
    """Quantises an exported model to 8 bits.

    Static quantisation writes weights as int8 and biases as int32, and rounds activations to
    uint8 by QuantizeLinear and DequantizeLinear pairs; int8 activations are slower than floating
    point on x86. Dynamic quantisation is fast on transformers and slow on convolutions.

    `achieved` holds `quantized_nodes` and `float_nodes`: how many nodes of each operator work on
    8 bits, and how many with weights, or products, do not; with `equalize` also
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
        choices = self.choices
        method = choices.method.suggest(trial, f"{self.name}.method")
        return OnnxInt8Config(
            method=method,
            calibration=choices.calibration.suggest(trial, f"{self.name}.calibration")
            if method == "static"
            else None,
            per_channel=choices.per_channel.suggest(trial, f"{self.name}.per_channel"),
            equalize=choices.equalize.suggest(trial, f"{self.name}.equalize"),
            correct_bias=choices.correct_bias.suggest(trial, f"{self.name}.correct_bias")
            if method == "static"
            else None,
        )

    def anchors(self) -> Sequence[OnnxInt8Config]:
        """Each method, by the plainest calibration and with a scale for each channel."""
        choices = self.choices
        return [
            OnnxInt8Config(
                method=method,
                calibration=choices.calibration.prefer("minmax") if method == "static" else None,
                per_channel=choices.per_channel.prefer(True),
                equalize=choices.equalize.prefer(False),
                correct_bias=choices.correct_bias.prefer(False) if method == "static" else None,
            )
            for method in choices.method.options
        ]

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
                folded, config.per_channel, config.calibration, bool(config.correct_bias), context
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
