"""Latency of the artifact on the target."""

from __future__ import annotations

from dataclasses import asdict

from parefront.objectives.artifact import Artifact
from parefront.objectives.measurement import Direction, Measurement
from parefront.objectives.objective import Scene


class Latency:
    """Milliseconds for one batch; lower is better.

    The value is the ratio to the baseline, timed in turn in one process, times the calibrated
    latency of the baseline: the machine's drift cancels in the ratio.
    """

    name = "latency"
    column = "latency_ms"
    unit = "ms"
    dear = False
    noisy = True
    on_device = True
    log = True

    def direction(self, metric: Direction) -> Direction:  # noqa: ARG002
        """Faster is better."""
        return Direction.MINIMIZE

    def measure(self, artifact: Artifact, scene: Scene) -> Measurement:
        """Times the artifact against the baseline on the scene's device."""
        timing = scene.device.time(
            artifact.path,
            scene.baseline.path,
            scene.batch,
            runtime=scene.runtime,
            threads=scene.threads,
            effort=scene.effort,
        )
        return Measurement(
            value=timing.ratio * scene.reference_ms,
            low=timing.ratio_low * scene.reference_ms,
            high=timing.ratio_high * scene.reference_ms,
            unit=self.unit,
            samples=timing.runs,
            protocol=f"block ratios to the baseline, {timing.clock} time",
            details=asdict(timing),
        )
