"""Accuracy of the artifact: the task's own metric on its outputs."""

from __future__ import annotations

from parefront.objectives.artifact import Artifact
from parefront.objectives.measurement import Direction, Measurement
from parefront.objectives.objective import Scene


class Accuracy:
    """The task's metric, whatever its name, computed from what the file answers.

    Its direction is the metric's: an error is better when it is lower.
    """

    name = "accuracy"
    column = "accuracy"
    unit = ""
    dear = True
    noisy = False
    on_device = False
    log = False

    def direction(self, metric: Direction) -> Direction:
        """The metric's own direction."""
        return metric

    def measure(self, artifact: Artifact, scene: Scene) -> Measurement:
        """Runs the file on every example and scores its outputs."""
        outputs = scene.device.run(
            artifact.path,
            scene.examples,
            runtime=scene.runtime,
            threads=scene.threads,
            batch_size=scene.batch_size,
        )
        return scene.score(outputs)
