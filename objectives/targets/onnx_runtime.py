"""ONNX Runtime on the CPU: the runtime of the search."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from parefront.errors import MeasurementError
from parefront.objectives.targets.libraries import library
from parefront.objectives.targets.runtime import Array, Dynamic, Feeds

if TYPE_CHECKING:
    import torch
    from torch import nn


class OnnxSession:
    """An ONNX file loaded by ONNX Runtime.

    Attributes:
        batch: Examples that one run must have, or `None` if any number will do.
    """

    batch: int | None

    def __init__(self, session: Any) -> None:  # noqa: ANN401 (onnxruntime has no types)
        """Wraps an `onnxruntime.InferenceSession`."""
        self._session = session
        sizes = [entry.shape[0] for entry in session.get_inputs() if entry.shape]
        self.batch = next((size for size in sizes if isinstance(size, int)), None)

    def run(self, feeds: Feeds) -> Sequence[Array]:
        """Runs the file once."""
        try:
            outputs: Sequence[Array] = self._session.run(None, feeds)
        except Exception as error:  # ONNX Runtime's errors share no base class
            raise MeasurementError(f"ONNX Runtime could not run it: {_reason(error)}") from error
        return outputs


class OnnxRuntime:
    """Builds ONNX files and runs them with ONNX Runtime's CPU kernels.

    Worker threads do not spin between runs: in a timing session the idle threads of one model
    would take the cores away from the other.
    """

    name = "onnxruntime"
    format = "onnx"
    channel_multiple = 8
    resizes = True
    dear = False
    native = False

    def version(self) -> str:
        """Version of the installed ONNX Runtime."""
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
        """Exports the module to an ONNX file."""
        self._library()
        from parefront.objectives.targets.onnx_export import export_onnx

        export_onnx(module, example, input_names, path, dynamic=dynamic)

    def script(self) -> str:
        """Source of a program that runs an ONNX file with ONNX Runtime and numpy."""
        return Path(__file__).with_name("run_onnx.py").read_text()

    def open(self, path: Path, threads: int) -> OnnxSession:
        """Loads an ONNX file with all of ONNX Runtime's optimisations."""
        onnxruntime = self._library()
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL
        options.log_severity_level = 4  # errors are raised, and need not be printed too
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        try:
            session = onnxruntime.InferenceSession(
                str(path), options, providers=["CPUExecutionProvider"]
            )
        except Exception as error:  # ONNX Runtime's errors share no base class
            raise MeasurementError(
                f"ONNX Runtime could not load {path.name}: {_reason(error)}"
            ) from error
        return OnnxSession(session)

    def _library(self) -> Any:  # noqa: ANN401 (a module)
        return library("onnxruntime", self.name, "onnxruntime")


def _reason(error: Exception) -> str:
    """The first line of an error, cut to a readable length."""
    lines = str(error).strip().splitlines()
    return (lines[0] if lines else type(error).__name__)[:400]
