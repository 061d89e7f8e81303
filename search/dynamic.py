"""Dimensions of inputs that may vary in the exported file, as a task says it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from parefront.errors import TaskError
from parefront.objectives.targets.axes import BATCH
from parefront.objectives.targets.runtime import Dynamic
from parefront.search.data import Split
from parefront.spaces.stage import Inputs

Varying = Mapping[str, Sequence[int] | Mapping[int, str]]


def dynamic_dimensions(
    given: Varying | None, input_names: Sequence[str], example: Inputs
) -> Dynamic:
    """The dimensions that vary, each with a name; those of one name have one size.

    Args:
        given: What the task says: numbers of dimensions, which are named `length`, `length_1` and
            so on by their sizes in the example; or numbers with names.
        input_names: Names of the inputs.
        example: Example inputs.

    Raises:
        TaskError: If an input or a dimension is not there, is the batch, or if two dimensions of
            one name have different sizes.

    Example:
        >>> import torch
        >>> tokens = (torch.zeros(1, 9), torch.zeros(1, 9))
        >>> dynamic_dimensions({"ids": [1], "mask": [1]}, ("ids", "mask"), tokens)
        {'ids': {1: 'length'}, 'mask': {1: 'length'}}
    """
    found: dict[str, dict[int, str]] = {}
    sizes: dict[str, int] = {}
    for name, axes in (given or {}).items():
        if name not in input_names:
            raise TaskError(f"dynamic names the input {name!r}; there are {', '.join(input_names)}")
        shape = example[list(input_names).index(name)].shape
        for axis in axes:
            if isinstance(axis, bool) or not isinstance(axis, int) or not 0 < axis < len(shape):
                raise TaskError(
                    f"dynamic dimensions of {name!r} lie in [1, {len(shape)}), for the batch is "
                    f"dynamic anyway, got {axis!r}"
                )
            size = shape[axis]
            symbol = axes[axis] if isinstance(axes, Mapping) else _symbol(sizes, size)
            if not isinstance(symbol, str) or not symbol.isidentifier() or symbol == BATCH:
                raise TaskError(
                    f"expected a name other than {BATCH!r} for a dynamic dimension of {name!r}, "
                    f"got {symbol!r}"
                )
            if sizes.setdefault(symbol, size) != size:
                raise TaskError(
                    f"dynamic dimensions of one name have one size, and {symbol!r} has "
                    f"{sizes[symbol]} and {size}; give them different names"
                )
            found.setdefault(name, {})[axis] = symbol
    return found


def _symbol(sizes: Mapping[str, int], size: int) -> str:
    for name, known in sizes.items():
        if known == size:
            return name
    return f"length_{len(sizes)}" if sizes else "length"


def check_shapes(
    splits: Mapping[str, Split], input_names: Sequence[str], example: Inputs, dynamic: Dynamic
) -> None:
    """Checks that an exported file will take the inputs of splits.

    Raises:
        TaskError: If a dimension has another size than the example's, and is not dynamic.
    """
    for split, each in splits.items():
        if len(each.inputs) != len(example):
            raise TaskError(
                f"the {split} split has {len(each.inputs)} inputs, and the example {len(example)}"
            )
        for name, inputs, one in zip(input_names, each.inputs, example, strict=True):
            axes = range(1, max(inputs.ndim, one.ndim))
            fixed = [axis for axis in axes if axis not in dynamic.get(name, {})]
            if inputs.ndim == one.ndim and all(inputs.shape[a] == one.shape[a] for a in fixed):
                continue
            differ = [
                a for a in fixed if inputs.ndim == one.ndim and inputs.shape[a] != one.shape[a]
            ]
            vary = f", or say in the task which dimensions vary: dynamic={{{name!r}: {differ}}}"
            raise TaskError(
                f"the {split} split has {name!r} of shape {('N', *inputs.shape[1:])}, and the "
                f"example {('N', *one.shape[1:])}, which the exported file is made for; give "
                f"both one shape{vary if differ else ''}"
            )
