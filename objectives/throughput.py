"""Throughput of the artifact on the target."""

from __future__ import annotations

from dataclasses import asdict

from parefront.errors import MeasurementError
from parefront.objectives.artifact import Artifact
from parefront.objectives.measurement import Direction, Measurement
from parefront.objectives.objective import Scene
from parefront.objectives.onnx_graph import fixed_batch


class Throughput:
    """Examples a second in batches of the target's throughput size; higher is better.

    As latency, it is a ratio to the baseline, timed in turn, times what is known of the baseline.
    """

    name = "throughput"
    column = "throughput_per_s"
    unit = "/s"
    dear = False
    noisy = True
    on_device = True
    log = True

    def direction(self, metric: Direction) -> Direction:  # noqa: ARG002
        """More examples a second are better."""
        return Direction.MAXIMIZE

    def measure(self, artifact: Artifact, scene: Scene) -> Measurement:
        """Times the artifact against the baseline on the throughput batch.

        Raises:
            MeasurementError: If the target cannot run one of the two, one takes another batch
                only, or the baseline was not calibrated on the batch.
        """
        size = min((len(array) for array in scene.throughput_batch.values()), default=0)
        if size == 0 or scene.throughput_reference_ms <= 0:
            raise MeasurementError(
                "throughput cannot be measured: the baseline was not calibrated on a batch for it"
            )
        for role, each in (("artifact", artifact), ("baseline", scene.baseline)):
            fixed = fixed_batch(each.path) if each.format == "onnx" else None
            if fixed not in (None, size):
                raise MeasurementError(
                    f"throughput is measured in batches of {size}, but the {role} only takes "
                    f"batches of {fixed}: the model could not be exported for any batch size; "
                    f"set the target's throughput_batch_size to {fixed}"
                )
        try:
            timing = scene.device.time(
                artifact.path,
                scene.baseline.path,
                scene.throughput_batch,
                runtime=scene.runtime,
                threads=scene.threads,
                effort=scene.effort,
            )
        except MeasurementError as error:
            raise MeasurementError(f"in batches of {size}: {error}") from error
        rate = size / (scene.throughput_reference_ms / 1000)
        return Measurement(
            value=rate / timing.ratio,
            low=rate / timing.ratio_high,
            high=rate / timing.ratio_low,
            unit=self.unit,
            samples=timing.runs,
            protocol=f"batches of {size}, block ratios to the baseline, {timing.clock} time",
            details=asdict(timing) | {"batch_size": size},
        )
