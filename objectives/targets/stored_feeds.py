"""Inputs in a file, as measuring processes read them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np

from parefront.objectives.targets.runtime import Array, Feeds


class StoredFeeds(Mapping[str, Array]):
    """Inputs that are in an `.npz` file already, as `arr_0`, `arr_1`, ... in the names' order.

    The file is opened only when an array is asked for, so that one from outside can be handed
    on unread.

    Attributes:
        path: The file.
    """

    def __init__(self, path: Path, names: Sequence[str]) -> None:
        """Names the arrays of a file."""
        self.path = path
        self._names = tuple(names)

    def __getitem__(self, name: str) -> Array:
        """Reads an array."""
        if name not in self._names:
            raise KeyError(name)
        with np.load(self.path, allow_pickle=False) as file:
            array: Array = file[f"arr_{self._names.index(name)}"]
        return array

    def __iter__(self) -> Iterator[str]:
        """The names, in order."""
        return iter(self._names)

    def __len__(self) -> int:
        """How many inputs there are."""
        return len(self._names)


def stored(feeds: Feeds, path: Path) -> Path:
    """The file with the inputs: `path`, which is written, or the one they are in already.

    Raises:
        ValueError: If an array holds Python objects.
        OSError: If the file cannot be written.
    """
    if isinstance(feeds, StoredFeeds):
        return feeds.path
    with path.open("wb") as file:
        np.savez(file, *feeds.values(), allow_pickle=False)
    return path
