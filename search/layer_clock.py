"""Times a layer by itself, beside what might take its place."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import torch
from torch import nn

from parefront.errors import BuildError, DeviceAwayError, MeasurementError, StageError
from parefront.objectives.targets.catalog import runtime
from parefront.objectives.targets.device import Device, Effort
from parefront.objectives.targets.target import Target
from parefront.spaces.inspection import run
from parefront.spaces.stage import Inputs

EFFORT = Effort(runs=50, precision=0.05, seconds=1.0)


class LayerClock:
    """Exports a layer and what might take its place, and times one against the other on a device.

    A layer runs on what it is given in the model, at the batch size of the target. Two of equal
    form on inputs of equal shape are timed once. Both have the fixed cost of a run, so that ratios
    of tiny layers are nearer to 1 than they are inside a model.

    Args:
        device: Where it is timed.
        target: The runtime, its threads and the batch size.
        example: A batch of that size for the whole model.
        key: What timings depend on besides the layers: device, runtime, batch size and effort.
    """

    def __init__(self, device: Device, target: Target, example: Inputs, key: str) -> None:
        self.key = key
        self._device, self._target, self._example = device, target, example
        self._known: dict[tuple[object, ...], float] = {}

    def __call__(self, model: nn.Module, name: str, replacement: nn.Module) -> float:
        """The latency of a replacement over that of the layer; lower is faster.

        Raises:
            StageError: If the layer is not called with one tensor, or cannot be exported or run by
                itself.
            DeviceAwayError: If the device cannot be reached.
        """
        layer = model.get_submodule(name)
        given = self._given(model, layer)
        if given is None:
            raise StageError(f"{name} is not called with one tensor, and cannot be timed by itself")
        same = (str(layer), str(replacement), given.shape, given.dtype)
        if same not in self._known:
            try:
                self._known[same] = self._ratio(layer, replacement, given)
            except DeviceAwayError:
                raise
            except (BuildError, MeasurementError) as error:
                raise StageError(f"{name} cannot be timed by itself: {error}") from error
        return self._known[same]

    def _given(self, model: nn.Module, layer: nn.Module) -> torch.Tensor | None:
        """What the layer is given first in the model."""
        found: list[torch.Tensor] = []

        def keep(module: nn.Module, inputs: tuple[Any, ...]) -> None:  # noqa: ARG001
            if len(inputs) == 1 and isinstance(inputs[0], torch.Tensor):
                found.append(inputs[0].detach().clone())

        handle = layer.register_forward_pre_hook(keep)
        try:
            run(model, self._example)
        finally:
            handle.remove()
        return found[0] if found else None

    def _ratio(self, layer: nn.Module, replacement: nn.Module, given: torch.Tensor) -> float:
        target = self._target
        chosen = runtime(target.runtime)
        with tempfile.TemporaryDirectory(prefix="parefront-") as folder:
            dense, thin = (Path(folder) / f"{each}.{chosen.format}" for each in ("dense", "thin"))
            for module, path in ((layer, dense), (replacement, thin)):
                chosen.build(module, (given,), ("input",), path)
            timing = self._device.time(
                thin,
                dense,
                {"input": given.numpy()},
                runtime=target.runtime,
                threads=target.threads,
                effort=EFFORT,
            )
        return timing.ratio
