"""Compares an artifact with the torch module it was built from.

Shared by everything that builds: the module is run on its example inputs and, if it takes them,
on other batch sizes, and the artifact must answer the same before it is kept.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch
from torch import nn

from parefront.errors import ArtifactError, BuildError, MeasurementError
from parefront.objectives.targets.runtime import Array, Session

Tensors = tuple[torch.Tensor, ...]
Probe = tuple[Tensors, Tensors]
"""Inputs, and the module's outputs on them."""

RTOL, ATOL = 1e-3, 1e-4
"""Allowed difference from torch: a share of each value, and of its output's largest value.

fp32 exports differ by about 1e-7 of the largest value, wrong graphs by much more than 1e-4.
"""

_OTHER_BATCHES = (1, 3)
"""Batch sizes a file for any batch is tried at, besides the example's."""


def check_names(example: Tensors, input_names: Sequence[str]) -> None:
    """Checks that each input of the example has a name of its own.

    Raises:
        BuildError: If not.
    """
    if len(input_names) != len(example) or len(set(input_names)) != len(example):
        raise BuildError(
            f"expected {len(example)} different input names, one for each input of the example, "
            f"got {list(input_names)}"
        )


@contextmanager
def as_exported(module: nn.Module) -> Iterator[None]:
    """Evaluation mode, no gradients, no fused attention; everything restored afterwards."""
    modes = [(part, part.training) for part in module.modules()]
    fast_attention = torch.backends.mha.get_fastpath_enabled()
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        try:
            module.eval()
            # The fused transformer layer has no counterpart in other runtimes.
            torch.backends.mha.set_fastpath_enabled(False)
            yield
        finally:
            torch.backends.mha.set_fastpath_enabled(fast_attention)
            for part, training in modes:
                part.training = training


def copies(tensors: Tensors) -> Tensors:
    """Copies, for a module may write into its inputs."""
    return tuple(tensor.detach().clone() for tensor in tensors)


def rows(tensors: Tensors, count: int) -> Tensors:
    """A batch of `count` examples, repeated as needed."""
    return tuple(
        tensor.detach()[torch.arange(count) % len(tensor)].contiguous() for tensor in tensors
    )


def probe(module: nn.Module, inputs: Tensors) -> Probe:
    """Runs the module and checks what it returns.

    Raises:
        BuildError: If it fails, or returns something other than tensors with the batch first.
    """
    try:
        answer = module(*copies(inputs))
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


def other_probes(module: nn.Module, example: Tensors, own: Probe) -> list[Probe]:
    """The module at other batch sizes; none if it wants the example's."""
    probes = []
    shapes = [output.shape[1:] for output in own[1]]
    for batch in _OTHER_BATCHES:
        try:
            found = probe(module, rows(example, batch))
        except BuildError:
            return []
        if [output.shape[1:] for output in found[1]] != shapes:
            return []
        probes.append(found)
    return probes


def keep(
    path: Path,
    write: Callable[[Path], object],
    load: Callable[[Path, int], Session],
    input_names: Sequence[str],
    probes: Sequence[Probe],
) -> None:
    """Writes a file under another name, compares it with the module, and renames it.

    Args:
        path: File to write, replaced as a whole or not at all.
        write: Writes the file.
        load: Loads it, as `Runtime.open`.
        input_names: Name of each input.
        probes: What it must answer.

    Raises:
        BuildError: If the file does not run, or an output differs.
        ArtifactError: If it cannot be written.
    """
    try:
        draft = path.with_name(f".{uuid.uuid4().hex}{path.suffix}")
        try:
            write(draft)
            _compare(load, draft, input_names, probes)
            draft.replace(path)
        finally:
            draft.unlink(missing_ok=True)
    except OSError as error:
        raise ArtifactError(f"cannot write {path}: {error.strerror or error}") from error


def _compare(
    load: Callable[[Path, int], Session],
    path: Path,
    input_names: Sequence[str],
    probes: Sequence[Probe],
) -> None:
    """Runs the file on every probe.

    Raises:
        BuildError: If it does not run, or an output differs; the message says by how much.
    """
    try:
        session = load(path, 1)
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


def reason(error: BaseException) -> str:
    """The first line of the error at the root, cut to a readable length."""
    while error.__cause__ is not None:
        error = error.__cause__
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0]}"[:400] if lines else type(error).__name__
