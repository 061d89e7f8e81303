"""Dimensions of inputs and outputs that may vary, besides the batch."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, TypeVar

from parefront.errors import BuildError
from parefront.objectives.targets.runtime import Dynamic

if TYPE_CHECKING:
    from torch import nn

    from parefront.objectives.targets.probes import Probe, Tensors

_MORE = 3
"""By how much longer than the example a file is tried, where the module can be that long."""
BATCH = "batch"

Axes = dict[str, Mapping[int, str]]
"""Names of the dimensions that vary, the batch among them, by input or output."""
T = TypeVar("T")


def refuse_dynamic(dynamic: Dynamic | None, runtime: str) -> None:
    """Says that a runtime's files have fixed shapes.

    Raises:
        BuildError: If a dimension is to vary.
    """
    if dynamic:
        names = ", ".join(f"{name} {sorted(axes)}" for name, axes in dynamic.items())
        raise BuildError(
            f"files of {runtime} have inputs of one shape, and the task has dimensions that vary "
            f"({names}); pad to one length and leave dynamic out of the task, or choose "
            "another runtime, such as onnxruntime or openvino"
        )


def axes_of(names: Sequence[str], dynamic: Dynamic | None, *, batch: bool) -> Axes:
    """The dimensions of each input that vary; inputs without any are left out."""
    own = {0: BATCH} if batch else {}
    found: Axes = {name: {**own, **(dynamic or {}).get(name, {})} for name in names}
    return {name: axes for name, axes in found.items() if axes}


def output_axes(
    names: Sequence[str],
    own: Probe,
    others: Sequence[Probe],
    inputs: Axes,
    input_names: Sequence[str],
) -> Axes:
    """The dimensions of outputs that vary with those of the inputs, named as these where equal.

    Args:
        names: Names of the outputs.
        own: The module on its example.
        others: The module on other sizes.
        inputs: The dimensions of inputs that vary.
        input_names: Names of the inputs.
    """
    found: dict[str, dict[int, str]] = {}
    for index, name in enumerate(names):
        shapes = [each[1][index].shape for each in (own, *others)]
        found[name] = {0: BATCH} if any(BATCH in axes.values() for axes in inputs.values()) else {}
        for dim in range(1, len(shapes[0])):
            sizes = [shape[dim] for shape in shapes]
            if len(set(sizes)) > 1:
                same = [
                    symbol
                    for place, given in enumerate(input_names)
                    for axis, symbol in inputs.get(given, {}).items()
                    if [each[0][place].shape[axis] for each in (own, *others)] == sizes
                ]
                found[name][dim] = same[0] if same else f"{name}_{dim}"
    return {name: axes for name, axes in found.items() if axes}


def other_lengths(
    module: nn.Module, example: Tensors, names: Sequence[str], dynamic: Dynamic | None
) -> list[Probe]:
    """The module at other sizes of the dimensions that vary: about half, and some more if it can.

    Inputs are cut off or repeated.

    Raises:
        BuildError: If the module does not run at smaller sizes.
    """
    from parefront.objectives.targets.probes import probe

    if not dynamic:
        return []
    try:
        smaller = resized(example, names, dynamic, lambda size, place: max(1, size // 2 - place))
        probes = [probe(module, smaller)]
    except BuildError as error:
        raise BuildError(
            f"the task says that dimensions vary, and at smaller sizes {error}; leave dynamic out, "
            "or mend the model"
        ) from error
    try:
        larger = resized(example, names, dynamic, lambda size, place: size + _MORE + place)
        probes.append(probe(module, larger))
    except BuildError:  # such as one that knows so many positions
        pass
    return probes


def resized(
    tensors: Tensors, names: Sequence[str], dynamic: Dynamic, size: Callable[[int, int], int]
) -> Tensors:
    """The tensors with other sizes, cut off or repeated from the start.

    Args:
        tensors: The tensors.
        names: Name of each.
        dynamic: The dimensions that change.
        size: The new size for the old one and the place of the dimension's name among all names.
    """
    symbols = list(dict.fromkeys(symbol for axes in dynamic.values() for symbol in axes.values()))
    found = []
    for name, tensor in zip(names, tensors, strict=True):
        changed = tensor.detach()
        for axis, symbol in dynamic.get(name, {}).items():
            length = changed.shape[axis]
            wanted = size(length, symbols.index(symbol))
            repeats = [1] * changed.ndim
            repeats[axis] = -(-wanted // length)
            changed = changed.repeat(repeats).narrow(axis, 0, wanted)
        found.append(changed.contiguous())
    return tuple(found)


def by_parameters(module: nn.Module, values: Sequence[T]) -> tuple[T | tuple[T, ...], ...]:
    """One value for each input, as `torch.export` wants them: those of `*inputs` together."""
    parameters = list(inspect.signature(module.forward).parameters.values())
    kinds = [parameter.kind for parameter in parameters]
    if inspect.Parameter.VAR_POSITIONAL not in kinds:
        return tuple(values)
    first = kinds.index(inspect.Parameter.VAR_POSITIONAL)
    rest = tuple(values[first:])
    return (*values[:first], rest) if rest else tuple(values)
