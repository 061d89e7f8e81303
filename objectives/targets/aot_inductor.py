"""AOTInductor: torch's compiler, ahead of time, to machine code for this CPU."""

from __future__ import annotations

import os
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from parefront.errors import BuildError, MeasurementError
from parefront.objectives.targets.libraries import library
from parefront.objectives.targets.quiet import quiet
from parefront.objectives.targets.runtime import Dynamic
from parefront.objectives.targets.scripts import script_of

if TYPE_CHECKING:
    import torch
    from torch import nn
    from torch.export import ExportedProgram

    from parefront.objectives.targets.signature import Signature
    from parefront.objectives.targets.torch_session import TorchSession

_NAME = "AOTInductor"
_METADATA = "signature"


class AotInductorRuntime:
    """Compiles modules to packages of machine code and runs them with torch.

    A package runs only on CPUs with the instruction sets of the one that built it. Opening one
    runs what is in it.
    """

    name = "aotinductor"
    format = "pt2"
    channel_multiple = 8
    resizes = True
    dear = True
    native = True

    def version(self) -> str:
        """Version of the installed torch, whose part AOTInductor is."""
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
        """Compiles the module to a package."""
        self._library()
        from parefront.objectives.targets.torch_programs import build_program

        build_program(
            module,
            example,
            input_names,
            path,
            runtime=self.name,
            write=_write,
            load=self.open,
            dynamic=dynamic,
        )

    def script(self) -> str:
        """Source of a program that runs a package with torch and numpy."""
        return script_of("run_aot_inductor.py")

    def open(self, path: Path, threads: int) -> TorchSession:
        """Loads a package."""
        torch = self._library()
        from parefront.objectives.targets.probes import reason
        from parefront.objectives.targets.signature import Signature
        from parefront.objectives.targets.torch_session import TorchSession

        try:
            with quiet():
                from torch.export.pt2_archive._package import AOTICompiledModel

                # Not `aoti_load_package`: to warn of other CPUs it tries the C++ compiler, which
                # takes seconds, and devices have none.
                loader = torch._C._aoti.AOTIModelPackageLoader(str(path), "model", False, 1, -1)
                package = AOTICompiledModel(loader)
            signature = Signature.from_json(package.get_metadata()[_METADATA])
        except Exception as error:  # the package's bytes may make torch raise anything
            raise MeasurementError(
                f"{_NAME} could not load {path.name}: {reason(error)}"
            ) from error
        return TorchSession(_NAME, signature, package, threads)

    def _library(self) -> Any:  # noqa: ANN401 (a module)
        return library("torch", self.name, "torch")


def _write(program: ExportedProgram, signature: Signature, path: Path) -> None:
    import torch
    from torch._inductor.utils import fresh_cache

    compiler = os.environ.get("CXX", "g++")
    if shutil.which(compiler) is None:
        raise BuildError(
            f"AOTInductor needs a C++ compiler and there is no {compiler!r}; install g++, or name "
            "another in the environment variable CXX"
        )
    options = {
        # Otherwise the number of threads of the building process is compiled in.
        "cpp.dynamic_threads": True,
        "aot_inductor.precompile_headers": False,  # they would go to the shared cache
        "aot_inductor.metadata": {_METADATA: signature.to_json()},
    }
    # The shared cache is a folder that others may have written to.
    with fresh_cache():
        torch._inductor.aoti_compile_and_package(
            program, package_path=str(path), inductor_configs=options
        )
