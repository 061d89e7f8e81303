"""Conversion of a torch module to a LiteRT model."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from torch import nn

from parefront.errors import BuildError
from parefront.objectives.targets.probes import (
    Tensors,
    as_exported,
    check_names,
    copies,
    keep,
    probe,
    reason,
)
from parefront.objectives.targets.quiet import quiet, silent_descriptors
from parefront.objectives.targets.runtime import Session

_WIDE = (torch.int64, torch.float64)


class _Named(nn.Module):
    """Takes its inputs by name: the converter calls inputs by their keywords."""

    def __init__(self, module: nn.Module, names: Sequence[str]) -> None:
        super().__init__()
        self.module = module
        self.names = list(names)

    def forward(self, **inputs: torch.Tensor) -> object:
        return self.module(*(inputs[name] for name in self.names))


def export_litert(
    module: nn.Module,
    example: Tensors,
    input_names: Sequence[str],
    path: Path,
    *,
    load: Callable[[Path, int], Session],
) -> None:
    """Writes a module as a LiteRT model for the example's batch that computes the same.

    Raises:
        BuildError: If the module cannot be converted, returns something other than tensors
            with the batch first, or the model's outputs differ from the module's.
        ArtifactError: If the file cannot be written.
    """
    import litert_torch

    check_names(example, input_names)
    with as_exported(module), silent_descriptors():
        own = probe(module, copies(example))
        named = dict(zip(input_names, copies(example), strict=True))
        # Otherwise wide inputs and outputs would silently become 32 bits wide.
        wide = any(tensor.dtype in _WIDE for tensor in (*own[0], *own[1]))

        def write(draft: Path) -> None:
            with quiet():
                try:
                    model = litert_torch.convert(
                        _Named(module, input_names).eval(), sample_kwargs=named, enable_x64=wide
                    )
                    model.export(str(draft))
                except Exception as error:  # the converter's errors share no base class
                    raise BuildError(
                        f"the model cannot be converted to LiteRT: {reason(error)}"
                    ) from error

        keep(path, write, load, input_names, [own])
