"""torch itself: the reference that other runtimes are compared with."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from parefront.errors import MeasurementError
from parefront.objectives.targets.libraries import library
from parefront.objectives.targets.runtime import Dynamic
from parefront.objectives.targets.scripts import script_of

if TYPE_CHECKING:
    import torch
    from torch import nn

    from parefront.objectives.targets.torch_session import TorchSession


class TorchRuntime:
    """Builds `torch.export` archives and runs their operators one by one, in inference mode."""

    name = "torch"
    format = "ep"
    channel_multiple = 8
    resizes = True
    dear = False
    native = True

    def version(self) -> str:
        """Version of the installed torch."""
        return str(self._library().__version__)

    def build(
        self,
        module: nn.Module,
        example: tuple[torch.Tensor, ...],
        input_names: Sequence[str],
        path: Path,
        *,
        dynamic: Dynamic | None = None,
    ) -> None:
        """Exports the module to an archive that holds no pickles."""
        self._library()
        from parefront.objectives.targets.torch_archive import write_archive
        from parefront.objectives.targets.torch_programs import build_program

        build_program(
            module,
            example,
            input_names,
            path,
            runtime=self.name,
            write=write_archive,
            load=self.open,
            dynamic=dynamic,
        )

    def script(self) -> str:
        """Source of a program that runs an archive with torch and numpy."""
        return script_of("run_torch_eager.py")

    def open(self, path: Path, threads: int) -> TorchSession:
        """Loads an archive, once it is clear that loading it runs no code of its own."""
        self._library()
        from parefront.objectives.targets.probes import reason
        from parefront.objectives.targets.torch_archive import read_archive
        from parefront.objectives.targets.torch_session import TorchSession

        try:
            program, signature = read_archive(path)
            forward = program.module(check_guards=False)
        except Exception as error:  # the archive's bytes may make torch raise anything
            raise MeasurementError(f"torch could not load {path.name}: {reason(error)}") from error
        return TorchSession("torch", signature, forward, threads)

    def _library(self) -> Any:  # noqa: ANN401 (a module)
        return library("torch", self.name, "torch")
