"""The hypervolume of a search on error, latency and size, relative to the baseline."""

from __future__ import annotations

import math

import moocore
import numpy as np

from parefront.search.records import Outcome, Status


class Volume:
    """The hypervolume of a search, trial by trial.

    Args:
        baseline: The outcome of the baseline.
        worst_error: Error, 1 minus the accuracy, from which a candidate counts nothing.
        worst_latency: Latency over the baseline's from which it counts nothing. Techniques that
            leave latency as it is measure a little more or less than 1.
    """

    def __init__(
        self, baseline: Outcome, *, worst_error: float = 0.1, worst_latency: float = 1.0
    ) -> None:
        self._scale = [baseline.measurements[name].value for name in ("latency", "size")]
        self._worst_error = worst_error
        self._reference = [1.0, math.log(worst_latency), 0.0]
        self._points: list[list[float]] = []
        self.now = 0.0

    def add(self, outcome: Outcome) -> float:
        """Takes in a trial; returns the hypervolume with it."""
        if outcome.status == Status.COMPLETE:
            values = {name: found.value for name, found in outcome.measurements.items()}
            costs = [
                math.log(values[name] / scale)
                for name, scale in zip(("latency", "size"), self._scale, strict=True)
            ]
            self._points.append([(1.0 - values["accuracy"]) / self._worst_error, *costs])
            self.now = float(moocore.hypervolume(np.array(self._points), ref=self._reference))
        return self.now
