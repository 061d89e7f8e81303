"""The stage `blocks`: matrices of 4 bits with a scale for every few weights."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, ClassVar

import onnx
import optuna
from onnx import version_converter
from onnxruntime.quantization import QuantFormat
from onnxruntime.quantization.onnx_model import ONNXModel
from pydantic import AfterValidator
from torch import nn

from parefront.errors import StageError
from parefront.spaces.quantization.graph import prepared, quiet_quantiser, refusals, tidy
from parefront.spaces.ranges import Choice
from parefront.spaces.stage import (
    Applied,
    Form,
    Stage,
    StageChoices,
    StageConfig,
    StageContext,
)

with quiet_quantiser():  # the import would set up the logging of the whole program
    pass

_OPSET = 21
"""The first operator set whose DequantizeLinear has blocks and 4 bits."""
_WEIGHTED = ("MatMul", "Gemm", "Conv", "ConvTranspose", "LSTM", "GRU", "RNN")


def _a_power(value: int) -> int:
    if value < 16 or value & (value - 1):
        raise ValueError(f"expected a power of two from 16 on, got {value}")
    return value


BlockSize = Annotated[int, AfterValidator(_a_power)]


class BlockConfig(StageConfig):
    """One way to quantise blocks.

    Attributes:
        size: Weights of an output that share a scale: a power of two from 16 on.
        symmetric: Whether blocks have no zero point.
    """

    size: BlockSize
    symmetric: bool


class BlockChoices(StageChoices):
    """What a study file may say about blocks.

    Attributes:
        size: Sizes to choose from, powers of two from 16 on.
        symmetric: Whether blocks may have a zero point, or none.
    """

    size: Choice[BlockSize] = Choice[BlockSize](options=(32, 128))
    symmetric: Choice[bool] = Choice[bool](options=(False,))


class BlockQuantization(Stage[BlockConfig, onnx.ModelProto]):
    """Rounds the matrices of an exported model to 4 bits, by ONNX Runtime's quantiser.

    They are stored as 4-bit integers with DequantizeLinear, which ONNX Runtime computes with as
    they are (MatMulNBits). Convolutions, embeddings and recurrent layers stay as they are.
    `achieved` holds `matrices`, how many were rounded, and `left`, how many other nodes with
    weights, or products, there are of each operator.
    """

    name: ClassVar[str] = "blocks"
    form: ClassVar[Form] = Form.ONNX
    rounds: ClassVar[bool] = True
    choices_type: ClassVar[type[StageChoices]] = BlockChoices
    config_type: ClassVar[type[StageConfig]] = BlockConfig
    choices: BlockChoices

    def nothing_to_do(self, model: nn.Module, context: StageContext) -> str | None:  # noqa: ARG002
        """Whether the model has no matrix."""
        matrices = (nn.Linear, nn.MultiheadAttention)
        if not any(isinstance(module, matrices) for module in model.modules()):
            return "the model has no Linear or attention layer"
        return None

    def clashes(self, earlier: Sequence[type[Stage[Any, Any]]]) -> str | None:
        """Weights of few bits that were rounded again would only be worse."""
        rounded = any(stage.rounds for stage in earlier)
        return "the weights have few values already" if rounded else None

    def draw(
        self,
        trial: optuna.trial.BaseTrial,
        earlier: Mapping[str, StageConfig],  # noqa: ARG002
    ) -> BlockConfig:
        """Draws a config."""
        return BlockConfig(
            size=self.choices.size.suggest(trial, f"{self.name}.size"),
            symmetric=self.choices.symmetric.suggest(trial, f"{self.name}.symmetric"),
        )

    def anchors(self) -> Sequence[BlockConfig]:
        """Blocks of 32."""
        choices = self.choices
        return [
            BlockConfig(size=choices.size.prefer(32), symmetric=choices.symmetric.prefer(False))
        ]

    def apply(
        self, model: onnx.ModelProto, config: BlockConfig, context: StageContext
    ) -> Applied[onnx.ModelProto]:
        """Quantises a copy of the model.

        Raises:
            StageError: If it has no constant matrix, or ONNX Runtime refuses it.
        """
        folded = ONNXModel(prepared(model))
        context.tick()
        folded.replace_gemm_with_matmul()
        with refusals("quantise the exported model"), quiet_quantiser():
            # Its module sets up logging for the whole program, unless there is a handler already.
            from onnxruntime.quantization.matmul_nbits_quantizer import MatMulNBitsQuantizer

            quantizer = MatMulNBitsQuantizer(
                version_converter.convert_version(folded.model, _OPSET),
                block_size=config.size,
                is_symmetric=config.symmetric,
                quant_format=QuantFormat.QDQ,
                op_types_to_quantize=("MatMul",),
            )
            quantizer.process()
        result: onnx.ModelProto = quantizer.model.model
        _once(result.graph)
        tidy(result)
        rounded = sum(node.op_type == "DequantizeLinear" for node in result.graph.node)
        if not rounded:
            raise StageError(
                "the exported model has no constant matrix to round, among the operators "
                + ", ".join(sorted({node.op_type for node in result.graph.node}))
            )
        return Applied(result, {"matrices": rounded, "left": _left(result.graph)})


def _left(graph: onnx.GraphProto) -> dict[str, int]:
    """Nodes that multiply, and tables that are read, without 4 bits, by operator."""
    made = {node.output[0] for node in graph.node if node.op_type == "DequantizeLinear"}
    tables = {tensor.name for tensor in graph.initializer if len(tensor.dims) > 1}
    left = Counter(
        node.op_type
        for node in graph.node
        if made.isdisjoint(node.input)
        and (node.op_type in _WEIGHTED or (node.op_type == "Gather" and node.input[0] in tables))
    )
    return dict(sorted(left.items()))


def _once(graph: onnx.GraphProto) -> None:
    """Drops what the quantiser wrote a second time, for a weight that several products share."""
    for parts in (graph.initializer, graph.node):
        seen: set[str] = set()
        kept = []
        for part in parts:
            name = part.name if isinstance(part, onnx.TensorProto) else part.output[0]
            if name not in seen:
                kept.append(part)
            seen.add(name)
        del parts[:]
        parts.extend(kept)
