"""Metrics: what a task calls good, with an interval for what a finite split can tell."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from parefront.errors import MeasurementError
from parefront.objectives.measurement import Direction, Measurement
from parefront.objectives.targets.runtime import Array

_Z95 = 1.959963984540054
_RESAMPLES = 200


@dataclass(frozen=True)
class Metric:
    """A number that says how good outputs are.

    Attributes:
        name: Name shown in tables and figures.
        function: Turns outputs and targets of all examples, batch first, into the number. Outputs
            are one array, or a list of arrays when the model has several outputs.
        direction: Which values are better.
        scores: Optionally, turns the same into one score an example, of which the metric is the
            mean. The interval is then Wilson's for scores of 0 and 1 and normal for others;
            without it the interval is a percentile bootstrap of `function` over examples.
        limit: The best value there can be, such as 1 for an accuracy; `None` if there is none.
            The search hopes for nothing better.

    Example:
        >>> within_one = Metric("within one", lambda y, t: float((abs(y - t) <= 1).mean()),
        ...                     Direction.MAXIMIZE)
    """

    name: str
    function: Callable[[Any, NDArray[Any]], float]
    direction: Direction = Direction.MAXIMIZE
    scores: Callable[[Any, NDArray[Any]], NDArray[Any]] | None = None
    limit: float | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "direction", Direction(self.direction))

    def value(self, outputs: Sequence[Array], targets: Array) -> float:
        """The metric of all examples.

        Raises:
            MeasurementError: If the metric is not a finite number.
        """
        value = float(self.function(_one(outputs), targets))
        if not math.isfinite(value):
            raise MeasurementError(f"metric '{self.name}' is {value}; expected a finite number")
        return value

    def measure(self, outputs: Sequence[Array], targets: Array) -> Measurement:
        """The metric of all examples with its 95 % interval.

        Raises:
            MeasurementError: If the metric is not a finite number.
        """
        value = self.value(outputs, targets)
        if self.scores is not None:
            scores = np.asarray(self.scores(_one(outputs), targets), dtype=float)
            low, high = _mean_interval(scores)
            protocol = f"{self.name} over examples"
        else:
            low, high = self._bootstrap(outputs, targets)
            protocol = f"{self.name}, bootstrap"
        return Measurement(
            value=value,
            low=min(low, value),
            high=max(high, value),
            samples=len(targets),
            protocol=protocol,
        )

    def _bootstrap(self, outputs: Sequence[Array], targets: Array) -> tuple[float, float]:
        rng = np.random.default_rng(0)
        count = len(targets)
        values = []
        for _ in range(_RESAMPLES):
            index = rng.integers(0, count, count)
            values.append(float(self.function(_one([x[index] for x in outputs]), targets[index])))
        finite = [value for value in values if math.isfinite(value)]
        if not finite:
            raise MeasurementError(
                f"metric '{self.name}' is undefined on every resample of the examples; "
                "give it scores, or more examples"
            )
        low, high = np.percentile(finite, [2.5, 97.5])
        return float(low), float(high)


def _one(outputs: Sequence[Array]) -> object:
    return outputs[0] if len(outputs) == 1 else list(outputs)


def _mean_interval(scores: NDArray[np.float64]) -> tuple[float, float]:
    """Interval of a mean: Wilson (1927) for 0 and 1, else normal with the sample deviation."""
    count, mean = len(scores), float(scores.mean())
    if np.isin(scores, (0.0, 1.0)).all():
        z2 = _Z95**2
        centre = (mean + z2 / (2 * count)) / (1 + z2 / count)
        spread = mean * (1 - mean) / count + z2 / (4 * count**2)
        half = _Z95 / (1 + z2 / count) * math.sqrt(spread)
        return max(0.0, centre - half), min(1.0, centre + half)
    half = _Z95 * float(scores.std(ddof=1)) / math.sqrt(count) if count > 1 else 0.0
    return mean - half, mean + half


def _hits(outputs: NDArray[Any], targets: NDArray[Any]) -> NDArray[Any]:
    hits = outputs.argmax(axis=-1) == targets
    if hits.ndim == 1:
        return np.asarray(hits, dtype=float)
    counted = targets != -100  # torch's ignore_index: padding counts neither way
    axes = tuple(range(1, hits.ndim))
    share = (hits & counted).sum(axis=axes) / np.maximum(counted.sum(axis=axes), 1)
    return np.asarray(share, dtype=float)


accuracy = Metric("accuracy", lambda y, t: float(_hits(y, t).mean()), scores=_hits, limit=1.0)
"""Share of examples whose largest output is at the target; higher is better.

For token models, outputs `(batch, tokens, classes)` and targets `(batch, tokens)`, the mean over
examples of the share of tokens; targets of -100 are left out.
"""

mean_squared_error = Metric(
    "mean squared error",
    lambda y, t: float(np.square(y - t).mean()),
    Direction.MINIMIZE,
    scores=lambda y, t: np.square(y - t).reshape(len(t), -1).mean(axis=1),
    limit=0.0,
)
"""Mean of squared differences; lower is better."""

mean_absolute_error = Metric(
    "mean absolute error",
    lambda y, t: float(np.abs(y - t).mean()),
    Direction.MINIMIZE,
    scores=lambda y, t: np.abs(y - t).reshape(len(t), -1).mean(axis=1),
    limit=0.0,
)
"""Mean of absolute differences; lower is better."""
