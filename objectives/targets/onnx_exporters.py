"""The two exporters of torch, made quiet and their files made reproducible."""

from __future__ import annotations

import io
import logging
import os
import sys
import warnings
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, redirect_stderr, redirect_stdout
from pathlib import Path
from typing import cast

import onnx
import torch
from torch import nn

from parefront.errors import BuildError
from parefront.objectives.targets.axes import Axes, by_parameters
from parefront.objectives.targets.onnx_equal_weights import merge_equal_weights
from parefront.objectives.targets.shape_checks import only_shapes_decide

OPSET = 18
"""The newest version both exporters write themselves, and one that ONNX Runtime's quantisation
tools read without conversion."""

_TORCH = Path(torch.__file__).parent
_BRANCH = "Converting a tensor to a Python boolean"
_LOGGERS = ("torch", "torch.onnx", "torch.export", "onnxscript", "onnx_ir")


def trace(
    module: nn.Module,
    example: tuple[torch.Tensor, ...],
    input_names: Sequence[str],
    output_names: Sequence[str],
    axes: Axes,
) -> bytes:
    """Exports by running the module once and recording its operators.

    Raises:
        BuildError: If an operator has no ONNX counterpart, or the module turned a tensor into
            a Python value: the trace would follow the example's values for ever.
    """
    buffer = io.BytesIO()
    with _silent_stdout(), _quiet() as caught:
        try:
            torch.onnx.export(
                module,
                example,
                buffer,  # type: ignore[arg-type]  # a stream is accepted, and needs no file
                dynamo=False,
                opset_version=OPSET,
                input_names=list(input_names),
                output_names=list(output_names),
                dynamic_axes=axes or None,
            )
        except Exception as error:  # the module's own code runs here, and may raise anything
            raise BuildError(_reason(error)) from error
    # torch's own layers check shapes in Python, which is harmless, and so are constants made
    # in forward: making one from a tensor's value draws another warning.
    doubts = [
        warning
        for warning in caught
        if not Path(warning.filename).is_relative_to(_TORCH)
        and "registered as constants" not in str(warning.message)
    ]
    # To the tracer shapes are tensors too.
    branches = all(_BRANCH in str(warning.message) for warning in doubts)
    places = frozenset(f"{warning.filename}:{warning.lineno}" for warning in doubts)
    if doubts and not (branches and only_shapes_decide(module, example, input_names, axes, places)):
        place = f"{Path(doubts[0].filename).name}:{doubts[0].lineno}"
        said = str(doubts[0].message).split(". ")[0]
        raise BuildError(f"its control flow depends on tensors at {place} ({said})")
    return _tidy(onnx.load_model_from_string(buffer.getvalue()), example, input_names, axes)


def export_program(
    module: nn.Module,
    example: tuple[torch.Tensor, ...],
    input_names: Sequence[str],
    output_names: Sequence[str],
    axes: Axes,
) -> bytes:
    """Exports through `torch.export`, which follows shapes symbolically.

    Raises:
        BuildError: If the module depends on tensors' values, or an operator has no ONNX
            counterpart.
    """
    shapes = by_parameters(module, [dict(axes.get(name, {})) for name in input_names])
    with _quiet():
        try:
            program = torch.onnx.export(
                module,
                example,
                dynamo=True,
                opset_version=OPSET,
                input_names=list(input_names),
                output_names=list(output_names),
                dynamic_shapes=shapes if axes else None,
                verbose=False,
            )
            model = cast(torch.onnx.ONNXProgram, program).model_proto
            return _tidy(model, example, input_names, axes)
        except Exception as error:  # the module's own code runs here, and may raise anything
            raise BuildError(_reason(error)) from error


def _tidy(
    model: onnx.ModelProto,
    example: tuple[torch.Tensor, ...],
    input_names: Sequence[str],
    axes: Axes,
) -> bytes:
    """Drops what depends on where and how the file was made; the computation stays.

    Source positions and inferred shapes go; every input is declared, used or not; copies of
    shared weights become the weights themselves, as quantisation tools expect; and weights that
    are equal are stored once.
    """
    graph = model.graph
    model.ClearField("metadata_props")
    model.ClearField("doc_string")
    for part in (graph, *graph.node, *graph.input, *graph.output, *graph.initializer):
        part.ClearField("metadata_props")
        part.ClearField("doc_string")
    graph.ClearField("value_info")
    _inline_copies(graph)
    merge_equal_weights(graph)

    declared = {entry.name: entry for entry in graph.input}
    for name, tensor in zip(input_names, example, strict=True):
        if name not in declared:
            kind = onnx.helper.np_dtype_to_tensor_dtype(tensor.numpy().dtype)
            names = axes.get(name, {})
            shape = [names.get(axis, size) for axis, size in enumerate(tensor.shape)]
            declared[name] = onnx.helper.make_tensor_value_info(name, kind, shape)
    inputs = [declared[name] for name in input_names]
    del graph.input[:]
    graph.input.extend(inputs)
    data: bytes = model.SerializeToString(deterministic=True)
    return data


def _inline_copies(graph: onnx.GraphProto) -> None:
    """Replaces Identity nodes over weights by the weights.

    Outputs of the graph keep their node, and so does everything a subgraph may refer to.
    """
    if any(attribute.HasField("g") for node in graph.node for attribute in node.attribute):
        return
    kept = {entry.name for entry in graph.output}
    weights = {tensor.name: tensor.name for tensor in graph.initializer}
    nodes = []
    for node in graph.node:
        for index, name in enumerate(node.input):
            node.input[index] = weights.get(name, name)
        if node.op_type == "Identity" and node.input[0] in weights and node.output[0] not in kept:
            weights[node.output[0]] = node.input[0]
        else:
            nodes.append(onnx.NodeProto.FromString(node.SerializeToString()))
    del graph.node[:]
    graph.node.extend(nodes)


@contextmanager
def _quiet() -> Iterator[list[warnings.WarningMessage]]:
    """Silences the exporters' remarks, and collects the tracer's warnings."""
    with ExitStack() as stack:
        # Graphs and hints are also printed, by the module's code as well as by torch.
        stack.enter_context(redirect_stdout(io.StringIO()))
        stack.enter_context(redirect_stderr(io.StringIO()))
        for name in _LOGGERS:
            logger = logging.getLogger(name)
            stack.callback(logger.setLevel, logger.level)
            logger.setLevel(logging.CRITICAL + 1)
        caught = stack.enter_context(warnings.catch_warnings(record=True))
        # What the exporters think of the model or of themselves: the file is compared with the
        # module afterwards, which says more.
        warnings.simplefilter("ignore")
        warnings.simplefilter("always", torch.jit.TracerWarning)  # type: ignore[attr-defined]
        yield caught


@contextmanager
def _silent_stdout() -> Iterator[None]:
    """Sends file descriptor 1 to nowhere: on failure the tracer prints the graph there from C++."""
    sys.stdout.flush()
    kept = os.dup(1)
    nowhere = os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(nowhere, 1)
        yield
    finally:
        os.dup2(kept, 1)
        os.close(kept)
        os.close(nowhere)


def _reason(error: BaseException) -> str:
    """The first line of the error at the root, cut to a readable length."""
    while error.__cause__ is not None:
        error = error.__cause__
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0]}"[:400] if lines else type(error).__name__
