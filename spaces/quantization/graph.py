"""What quantisation does to an ONNX graph before and after the quantiser."""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import onnx
import onnxruntime

from parefront.errors import StageError

INTEGER_OPERATORS = ("ConvInteger", "MatMulInteger", "DynamicQuantizeLSTM")
"""What dynamic quantisation makes of convolutions, matrix products and LSTMs."""

_QUANTISER = Path(onnxruntime.__file__).parent / "quantization"


@contextmanager
def refusals(what: str) -> Iterator[None]:
    """Turns errors of ONNX Runtime and its quantiser into a `StageError`."""
    try:
        yield
    except Exception as error:
        lines = str(error).strip().splitlines()
        reason = f"{type(error).__name__}: {lines[0]}" if lines else type(error).__name__
        raise StageError(f"ONNX Runtime could not {what}: {reason}") from error


@contextmanager
def quiet_quantiser() -> Iterator[None]:
    """Drops what the quantiser writes to the root logger, and to that of its 4 bits.

    It writes through `logging.warning`, which besides gives a program without handlers one that
    prints to stderr from then on; so does importing its 4 bits, which belongs in here, too.
    """

    def from_elsewhere(record: logging.LogRecord) -> bool:
        return not Path(record.pathname).is_relative_to(_QUANTISER)

    root, handler = logging.getLogger(), logging.NullHandler()
    loggers = (root, logging.getLogger("onnxruntime.quantization.matmul_nbits_quantizer"))
    for logger in loggers:
        logger.addFilter(from_elsewhere)
    root.addHandler(handler)
    try:
        yield
    finally:
        root.removeHandler(handler)
        for logger in loggers:
            logger.removeFilter(from_elsewhere)


def prepared(model: onnx.ModelProto) -> onnx.ModelProto:
    """A copy with constants folded, batch normalisation fused, types inferred and nodes named.

    Raises:
        StageError: If ONNX Runtime cannot load the model.
    """
    with tempfile.TemporaryDirectory(prefix="parefront-") as folder:
        path = Path(folder, "folded.onnx")
        options = onnxruntime.SessionOptions()
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC
        options.optimized_model_filepath = str(path)
        options.log_severity_level = 3
        with refusals("load the exported model"):
            onnxruntime.InferenceSession(
                model.SerializeToString(), options, providers=["CPUExecutionProvider"]
            )
        folded = onnx.load(path)
    # Shapes that an exporter wrote may contradict those of the folded graph.
    folded.graph.ClearField("value_info")
    folded = onnx.shape_inference.infer_shapes(folded)
    taken = {node.name for node in folded.graph.node}
    for index, node in enumerate(folded.graph.node):
        # The quantiser addresses nodes by name, and would take all without one for the same.
        if not node.name:
            node.name = f"{node.op_type}_{index}"
            while node.name in taken:
                node.name += "_"
            taken.add(node.name)
    return folded


def tidy(model: onnx.ModelProto) -> None:
    """Drops what the file does not need to run: inferred shapes, notes, unused operator sets."""
    model.graph.ClearField("value_info")
    model.ClearField("metadata_props")
    domains = {node.domain for node in model.graph.node}
    used = [entry for entry in model.opset_import if entry.domain in domains]
    del model.opset_import[:]
    model.opset_import.extend(used)


def keep_outputs_float(model: onnx.ModelProto) -> None:
    """Removes the rounding of outputs that a Gemm or MatMul computes.

    Such an output comes out of a 32-bit accumulator. Rounded to 8 bits it would have 256 values:
    logits would tie, and regressions be off by up to half a step, without any gain in speed.
    """
    graph = model.graph
    producers = {name: node for node in graph.node for name in node.output}
    for output in graph.output:
        dequantize = producers.get(output.name)
        if dequantize is None or dequantize.op_type != "DequantizeLinear":
            continue
        quantize = producers.get(dequantize.input[0])
        if quantize is None or quantize.op_type != "QuantizeLinear":
            continue
        source = producers.get(quantize.input[0])
        if source is None or source.op_type not in {"Gemm", "MatMul"}:
            continue
        if any(output.name in node.input for node in graph.node):
            continue  # others would lose their 8-bit input
        graph.node.remove(quantize)
        graph.node.remove(dequantize)
        source.output[0] = output.name
    read = {name for node in graph.node for name in node.input}
    kept = [tensor for tensor in graph.initializer if tensor.name in read]
    graph.ClearField("initializer")
    graph.initializer.extend(kept)


def nodes_on_integers(model: onnx.ModelProto) -> list[onnx.NodeProto]:
    """The nodes that multiply 8-bit tensors.

    These are integer operators, and floating-point ones that read what DequantizeLinear nodes
    write, which the runtime replaces by integer ones.
    """
    dequantized = {
        name
        for node in model.graph.node
        if node.op_type == "DequantizeLinear"
        for name in node.output
    }
    return [
        node
        for node in model.graph.node
        if node.op_type in INTEGER_OPERATORS or dequantized.issuperset(node.input[:2])
    ]
