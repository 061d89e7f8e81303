"""Tells branches that shapes decide from those that values decide, for the tracing exporter."""

from __future__ import annotations

from collections.abc import Sequence

from torch import nn

from parefront.errors import BuildError
from parefront.objectives.targets.axes import Axes
from parefront.objectives.targets.probes import Tensors
from parefront.objectives.targets.torch_programs import export_program

_found: dict[object, bool] = {}
"""What was found before: asking takes seconds, and a search exports one model many times."""


def only_shapes_decide(
    module: nn.Module,
    inputs: Tensors,
    input_names: Sequence[str],
    axes: Axes,
    places: frozenset[str],
) -> bool:
    """Whether a module branches on nothing but shapes, and on none that hold for some batches only.

    `torch.export` runs it without values, and with a batch of any size; where a branch needs more
    than that, it refuses. Other dimensions that vary may have bounds. The answer for the same
    lines, of a model of the same classes on inputs of the same shapes, is remembered.

    Args:
        module: The module, as `as_exported` sets it.
        inputs: Its inputs.
        input_names: Their names.
        axes: The dimensions that vary.
        places: The lines that branch, as file and number.
    """
    classes = frozenset(f"{type(p).__module__}.{type(p).__qualname__}" for p in module.modules())
    shapes = tuple((tuple(x.shape), x.dtype) for x in inputs)
    varying = tuple(tuple(sorted(axes.get(name, {}).items())) for name in input_names)
    key = (places, classes, shapes, varying)
    if key not in _found:
        try:
            export_program(module, inputs, input_names, axes)
            _found[key] = True
        except BuildError:
            _found[key] = False
    return _found[key]
