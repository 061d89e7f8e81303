"""Time to load an artifact on the target."""

from __future__ import annotations

from parefront.objectives.artifact import Artifact
from parefront.objectives.footprints import FOOTPRINTS, facts
from parefront.objectives.measurement import Direction, Measurement
from parefront.objectives.objective import Scene
from parefront.objectives.spread import of_processes

EXPECTED_SPREAD = 0.05
"""Between processes: a load runs once, in wall time, on a core whose speed drifts."""


class LoadTime:
    """Milliseconds from the file to a session that is ready to run; lower is better.

    The file is in the system's cache and the runtime's library already imported: what is timed
    is reading, checking, optimising and unpacking this artifact.
    """

    name = "load_time"
    column = "load_ms"
    unit = "ms"
    dear = False
    noisy = True
    on_device = True
    log = True

    def direction(self, metric: Direction) -> Direction:  # noqa: ARG002
        """A shorter load is better."""
        return Direction.MINIMIZE

    def measure(self, artifact: Artifact, scene: Scene) -> Measurement:
        """Loads the artifact in fresh processes and takes the median of their times."""
        found = FOOTPRINTS.read(artifact, scene, self.name)
        return of_processes(
            found.load_ms,
            unit=self.unit,
            expected=EXPECTED_SPREAD,
            protocol="load from the file cache, wall time, fresh processes",
            details=facts(found),
        )
