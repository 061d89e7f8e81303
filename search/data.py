"""Examples of a task: what goes in and what should come out, in memory or from a data set."""

from __future__ import annotations

import copy
import hashlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.data import DataLoader, Dataset, Subset

from parefront.errors import TaskError
from parefront.objectives.targets.runtime import Array
from parefront.spaces.stage import Inputs

ArrayLike = torch.Tensor | NDArray[Any]


class Split:
    """Examples for one purpose: training, calibration, validation or test.

    Args:
        inputs: One array, a tuple of arrays, or arrays by name, which the model then gets as
            keywords; examples along the first dimension.
        targets: Array of targets, examples along the first dimension.
        indices: Takes these examples only. Splits that index the same arrays are checked for
            overlap.

    Attributes:
        inputs: The arrays of the inputs, as tensors in order.
        names: Their names, or `None` if they have none.
        targets: The targets, as a tensor.

    Raises:
        TaskError: If the arrays have different lengths or an index is out of range.

    Example:
        >>> Split(torch.zeros(4, 2), torch.tensor([0, 1, 0, 1]), indices=[0, 1])
        Split(2 examples, inputs (2,) float32, targets int64)
    """

    def __init__(
        self,
        inputs: ArrayLike | Sequence[ArrayLike] | Mapping[str, ArrayLike],
        targets: ArrayLike,
        *,
        indices: ArrayLike | Sequence[int] | None = None,
    ) -> None:
        self.names: tuple[str, ...] | None = None
        many: Sequence[ArrayLike]
        if isinstance(inputs, Mapping):
            self.names = tuple(str(name) for name in inputs)
            many = tuple(inputs.values())
        else:
            many = inputs if isinstance(inputs, tuple | list) else (inputs,)
        tensors = tuple(torch.as_tensor(x) for x in many)
        labels = torch.as_tensor(targets)
        lengths = {len(x) if x.ndim else 0 for x in (*tensors, labels)}
        if len(lengths) != 1:
            raise TaskError(
                "inputs and targets of a split have one example each along the first dimension, "
                f"got lengths {[tuple(x.shape) for x in tensors]} and {tuple(labels.shape)}"
            )
        self.source: object = inputs
        self.indices: frozenset[int] | None = None
        if indices is not None:
            index = torch.as_tensor(indices, dtype=torch.int64)
            if len(index) and not (int(index.min()) >= 0 and int(index.max()) < len(labels)):
                raise TaskError(
                    f"indices of a split lie in [0, {len(labels)}), got "
                    f"{int(index.min())} to {int(index.max())}"
                )
            self.indices = frozenset(index.tolist())
            tensors, labels = tuple(x[index] for x in tensors), labels[index]
        self.inputs, self.targets = tensors, labels

    @classmethod
    def of(cls, data: object) -> Split:
        """Makes a split from what a task may be given: a split, `(inputs, targets)` or a data set.

        A map-style data set of `(input, target)` pairs, where the input is a tensor, a tuple of
        tensors or tensors by name, is read into memory.

        Raises:
            TaskError: If it is none of these.
        """
        if isinstance(data, Split):
            return data
        if isinstance(data, tuple | list) and len(data) == 2:
            return cls(data[0], data[1])
        if isinstance(data, Dataset):
            return cls._of_dataset(data)
        raise TaskError(
            "expected a split as (inputs, targets), a parefront.Split or a torch Dataset, "
            f"got {type(data).__name__}"
        )

    @classmethod
    def _of_dataset(cls, data: Dataset[Any]) -> Split:
        inputs: list[Inputs] = []
        names: tuple[str, ...] | None = None
        targets: list[torch.Tensor] = []
        for batch in DataLoader(data, batch_size=256):
            if not isinstance(batch, tuple | list) or len(batch) != 2:
                raise TaskError(
                    "a data set yields (input, target) pairs, "
                    f"got {type(batch).__name__} of length {len(batch)}"
                )
            x, y = batch
            if isinstance(x, Mapping):
                names = tuple(x)
                x = tuple(x.values())
            inputs.append(tuple(x) if isinstance(x, tuple | list) else (x,))
            targets.append(y)
        if not targets:
            raise TaskError("expected at least one example in a split, got an empty data set")
        columns = tuple(torch.cat(parts) for parts in zip(*inputs, strict=True))
        split = cls(columns, torch.cat(targets))
        split.names = names
        if isinstance(data, Subset):
            split.source, split.indices = data.dataset, frozenset(data.indices)
        return split

    def __len__(self) -> int:
        return len(self.targets)

    def __repr__(self) -> str:
        def kind(x: torch.Tensor) -> str:
            return str(x.dtype).removeprefix("torch.")

        names = [f"{name} " for name in self.names or ()] or [""] * len(self.inputs)
        shapes = ", ".join(
            f"{name}{tuple(x.shape[1:])} {kind(x)}"
            for name, x in zip(names, self.inputs, strict=True)
        )
        return f"Split({len(self)} examples, inputs {shapes}, targets {kind(self.targets)})"

    def batches(
        self, batch_size: int, *, seed: int | None = None
    ) -> Iterator[tuple[Inputs, torch.Tensor]]:
        """Yields `(inputs, targets)` batches, the last of which may be smaller.

        Args:
            batch_size: Examples in a batch.
            seed: Shuffles with this seed; `None` keeps the order.
        """
        order = None
        if seed is not None:
            order = torch.randperm(len(self), generator=torch.Generator().manual_seed(seed))
        for start in range(0, len(self), batch_size):
            stop = start + batch_size
            index: slice | torch.Tensor = slice(start, stop)
            if order is not None:
                index = order[start:stop]
            yield tuple(x[index] for x in self.inputs), self.targets[index]

    def head(self, count: int) -> Split:
        """The first `count` examples, or all when there are fewer."""
        found = Split(tuple(x[:count] for x in self.inputs), self.targets[:count])
        found.names = self.names
        return found

    def in_order(self, names: tuple[str, ...] | None) -> Split:
        """The same examples with their inputs in the order of some names.

        Raises:
            TaskError: If the inputs have other names.
        """
        if self.names == names:
            return self
        mine, theirs = (
            "no names" if each is None else f"the names {', '.join(each)}"
            for each in (self.names, names)
        )
        if self.names is None or names is None or set(self.names) != set(names):
            raise TaskError(
                f"its inputs have {mine}, those of the training split {theirs}; "
                "give all splits the same inputs"
            )
        found = copy.copy(self)
        found.inputs = tuple(self.inputs[self.names.index(name)] for name in names)
        found.names = names
        return found

    def feeds(self, names: Sequence[str]) -> dict[str, Array]:
        """The inputs of all examples as named arrays."""
        return {name: x.numpy() for name, x in zip(names, self.inputs, strict=True)}

    def overlap(self, other: Split) -> int:
        """How many examples two splits of the same arrays share; 0 when it cannot be told."""
        if self.source is not other.source:
            return 0
        mine, theirs = (
            x.indices if x.indices is not None else frozenset(range(len(x))) for x in (self, other)
        )
        return len(mine & theirs)

    def digest(self) -> str:
        """SHA-256 over names, types, shapes and bytes of all arrays, as 64 hexadecimal digits."""
        found = hashlib.sha256(" ".join(self.names or ()).encode())
        for x in (*self.inputs, self.targets):
            found.update(f"{x.dtype}{tuple(x.shape)}".encode())
            found.update(np.ascontiguousarray(x.numpy()).data)
        return found.hexdigest()
