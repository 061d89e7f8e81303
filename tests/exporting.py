"""Exports modules to ONNX and runs them, to prove that what a stage made can ship."""

from __future__ import annotations

import io
import warnings
from collections.abc import Sequence

import numpy as np
import onnx
import onnxruntime
import torch
from torch import nn

from parefront.objectives.targets.fingerprint import fingerprint, saturates
from parefront.objectives.targets.runtime import Array
from parefront.spaces.ruled import baked
from parefront.spaces.stage import Inputs, StageContext

SATURATES = saturates(fingerprint("onnxruntime", 1))
"""Whether weights of 8 bits are too much for this machine."""


def export(module: nn.Module, context: StageContext) -> onnx.ModelProto:
    """The module as ONNX, with the batch dimension of its inputs left open."""
    file = io.BytesIO()
    with warnings.catch_warnings():
        # The exporter is deprecated in favour of one that takes twenty times as long.
        warnings.filterwarnings(
            "ignore",
            message="You are using the legacy TorchScript|The feature will be removed",
            category=DeprecationWarning,
        )
        # torch's own layers check shapes in Python, which is harmless.
        warnings.filterwarnings(
            "ignore",
            "Converting a tensor to a Python boolean",
            module=r"torch\.nn\.(functional|modules\.rnn)",
        )
        # The batch is left open, and two sizes of it are compared.
        warnings.filterwarnings("ignore", "Exporting a model to ONNX with a batch_size other")
        torch.onnx.export(
            baked(module.eval()),
            context.example,
            file,  # type: ignore[arg-type]  # a stream is accepted
            input_names=list(context.input_names),
            dynamic_axes={name: {0: "batch"} for name in context.input_names},
            dynamo=False,
        )
    return onnx.load_from_string(file.getvalue())


def run(model: onnx.ModelProto, context: StageContext, inputs: Inputs) -> Sequence[Array]:
    """The outputs of ONNX Runtime."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    feeds = {name: value.numpy() for name, value in zip(context.input_names, inputs, strict=True)}
    return session.run(None, feeds)  # type: ignore[no-any-return]


def assert_ships(module: nn.Module, context: StageContext) -> None:
    """Asserts that ONNX Runtime computes what the module computes, at two batch sizes."""
    model = export(module, context)
    onnx.checker.check_model(model, full_check=True)
    for size in (1, len(context.example[0])):
        inputs = tuple(value[:size] for value in context.example)
        with torch.no_grad():
            expected = module.eval()(*inputs)
        (output,) = run(model, context, inputs)
        np.testing.assert_allclose(np.float64(output), expected.numpy(), rtol=1e-4, atol=1e-5)
