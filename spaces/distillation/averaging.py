"""The average of a module's parameters over the steps of a training."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import nn


class RunningAverage:
    """An exponential moving average, corrected for its start (Polyak averaging; Kingma, Ba 2015).

    Args:
        parameters: The parameters.
        decay: Share of the average that each step keeps, in (0, 1).
    """

    def __init__(self, parameters: Sequence[nn.Parameter], decay: float) -> None:
        self._parameters, self._decay = parameters, decay
        self._sums = [torch.zeros_like(parameter) for parameter in parameters]
        self._weight = 0.0

    @torch.no_grad()
    def update(self) -> None:
        """Takes in the parameters as they are."""
        self._weight = self._decay * self._weight + 1 - self._decay
        for total, parameter in zip(self._sums, self._parameters, strict=True):
            total.mul_(self._decay).add_(parameter, alpha=1 - self._decay)

    @torch.no_grad()
    def take(self) -> None:
        """Gives the parameters their averages; as they are if there was no step."""
        if self._weight:
            for total, parameter in zip(self._sums, self._parameters, strict=True):
                parameter.copy_(total / self._weight)

    @contextmanager
    def taken(self) -> Iterator[None]:
        """Gives the parameters their averages while inside."""
        before = [parameter.detach().clone() for parameter in self._parameters]
        self.take()
        try:
            yield
        finally:
            with torch.no_grad():
                for kept, parameter in zip(before, self._parameters, strict=True):
                    parameter.copy_(kept)
