"""Memory an artifact needs on the target."""

from __future__ import annotations

from parefront.objectives.artifact import Artifact
from parefront.objectives.footprints import FOOTPRINTS, facts
from parefront.objectives.measurement import Direction, Measurement
from parefront.objectives.objective import Scene
from parefront.objectives.spread import of_processes

EXPECTED_SPREAD = 0.01
"""Between processes: a resident set counts pages, and which are touched varies a little."""


class Memory:
    """Most resident bytes that loading and running one batch adds to a process; lower is better.

    What the runtime's library itself takes is not counted: it is the same for every artifact.
    """

    name = "memory"
    column = "peak_memory_bytes"
    unit = "B"
    dear = False
    noisy = True
    on_device = True
    log = True

    def direction(self, metric: Direction) -> Direction:  # noqa: ARG002
        """Less memory is better."""
        return Direction.MINIMIZE

    def measure(self, artifact: Artifact, scene: Scene) -> Measurement:
        """Loads and runs the artifact in fresh processes and takes the median of their peaks."""
        found = FOOTPRINTS.read(artifact, scene, self.name)
        return of_processes(
            found.peak_memory_bytes,
            unit=self.unit,
            expected=EXPECTED_SPREAD,
            protocol="peak resident memory added, fresh processes",
            details=facts(found),
        )
