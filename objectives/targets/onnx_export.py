"""Export of a torch module to an ONNX file, proven against the module before it is kept.

Two exporters are tried. Tracing (`torch.onnx.export(dynamo=False)`) takes a tenth of a second,
but follows only what happened on the example: where the module turned tensors into Python
values, the trace is not trusted. `torch.export` (`dynamo=True`) takes seconds and understands
shapes, or refuses. A file for any batch size is preferred to one for the example's.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch
from torch import nn

from parefront.errors import ArtifactError, BuildError, MeasurementError
from parefront.objectives.targets.onnx_exporters import export_program, trace
from parefront.objectives.targets.onnx_runtime import OnnxRuntime
from parefront.objectives.targets.runtime import Array

Tensors = tuple[torch.Tensor, ...]
Probe = tuple[Tensors, Tensors]
"""Inputs, and the module's outputs on them."""

RTOL, ATOL = 1e-3, 1e-4
"""Allowed difference from torch: a share of each value, and of its output's largest value.

fp32 exports differ by about 1e-7 of the largest value, wrong graphs by much more than 1e-4.
"""

_OTHER_BATCHES = (1, 3)
"""Batch sizes a file for any batch is tried at, besides the example's."""


def export_onnx(
    module: nn.Module, example: Tensors, input_names: Sequence[str], path: Path
) -> None:
    """Writes a module as an ONNX file that computes the same.

    The file's inputs are called `input_names`, its outputs `output`, or `output_0`, `output_1`
    and so on when there are several. The batch dimension is dynamic if the file agrees with the
    module at other batch sizes; otherwise it is the example's. Equal modules give equal bytes.
    The module, the random state and torch's settings are left as they were.

    Args:
        module: Module to export, as it is in evaluation mode.
        example: Inputs on the CPU, batch first.
        input_names: Name of each input.
        path: File to write, replaced as a whole or not at all.

    Raises:
        BuildError: If the module cannot be exported, returns something other than tensors
            with the batch first, or the file's outputs differ from the module's.
        ArtifactError: If the file cannot be written.
    """
    if len(input_names) != len(example) or len(set(input_names)) != len(example):
        raise BuildError(
            f"expected {len(example)} different input names, one for each input of the example, "
            f"got {list(input_names)}"
        )
    with _as_exported(module):
        own = _probe(module, _copies(example))
        others = _other_probes(module, example, own)
        count = len(own[1])
        output_names = ["output"] if count == 1 else [f"output_{i}" for i in range(count)]
        reasons: dict[str, str] = {}
        for dynamic in (True, False) if others else (False,):
            # A batch of one hides dimensions from an exporter that has to find the batch.
            inputs = _rows(example, max(2, len(example[0]))) if dynamic else _copies(example)
            for how, exporter in (("tracing", trace), ("torch.export", export_program)):
                try:
                    data = exporter(module, inputs, input_names, output_names, dynamic)
                    _keep(data, path, input_names, [own, *others] if dynamic else [own])
                except BuildError as error:
                    reasons[how] = str(error)
                else:
                    return
    why = "; ".join(f"{how}: {reason}" for how, reason in reasons.items())
    raise BuildError(f"the model cannot be exported to ONNX: {why}")


@contextmanager
def _as_exported(module: nn.Module) -> Iterator[None]:
    """Evaluation mode, no gradients, no fused attention; everything restored afterwards."""
    modes = [(part, part.training) for part in module.modules()]
    fast_attention = torch.backends.mha.get_fastpath_enabled()
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        try:
            module.eval()
            # The fused transformer layer has no counterpart in ONNX.
            torch.backends.mha.set_fastpath_enabled(False)
            yield
        finally:
            torch.backends.mha.set_fastpath_enabled(fast_attention)
            for part, training in modes:
                part.training = training


def _copies(tensors: Tensors) -> Tensors:
    """Copies, for a module may write into its inputs."""
    return tuple(tensor.detach().clone() for tensor in tensors)


def _rows(tensors: Tensors, count: int) -> Tensors:
    """A batch of `count` examples, repeated as needed."""
    return tuple(
        tensor.detach()[torch.arange(count) % len(tensor)].contiguous() for tensor in tensors
    )


def _probe(module: nn.Module, inputs: Tensors) -> Probe:
    """Runs the module and checks what it returns."""
    try:
        answer = module(*_copies(inputs))
    except Exception as error:  # the module's own code may raise anything
        raise BuildError(f"the model fails on its example inputs: {error}") from error
    outputs = (answer,) if isinstance(answer, torch.Tensor) else answer
    if not isinstance(outputs, tuple) or not outputs or not all(
        isinstance(output, torch.Tensor) for output in outputs
    ):  # fmt: skip
        raise BuildError(
            "expected the model to return a Tensor or a tuple of Tensors, "
            f"got {type(answer).__name__}"
        )
    batch = len(inputs[0])
    for index, output in enumerate(outputs):
        if output.ndim == 0 or len(output) != batch:
            raise BuildError(
                f"expected output {index} of the model to have the batch of {batch} first, "
                f"got shape {tuple(output.shape)}"
            )
    return inputs, outputs


def _other_probes(module: nn.Module, example: Tensors, own: Probe) -> list[Probe]:
    """The module at other batch sizes; none if it wants the example's."""
    probes = []
    shapes = [output.shape[1:] for output in own[1]]
    for batch in _OTHER_BATCHES:
        try:
            probe = _probe(module, _rows(example, batch))
        except BuildError:
            return []
        if [output.shape[1:] for output in probe[1]] != shapes:
            return []
        probes.append(probe)
    return probes


def _keep(data: bytes, path: Path, input_names: Sequence[str], probes: Sequence[Probe]) -> None:
    """Writes the file under another name, compares it with the module, and renames it."""
    try:
        draft = path.with_name(f".{uuid.uuid4().hex}{path.suffix}")
        try:
            draft.write_bytes(data)
            _compare(draft, input_names, probes)
            draft.replace(path)
        finally:
            draft.unlink(missing_ok=True)
    except OSError as error:
        raise ArtifactError(f"cannot write {path}: {error.strerror or error}") from error


def _compare(path: Path, input_names: Sequence[str], probes: Sequence[Probe]) -> None:
    """Runs the file on every probe.

    Raises:
        BuildError: If it does not run, or an output differs; the message says by how much.
    """
    try:
        session = OnnxRuntime().open(path, threads=1)
        for inputs, expected in probes:
            feeds = {name: tensor.numpy() for name, tensor in zip(input_names, inputs, strict=True)}
            outputs = session.run(feeds)
            for index, (got, want) in enumerate(zip(outputs, expected, strict=True)):
                _compare_output(index, got, want.numpy())
    except MeasurementError as error:
        raise BuildError(str(error)) from error


def _compare_output(index: int, got: Array, want: Array) -> None:
    if got.shape != want.shape or got.dtype != want.dtype:
        raise BuildError(
            f"expected output {index} of the file to be {want.dtype} of shape {want.shape}, "
            f"got {got.dtype} of shape {got.shape}"
        )
    if not np.issubdtype(want.dtype, np.floating):
        if not np.array_equal(got, want):
            raise BuildError(f"output {index} of the file differs from the module's whole numbers")
        return
    scale = float(np.max(np.abs(want), where=np.isfinite(want), initial=0.0)) or 1.0
    if not np.allclose(got, want, rtol=RTOL, atol=ATOL * scale, equal_nan=True):
        with np.errstate(invalid="ignore"):
            difference = np.nanmax(np.abs(np.subtract(got, want, dtype=np.float64)))
        raise BuildError(
            f"output {index} of the file differs from the module's by up to {difference:.3g}, "
            f"where the largest value is {scale:.3g} (batch of {len(want)})"
        )
