"""Artifacts made from `torch.export` programs, for the runtimes that take those."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from torch import nn
from torch.export import Dim, ExportedProgram

from parefront.errors import BuildError, MeasurementError, ParefrontError
from parefront.objectives.targets.axes import Axes, axes_of, by_parameters, other_lengths
from parefront.objectives.targets.probes import (
    Tensors,
    as_exported,
    check_names,
    copies,
    keep,
    other_probes,
    probe,
    reason,
    rows,
)
from parefront.objectives.targets.quiet import quiet
from parefront.objectives.targets.runtime import Dynamic, Session
from parefront.objectives.targets.signature import Input, Signature

Write = Callable[[ExportedProgram, Signature, Path], None]
"""Turns a program into a file."""


def build_program(
    module: nn.Module,
    example: Tensors,
    input_names: Sequence[str],
    path: Path,
    *,
    runtime: str,
    write: Write,
    load: Callable[[Path, int], Session],
    largest_batch: int | None = None,
    dynamic: Dynamic | None = None,
) -> None:
    """Exports a module, has a file made of it and compares the file with the module.

    A file for any batch is preferred; where that fails, it is for the example's batch. The
    module, the random state and torch's settings are left as they were.

    Args:
        module: Module to export, as it is in evaluation mode.
        example: Inputs on the CPU, batch first.
        input_names: Name of each input.
        path: File to write, replaced as a whole or not at all.
        runtime: What makes the file, for messages.
        write: Turns the exported program into a file.
        load: Loads the file, as `Runtime.open`.
        largest_batch: Largest batch a file with a dynamic one must take at once; any if `None`.
        dynamic: Further dimensions that may have any size.

    Raises:
        BuildError: If the module cannot be exported, returns something other than tensors
            with the batch first, or the file's outputs differ from the module's.
        ArtifactError: If the file cannot be written.
    """
    check_names(example, input_names)
    reasons: dict[str, str] = {}
    with as_exported(module):
        own = probe(module, copies(example))
        others = other_probes(module, example, own)
        lengths = other_lengths(module, example, input_names, dynamic)
        for any_batch in (True, False) if others else (False,):
            axes = axes_of(input_names, dynamic, batch=any_batch)
            try:
                # Exporters fix what they see: guards such as "fewer than 16" follow the example.
                # So the example is as large as the batch may become.
                seen = max(2, len(example[0]), largest_batch or 0)
                inputs = rows(example, seen) if any_batch else copies(example)
                program = export_program(
                    module, inputs, input_names, axes, seen if largest_batch else None
                )
                signature = _signature(inputs, input_names, axes)
                keep(
                    path,
                    lambda draft, p=program, s=signature: _quietly(write, p, s, draft),  # type: ignore[misc]
                    load,
                    input_names,
                    [own, *lengths, *(others if any_batch else ())],
                )
            except BuildError as error:
                reasons["any batch" if any_batch else f"batch of {len(example[0])}"] = str(error)
            else:
                return
    why = "; ".join(f"{how}: {text}" for how, text in reasons.items())
    raise BuildError(f"the model cannot be built for {runtime}: {why}")


def export_program(
    module: nn.Module,
    inputs: Tensors,
    input_names: Sequence[str],
    axes: Axes,
    largest: int | None = None,
) -> ExportedProgram:
    """The module as a `torch.export` program.

    Raises:
        BuildError: If it depends on tensors' values, or does not take other batch sizes although
            it should.
    """
    batch = Dim("batch", min=1, max=largest)
    # Other dimensions may end somewhere, such as with the positions that are known.
    each = [
        {axis: batch if axis == 0 else Dim.DYNAMIC for axis in axes.get(name, {})}
        for name in input_names
    ]
    shapes = by_parameters(module, each) if axes else None
    with quiet():
        try:
            return torch.export.export(module, inputs, dynamic_shapes=shapes, strict=False)
        except Exception as error:  # the module's own code runs here, and may raise anything
            raise BuildError(reason(error)) from error


def _quietly(write: Write, program: ExportedProgram, signature: Signature, draft: Path) -> None:
    with quiet():
        try:
            write(program, signature, draft)
        except (OSError, ParefrontError):
            raise
        except Exception as error:  # compilers' errors share no base class
            raise BuildError(reason(error)) from error


def _signature(inputs: Tensors, names: Sequence[str], axes: Axes) -> Signature:
    return Signature(
        tuple(
            Input(
                name,
                tensor.numpy().dtype.name,
                tuple(
                    None if axis in axes.get(name, {}) else size
                    for axis, size in enumerate(tensor.shape)
                ),
            )
            for name, tensor in zip(names, inputs, strict=True)
        )
    )


def flat(outputs: object, runtime: str) -> list[torch.Tensor]:
    """The tensors a program returned.

    Raises:
        MeasurementError: If it returned something else.
    """
    found = [outputs] if isinstance(outputs, torch.Tensor) else outputs
    if not isinstance(found, list | tuple) or not all(isinstance(x, torch.Tensor) for x in found):
        raise MeasurementError(
            f"{runtime} could not run it: expected tensors, got {type(outputs).__name__}"
        )
    return list(found)
