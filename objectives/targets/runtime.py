"""The contract of a runtime: what builds an artifact and what runs it.

A new runtime is a new file and one line in `parefront.objectives.targets.catalog`. A runtime
module imports torch, and the runtime itself, only inside the functions that need them: device
processes run artifacts without torch.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    import torch
    from torch import nn

Array = NDArray[np.generic]
Feeds = Mapping[str, Array]
"""Named inputs, batch first."""
Dynamic = Mapping[str, Mapping[int, str]]
"""Names of the dimensions of inputs that may have other sizes than the example's, by input and
number of the dimension; those of one name have one size. The batch is not among them."""


class Session(Protocol):
    """An artifact loaded and ready to run.

    Attributes:
        batch: Examples that one run must have, or `None` if any number will do.
    """

    batch: int | None

    def run(self, feeds: Feeds) -> Sequence[Array]:
        """Runs the artifact once.

        Args:
            feeds: An array for each input, by name.

        Returns:
            The outputs in order, batch first.

        Raises:
            MeasurementError: If the runtime refuses the inputs or fails.
        """
        ...


class Runtime(Protocol):
    """Builds and runs artifacts of one format.

    Attributes:
        name: Key of the runtime in a study file.
        format: Format of its artifacts, and their file suffix without the dot.
        channel_multiple: Widths that are multiples of this run well on it.
        resizes: Whether inputs of its files may have dimensions of any size besides the batch.
        dear: Whether building takes seconds, so that it is for finalists and not for each
            candidate of a search.
        native: Whether its files may bring code of their own, so that one from elsewhere is run
            only where that is allowed.
    """

    name: str
    format: str
    channel_multiple: int
    resizes: bool
    dear: bool
    native: bool

    def version(self) -> str:
        """Version of the installed runtime.

        Raises:
            RuntimeMissingError: If its library is not installed.
        """
        ...

    def build(
        self,
        module: nn.Module,
        example: tuple[torch.Tensor, ...],
        input_names: Sequence[str],
        path: Path,
        *,
        dynamic: Dynamic | None = None,
    ) -> None:
        """Turns a module in evaluation mode into an artifact at `path`.

        The batch dimension is dynamic where the module allows it. The artifact's outputs are
        compared with the module's on the example inputs.

        Args:
            module: The module.
            example: Inputs on the CPU, batch first.
            input_names: Name of each input.
            path: File to write.
            dynamic: Further dimensions that may have any size.

        Raises:
            BuildError: If the module cannot be exported, the outputs differ, or the format has no
                dynamic dimensions and some are asked for.
            RuntimeMissingError: If the library is not installed.
        """
        ...

    def script(self) -> str:
        """Source of a program that runs `model.{format}` beside it with this runtime and numpy.

        Without arguments it replays `check.npz`, inputs by name and outputs as `output:0`,
        `output:1`, ..., and exits with 0 when they agree.
        """
        ...

    def open(self, path: Path, threads: int) -> Session:
        """Loads an artifact.

        Raises:
            MeasurementError: If the file cannot be loaded.
            RuntimeMissingError: If the library is not installed.
        """
        ...
