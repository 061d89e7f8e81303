"""LiteRT, formerly TensorFlow Lite: the runtime of Android."""

from __future__ import annotations

import keyword
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from parefront.errors import BuildError, MeasurementError
from parefront.objectives.targets.axes import refuse_dynamic
from parefront.objectives.targets.libraries import library
from parefront.objectives.targets.quiet import quiet, silent_descriptors
from parefront.objectives.targets.runtime import Array, Dynamic, Feeds
from parefront.objectives.targets.scripts import script_of
from parefront.objectives.targets.signature import Input, Signature

if TYPE_CHECKING:
    import torch
    from torch import nn

_NAME = "LiteRT"


class LiteRtSession:
    """A model loaded by LiteRT's interpreter.

    Attributes:
        batch: Examples that one run must have.
    """

    batch: int | None

    def __init__(self, interpreter: Any) -> None:  # noqa: ANN401 (may not be installed)
        """Wraps an `ai_edge_litert.interpreter.Interpreter`."""
        interpreter.allocate_tensors()
        runner = interpreter.get_signature_runner()
        inputs = runner.get_input_details()
        self._interpreter = interpreter
        self._signature = Signature(
            tuple(
                Input(name, details["dtype"]().dtype.name, tuple(map(int, details["shape"])))
                for name, details in inputs.items()
            )
        )
        self._inputs = [details["index"] for details in inputs.values()]
        outputs = runner.get_output_details()
        self._outputs = [outputs[f"output_{i}"]["index"] for i in range(len(outputs))]
        self.batch = self._signature.batch

    def run(self, feeds: Feeds) -> Sequence[Array]:
        """Runs the model once."""
        arrays = self._signature.ordered(feeds, _NAME)
        try:
            for index, array in zip(self._inputs, arrays, strict=True):
                self._interpreter.set_tensor(index, array)
            self._interpreter.invoke()
            return [self._interpreter.get_tensor(index) for index in self._outputs]
        except (RuntimeError, ValueError) as error:
            raise MeasurementError(f"{_NAME} could not run it: {error}") from error


class LiteRtRuntime:
    """Builds LiteRT models and runs them with XNNPACK's kernels where it has them.

    Models have the batch of the example: the converter has no symbolic sizes for convolutions
    and reshapes.
    """

    name = "litert"
    format = "tflite"
    channel_multiple = 8
    resizes = False
    dear = True
    native = False

    def version(self) -> str:
        """Version of the installed interpreter."""
        from importlib.metadata import version

        self._library("ai_edge_litert")
        return version("ai-edge-litert")

    def build(
        self,
        module: nn.Module,
        example: tuple[torch.Tensor, ...],
        input_names: Sequence[str],
        path: Path,
        *,
        dynamic: Dynamic | None = None,
    ) -> None:
        """Converts the module to a LiteRT model for batches of the example's size."""
        refuse_dynamic(dynamic, _NAME)
        with quiet(), silent_descriptors():
            self._library("litert_torch")
        from parefront.objectives.targets.litert_export import export_litert

        wrong = [n for n in input_names if not n.isidentifier() or keyword.iskeyword(n)]
        if wrong:
            raise BuildError(
                f"expected names of inputs that could be names in Python, as LiteRT's converter "
                f"does, got {wrong}"
            )
        export_litert(module, example, input_names, path, load=self.open)

    def script(self) -> str:
        """Source of a program that runs a model with ai-edge-litert and numpy."""
        return script_of("run_litert.py")

    def open(self, path: Path, threads: int) -> LiteRtSession:
        """Loads a model."""
        interpreter = self._library("ai_edge_litert.interpreter").Interpreter
        try:
            return LiteRtSession(interpreter(model_path=str(path), num_threads=threads))
        except (KeyError, RuntimeError, ValueError) as error:
            raise MeasurementError(f"{_NAME} could not load {path.name}: {error}") from error

    def _library(self, module: str) -> Any:  # noqa: ANN401 (a module)
        return library(module, self.name, "parefront[litert]")
