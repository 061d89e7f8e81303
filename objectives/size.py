"""Size of the artifact: what a user downloads and stores."""

from __future__ import annotations

from parefront.objectives.artifact import Artifact
from parefront.objectives.measurement import Direction, Measurement
from parefront.objectives.objective import Scene


class Size:
    """Bytes of the file; lower is better."""

    name = "size"
    column = "size_bytes"
    unit = "B"
    dear = False
    noisy = False
    on_device = False
    log = True

    def direction(self, metric: Direction) -> Direction:  # noqa: ARG002
        """Smaller files are better."""
        return Direction.MINIMIZE

    def measure(self, artifact: Artifact, scene: Scene) -> Measurement:  # noqa: ARG002
        """The exact length of the file."""
        return Measurement.exact(artifact.size_bytes, self.unit, "file length")
