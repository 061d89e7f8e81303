"""OpenVINO on the CPU: reads the same ONNX files as ONNX Runtime."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from parefront.errors import MeasurementError
from parefront.objectives.targets.libraries import library
from parefront.objectives.targets.runtime import Array, Dynamic, Feeds
from parefront.objectives.targets.scripts import script_of
from parefront.objectives.targets.signature import Input, Signature

if TYPE_CHECKING:
    import torch
    from torch import nn

_NAME = "OpenVINO"


class OpenVinoSession:
    """An ONNX file compiled by OpenVINO.

    OpenVINO itself converts arrays of a wrong type in silence, so inputs are checked before they
    reach it.

    Attributes:
        batch: Examples that one run must have, or `None` if any number will do.
    """

    batch: int | None

    def __init__(self, compiled: Any) -> None:  # noqa: ANN401 (openvino may not be installed)
        """Wraps an `openvino.CompiledModel`."""
        self._request = compiled.create_infer_request()
        self._signature = Signature(tuple(_input(port) for port in compiled.inputs))
        self._count = len(compiled.outputs)
        self.batch = self._signature.batch

    def run(self, feeds: Feeds) -> Sequence[Array]:
        """Runs the file once."""
        arrays = self._signature.ordered(feeds, _NAME)
        try:
            # Outputs are copied: the next run would write over them.
            found = self._request.infer(arrays, share_inputs=True, share_outputs=False)
        except Exception as error:  # OpenVINO's errors are RuntimeErrors of several kinds
            raise MeasurementError(f"{_NAME} could not run it: {_reason(error)}") from error
        return [found[index] for index in range(self._count)]


class OpenVinoRuntime:
    """Builds ONNX files and runs them with OpenVINO's CPU plugin.

    Computes in fp32 what is fp32: OpenVINO's own choice would be bf16 where the CPU has it.
    Nothing is cached on disk.
    """

    name = "openvino"
    format = "onnx"
    channel_multiple = 16
    resizes = True
    dear = False
    native = False

    def version(self) -> str:
        """Version of the installed OpenVINO."""
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
        """Exports the module to an ONNX file, as ONNX Runtime does, and compares it here."""
        self._library()
        from parefront.objectives.targets.onnx_export import export_onnx

        export_onnx(module, example, input_names, path, load=self.open, dynamic=dynamic)

    def script(self) -> str:
        """Source of a program that runs an ONNX file with OpenVINO and numpy."""
        return script_of("run_openvino.py")

    def open(self, path: Path, threads: int) -> OpenVinoSession:
        """Reads an ONNX file and compiles it for latency."""
        openvino = self._library()
        options = {
            "INFERENCE_PRECISION_HINT": "f32",
            "INFERENCE_NUM_THREADS": threads,
            "PERFORMANCE_HINT": "LATENCY",
        }
        try:
            core = openvino.Core()
            return OpenVinoSession(core.compile_model(core.read_model(path), "CPU", options))
        except Exception as error:  # OpenVINO's errors are RuntimeErrors of several kinds
            raise MeasurementError(
                f"{_NAME} could not load {path.name}: {_reason(error)}"
            ) from error

    def _library(self) -> Any:  # noqa: ANN401 (a module)
        return library("openvino", self.name, "parefront[openvino]")


def _input(port: Any) -> Input:  # noqa: ANN401 (openvino may not be installed)
    sizes = (
        None if size.is_dynamic else int(size.get_length()) for size in port.get_partial_shape()
    )
    dtype = port.get_element_type().to_dtype().name
    return Input(port.get_any_name(), dtype, tuple(sizes))


def _reason(error: Exception) -> str:
    """What went wrong, in a line: OpenVINO names the place in its source first."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    telling = [line for line in lines if not line.startswith(("Exception from", "Check '"))]
    return ((telling or lines)[0] if lines else type(error).__name__)[:400]
