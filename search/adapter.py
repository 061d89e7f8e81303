"""A user's model as everything else sees it: positional tensors in, one tensor out."""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence

import torch
from torch import nn

from parefront.errors import TaskError

Output = str | int
"""Name of an output, or its place among several."""


class Adapted(nn.Module):
    """Calls a model with keywords, and picks one of its outputs.

    Names of the model's parts begin with `model.`; the model itself is unchanged, and what is asked
    of it beyond calling it, such as a method of its own, is found at `model`.

    Args:
        model: The model.
        names: What the model calls its inputs, in the order in which they are given here; without
            them it gets them by place.
        output: Name or place of the output to return; without it the model returns one tensor.
    """

    def __init__(
        self, model: nn.Module, names: Sequence[str] | None, output: Output | None
    ) -> None:
        super().__init__()
        self.model = model
        self.names = None if names is None else tuple(names)
        self.output = output
        self.train(model.training)

    def forward(self, *inputs: torch.Tensor) -> object:
        """The output that was chosen.

        Raises:
            TaskError: If the model has no such output; the message lists those it has.
        """
        if self.names is None:
            answer = self.model(*inputs)
        else:
            answer = self.model(**dict(zip(self.names, inputs, strict=True)))
        return answer if self.output is None else picked(answer, self.output)


def adapted(module: nn.Module, names: Sequence[str] | None, output: Output | None) -> nn.Module:
    """The module itself if it needs no adapter, else the module in one.

    Raises:
        TaskError: If the module takes no input of one of the names.
    """
    if names is None and output is None:
        return module
    if names is not None:
        _check_names(module, names)
    return Adapted(module, names, output)


def picked(answer: object, output: Output) -> object:
    """One output out of what a model returned: a mapping, an object with fields, or a sequence.

    Raises:
        TaskError: If it is not there; the message lists what is.
    """
    if isinstance(output, int) and isinstance(answer, tuple | list):
        if -len(answer) <= output < len(answer):
            return answer[output]
    elif isinstance(output, str) and isinstance(answer, Mapping):
        if output in answer:
            return answer[output]
    elif isinstance(output, str) and not isinstance(answer, torch.Tensor):
        # As a named tuple or a dataclass has it; a plain sequence has methods, such as `index`.
        found = getattr(answer, output, None)
        if found is not None and not callable(found):
            return found
    raise TaskError(f"the model has no output {output!r}: {outputs_of(answer)}")


def outputs_of(answer: object) -> str:
    """What a model returned, and what to write in a task to choose one of it."""
    if isinstance(answer, torch.Tensor):
        return f"it returns one tensor of shape {tuple(answer.shape)}; leave output out"
    named = _named(answer)
    if not named:
        return (
            f"it returns {type(answer).__name__}; wrap it in a module that returns the tensor that "
            "counts, batch first"
        )
    listed = ", ".join(
        f"{name!r} {tuple(value.shape) if isinstance(value, torch.Tensor) else _kind(value)}"
        for name, value in named
    )
    tensors = [name for name, value in named if isinstance(value, torch.Tensor)]
    advice = (
        f"write output={(tensors[0] if len(tensors) == 1 else _likely(tensors))!r} in pf.Task, or "
        "another of these names"
        if tensors
        else "wrap the model in a module that returns the tensor that counts, batch first"
    )
    return f"it returns {type(answer).__name__} with {listed}; {advice}"


def _named(answer: object) -> list[tuple[Output, object]]:
    if isinstance(answer, Mapping):
        return [(str(name), value) for name, value in answer.items()]
    fields = getattr(answer, "_fields", None) or getattr(answer, "__dataclass_fields__", None)
    if fields:
        return [(name, getattr(answer, name)) for name in fields]
    if isinstance(answer, tuple | list):
        return list(enumerate(answer))
    return []


def _likely(tensors: Sequence[Output]) -> Output:
    return "logits" if "logits" in tensors else tensors[0]


def _kind(value: object) -> str:
    if isinstance(value, tuple | list):
        return f"({type(value).__name__} of {len(value)})"
    return f"({type(value).__name__})"


def _check_names(module: nn.Module, names: Sequence[str]) -> None:
    parameters = inspect.signature(module.forward).parameters.values()
    if any(each.kind is inspect.Parameter.VAR_KEYWORD for each in parameters):
        return  # whatever it does with a name that it does not know
    known = [
        each.name
        for each in parameters
        if each.kind in (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
    ]
    unknown = [name for name in names if name not in known]
    if unknown:
        raise TaskError(
            f"the model takes no input {', '.join(map(repr, unknown))}; the names of a split's "
            f"inputs are keywords of its forward, which are {', '.join(known) or 'none'}"
        )
