"""Export of a torch module to an ONNX file, proven against the module before it is kept.

Two exporters are tried. Tracing (`torch.onnx.export(dynamo=False)`) takes a tenth of a second,
but follows only what happened on the example: where the module turned tensors into Python
values, the trace is not trusted. `torch.export` (`dynamo=True`) takes seconds and understands
shapes, or refuses. A file for any batch size is preferred to one for the example's.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

from torch import nn

from parefront.errors import BuildError
from parefront.objectives.targets.axes import axes_of, other_lengths, output_axes
from parefront.objectives.targets.onnx_exporters import export_program, trace
from parefront.objectives.targets.onnx_runtime import OnnxRuntime
from parefront.objectives.targets.probes import (
    Tensors,
    as_exported,
    check_names,
    copies,
    keep,
    other_probes,
    probe,
    rows,
)
from parefront.objectives.targets.runtime import Dynamic, Session


def export_onnx(
    module: nn.Module,
    example: Tensors,
    input_names: Sequence[str],
    path: Path,
    *,
    load: Callable[[Path, int], Session] | None = None,
    dynamic: Dynamic | None = None,
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
        load: Loads the file to compare it, as `Runtime.open`; ONNX Runtime's if `None`.
        dynamic: Further dimensions that may have any size; the file is compared with the module at
            other sizes too.

    Raises:
        BuildError: If the module cannot be exported, returns something other than tensors
            with the batch first, or the file's outputs differ from the module's.
        ArtifactError: If the file cannot be written.
    """
    check_names(example, input_names)
    load = load or OnnxRuntime().open
    with as_exported(module):
        own = probe(module, copies(example))
        others = other_probes(module, example, own)
        lengths = other_lengths(module, example, input_names, dynamic)
        count = len(own[1])
        output_names = ["output"] if count == 1 else [f"output_{i}" for i in range(count)]
        reasons: dict[str, str] = {}
        for batch in (True, False) if others else (False,):
            # A batch of one hides dimensions from an exporter that has to find the batch.
            inputs = rows(example, max(2, len(example[0]))) if batch else copies(example)
            probes = [own, *lengths, *(others if batch else ())]
            axes = axes_of(input_names, dynamic, batch=batch)
            axes |= output_axes(output_names, own, lengths, axes, input_names)
            for how, exporter in (("tracing", trace), ("torch.export", export_program)):
                try:
                    data = exporter(module, inputs, input_names, output_names, axes)
                    keep(path, partial(Path.write_bytes, data=data), load, input_names, probes)
                except BuildError as error:
                    reasons[how] = str(error)
                else:
                    return
    why = "; ".join(f"{how}: {reason}" for how, reason in reasons.items())
    raise BuildError(f"the model cannot be exported to ONNX: {why}")
