"""The contract of an objective: one thing measured on an artifact."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Annotated, Protocol

from pydantic import BaseModel, ConfigDict, Field, model_validator

from parefront.objectives.artifact import Artifact
from parefront.objectives.measurement import Direction, Measurement
from parefront.objectives.targets.device import Device, Effort
from parefront.objectives.targets.runtime import Array, Feeds

Limit = Annotated[float, Field(strict=True, allow_inf_nan=False)]
"""A number, and not true or false, which Python takes for 1 and 0."""


class Bound(BaseModel):
    """An optional limit on an objective, in the unit of its column.

    Attributes:
        at_least: Smallest value that is allowed.
        at_most: Largest value that is allowed.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    at_least: Limit | None = None
    at_most: Limit | None = None

    @model_validator(mode="after")
    def _possible(self) -> Bound:
        if self.at_least is not None and self.at_most is not None and self.at_least > self.at_most:
            raise ValueError(
                f"expected at_least <= at_most, got {self.at_least} and {self.at_most}"
            )
        return self

    def violation(self, value: float) -> float:
        """How far `value` is outside, in the same unit; zero or less is inside."""
        sides = [
            self.at_least - value if self.at_least is not None else None,
            value - self.at_most if self.at_most is not None else None,
        ]
        return max((side for side in sides if side is not None), default=0.0)


@dataclass(frozen=True, kw_only=True)
class Scene:
    """Everything an objective may use to measure an artifact.

    Attributes:
        baseline: Artifact of the unchanged model.
        reference_ms: Calibrated latency of the baseline in milliseconds.
        device: Where artifacts run.
        runtime: Name of the runtime.
        threads: Threads the runtime may use.
        effort: What timing a candidate may cost.
        batch: One batch of inputs, as the target will see it.
        throughput_batch: One batch of inputs of the size throughput is measured at.
        throughput_reference_ms: Calibrated latency of the baseline on that batch in milliseconds;
            0 where throughput is not measured.
        examples: Inputs of all examples the accuracy is computed on.
        batch_size: Examples in one run when accuracy is computed.
        score: Turns the outputs of all examples into the metric with its interval.
    """

    baseline: Artifact
    reference_ms: float
    device: Device
    runtime: str
    threads: int
    effort: Effort
    batch: Feeds
    throughput_batch: Feeds
    throughput_reference_ms: float
    examples: Feeds
    batch_size: int
    score: Callable[[Sequence[Array]], Measurement]


class Objective(Protocol):
    """One thing measured on an artifact.

    Attributes:
        name: Key of the objective in a study file.
        column: Column of the value in frames and JSON, with its unit, such as `"latency_ms"`.
        unit: Unit of the value, empty for a plain number.
        dear: Whether the value depends on trained weights; what does not is measured first.
        noisy: Whether measuring the same artifact twice gives different values.
        on_device: Whether the value belongs to the device; any other is the same everywhere.
        log: Whether values are positive and ratios between them matter, as of latency and size.
    """

    name: str
    column: str
    unit: str
    dear: bool
    noisy: bool
    on_device: bool
    log: bool

    def direction(self, metric: Direction) -> Direction:
        """Which values are better, given the direction of the task's metric."""
        ...

    def measure(self, artifact: Artifact, scene: Scene) -> Measurement:
        """Measures the artifact.

        Raises:
            MeasurementError: If the target cannot run the artifact.
        """
        ...
