"""A session over a torch program: arrays in, arrays out, on a fixed number of threads."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import numpy as np
import torch

from parefront.errors import MeasurementError
from parefront.objectives.targets.probes import reason
from parefront.objectives.targets.runtime import Array, Feeds
from parefront.objectives.targets.signature import Signature
from parefront.objectives.targets.torch_programs import flat


class TorchSession:
    """A loaded program that takes and returns tensors.

    Attributes:
        batch: Examples that one run must have, or `None` if any number will do.
    """

    batch: int | None

    def __init__(
        self, runtime: str, signature: Signature, forward: Callable[..., object], threads: int
    ) -> None:
        """Wraps a program.

        Args:
            runtime: What runs it, for messages.
            signature: Its inputs.
            forward: Takes a tensor for each input, in order.
            threads: Threads torch may use.
        """
        self.batch = signature.batch
        self._runtime = runtime
        self._signature = signature
        self._forward = forward
        self._threads = threads

    def run(self, feeds: Feeds) -> Sequence[Array]:
        """Runs the program once."""
        inputs = tensors(self._signature.ordered(feeds, self._runtime))
        try:
            with torch.inference_mode(), _on_threads(self._threads):
                outputs = self._forward(*inputs)
        except Exception as error:  # torch's errors share no base class
            raise MeasurementError(f"{self._runtime} could not run it: {reason(error)}") from error
        return [output.numpy() for output in flat(outputs, self._runtime)]


def tensors(arrays: Sequence[Array]) -> list[torch.Tensor]:
    """Arrays as tensors over the same memory, where torch can use it."""
    return [torch.from_numpy(np.require(array, requirements=("C", "W"))) for array in arrays]


@contextmanager
def _on_threads(threads: int) -> Iterator[None]:
    """Has torch use that many threads; the number is the whole process's, so it is put back."""
    before = torch.get_num_threads()
    if before == threads:  # always so in a measuring process
        yield
        return
    torch.set_num_threads(threads)
    try:
        yield
    finally:
        torch.set_num_threads(before)
