"""ExecuTorch with XNNPACK: the runtime of PyTorch for phones and boards."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from parefront.errors import MeasurementError
from parefront.objectives.targets.axes import refuse_dynamic
from parefront.objectives.targets.libraries import library
from parefront.objectives.targets.quiet import quiet, silent_descriptors
from parefront.objectives.targets.runtime import Array, Dynamic, Feeds
from parefront.objectives.targets.scripts import script_of
from parefront.objectives.targets.signature import Signature

if TYPE_CHECKING:
    import torch
    from torch import nn
    from torch.export import ExportedProgram

_NAME = "ExecuTorch"
_LARGEST_BATCH = 128
"""Examples a file with a dynamic batch has room for at once; more are run in pieces."""


class ExecuTorchSession:
    """A program loaded by ExecuTorch.

    Attributes:
        batch: Examples that one run must have, or `None` if any number will do.
    """

    batch: int | None

    _generation = 0
    """How often the pool of threads, which is the process's, was made anew."""

    def __init__(self, path: Path, threads: int, bindings: Any) -> None:  # noqa: ANN401 (a module)
        """Loads a program.

        Args:
            path: The program.
            threads: Threads to run it on.
            bindings: The module `executorch.extension.pybindings.portable_lib`.
        """
        self._path = path
        self._threads = threads
        self._bindings = bindings
        self._load()
        text = self._program.load_method("signature")([])[0]
        self._signature = Signature.from_json(text)
        self._most = self._method.method_meta().input_tensor_meta(0).sizes()[0]
        self.batch = self._signature.batch

    def _load(self) -> None:
        if self._bindings._threadpool_get_thread_count() != self._threads:
            self._bindings._unsafe_reset_threadpool(self._threads)
            ExecuTorchSession._generation += 1
        # A program holds on to the pool of threads it was loaded with.
        self._loaded_in = ExecuTorchSession._generation
        self._program = self._bindings._load_program(str(self._path))
        self._method = self._program.load_method("forward")

    def run(self, feeds: Feeds) -> Sequence[Array]:
        """Runs the program once, or in pieces where the batch is larger than it has room for."""
        import torch

        from parefront.objectives.targets.torch_session import tensors

        inputs = tensors(self._signature.ordered(feeds, _NAME))
        try:
            count = self._bindings._threadpool_get_thread_count()
            if self._loaded_in != ExecuTorchSession._generation or count != self._threads:
                self._load()
            if len(inputs[0]) <= self._most:
                return [output.numpy() for output in self._method(inputs)]
            pieces = zip(*(torch.split(tensor, self._most) for tensor in inputs), strict=True)
            # A slice of one example is contiguous in more ways than one; a copy is not in doubt.
            runs = [self._method([part.contiguous() for part in piece]) for piece in pieces]
            return [torch.cat(outputs).numpy() for outputs in zip(*runs, strict=True)]
        except RuntimeError as error:
            raise MeasurementError(f"{_NAME} could not run it: {error}") from error


class ExecuTorchRuntime:
    """Builds ExecuTorch programs and runs them with its Python bindings.

    What XNNPACK has kernels for is handed to it, the rest runs on ExecuTorch's portable kernels.
    """

    name = "executorch"
    format = "pte"
    channel_multiple = 8
    resizes = False
    dear = True
    native = False

    def version(self) -> str:
        """Version of the installed ExecuTorch."""
        from importlib.metadata import version

        self._library("executorch")
        return version("executorch")

    def build(
        self,
        module: nn.Module,
        example: tuple[torch.Tensor, ...],
        input_names: Sequence[str],
        path: Path,
        *,
        dynamic: Dynamic | None = None,
    ) -> None:
        """Lowers the module to an ExecuTorch program."""
        refuse_dynamic(dynamic, _NAME)
        with quiet():
            self._library("executorch.exir")
            self._library("executorch.backends.xnnpack.partition.xnnpack_partitioner")
        from parefront.objectives.targets.torch_programs import build_program

        build_program(
            module,
            example,
            input_names,
            path,
            runtime=self.name,
            write=_write,
            load=self._open_silently,
            largest_batch=max(_LARGEST_BATCH, len(example[0])),
        )

    def script(self) -> str:
        """Source of a program that runs a file with ExecuTorch, torch and numpy."""
        return script_of("run_executorch.py")

    def open(self, path: Path, threads: int) -> ExecuTorchSession:
        """Loads a program."""
        with quiet():
            bindings = self._library("executorch.extension.pybindings.portable_lib")
        try:
            return ExecuTorchSession(path, threads, bindings)
        except (OSError, RuntimeError, ValueError) as error:
            raise MeasurementError(f"{_NAME} could not load {path.name}: {error}") from error

    def _open_silently(self, path: Path, threads: int) -> ExecuTorchSession:
        with silent_descriptors():  # it reports on the CPU and its threads from C++
            return self.open(path, threads)

    def _library(self, module: str) -> Any:  # noqa: ANN401 (a module)
        return library(module, self.name, "parefront[executorch]")


def _write(program: ExportedProgram, signature: Signature, path: Path) -> None:
    from executorch.backends.xnnpack.partition.xnnpack_partitioner import XnnpackPartitioner
    from executorch.exir import to_edge_transform_and_lower

    lowered = to_edge_transform_and_lower(
        program,
        partitioner=[XnnpackPartitioner()],
        constant_methods={"signature": signature.to_json()},
    )
    path.write_bytes(lowered.to_executorch().buffer)
