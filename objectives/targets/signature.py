"""Names, types and shapes of an artifact's inputs, for runtimes that do not check them well."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass

import numpy as np

from parefront.errors import MeasurementError
from parefront.objectives.targets.runtime import Array, Feeds


@dataclass(frozen=True)
class Input:
    """An input of an artifact.

    Attributes:
        name: Its name.
        dtype: numpy's name of its element type.
        shape: Its sizes, batch first; `None` where any size will do.
    """

    name: str
    dtype: str
    shape: tuple[int | None, ...]

    def __str__(self) -> str:
        sizes = ", ".join("any" if size is None else str(size) for size in self.shape)
        return f"{self.name!r} of {self.dtype}, shape ({sizes})"

    def accepts(self, array: Array) -> bool:
        """Whether an array has this type and shape."""
        shape = self.shape
        return (
            array.dtype.name == self.dtype
            and array.ndim == len(shape)
            and all(
                want is None or got == want for got, want in zip(array.shape, shape, strict=True)
            )
        )


@dataclass(frozen=True)
class Signature:
    """The inputs of an artifact, in order.

    Attributes:
        inputs: The inputs.
    """

    inputs: tuple[Input, ...]

    @property
    def batch(self) -> int | None:
        """Examples that one run must have, or `None` if any number will do."""
        sizes = (entry.shape[0] for entry in self.inputs if entry.shape)
        return next((size for size in sizes if size is not None), None)

    def ordered(self, feeds: Feeds, runtime: str) -> list[Array]:
        """The arrays of `feeds` in the order of the inputs.

        Args:
            feeds: An array for each input, by name.
            runtime: Who asks, for the message.

        Raises:
            MeasurementError: If an input is missing, unknown, or of another type or shape.
        """
        if len(feeds) != len(self.inputs) or any(e.name not in feeds for e in self.inputs):
            names = [entry.name for entry in self.inputs]
            raise MeasurementError(
                f"{runtime} could not run it: expected inputs {names}, got {list(feeds)}"
            )
        arrays = []
        for entry in self.inputs:
            array = feeds[entry.name]
            if not entry.accepts(array):
                raise MeasurementError(
                    f"{runtime} could not run it: expected input {entry}, "
                    f"got {array.dtype.name} of shape {array.shape}"
                )
            arrays.append(array)
        return arrays

    def to_json(self) -> str:
        """The signature as text, to be kept inside an artifact."""
        return json.dumps([asdict(entry) for entry in self.inputs])

    @staticmethod
    def from_json(text: str) -> Signature:
        """Reads what `to_json` wrote.

        Raises:
            ValueError: If the text is something else.
        """
        try:
            content = json.loads(text)
            inputs = tuple(_input(**entry) for entry in content)
        except TypeError as error:
            raise ValueError(f"expected the signature of a model, got {text[:100]!r}") from error
        if not inputs:
            raise ValueError("expected the signature of a model, got one without inputs")
        return Signature(inputs)


def _input(name: str, dtype: str, shape: Sequence[int | None]) -> Input:
    sizes = tuple(None if size is None else int(size) for size in shape)
    return Input(str(name), np.dtype(dtype).name, sizes)
