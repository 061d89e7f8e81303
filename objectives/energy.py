"""Energy of a run on the target."""

from __future__ import annotations

from parefront.errors import MeasurementError
from parefront.objectives.artifact import Artifact
from parefront.objectives.footprints import FOOTPRINTS, facts
from parefront.objectives.measurement import Direction, Measurement
from parefront.objectives.objective import Scene
from parefront.objectives.spread import of_processes

EXPECTED_SPREAD = 0.05
"""Between processes: the counter hears all cores, and idle power is subtracted."""


class Energy:
    """Millijoules of one run of one batch above idle; lower is better.

    It is read from the counters of the processor, which few virtual machines have and most
    systems show to the administrator only.
    """

    name = "energy"
    column = "energy_mj"
    unit = "mJ"
    dear = False
    noisy = True
    on_device = True
    log = True

    def direction(self, metric: Direction) -> Direction:  # noqa: ARG002
        """Less energy is better."""
        return Direction.MINIMIZE

    def measure(self, artifact: Artifact, scene: Scene) -> Measurement:
        """Runs the artifact in fresh processes and takes the median of their energies.

        Raises:
            MeasurementError: If the target cannot run the artifact, has no counter that can be
                read, or the runs take no more than an idle machine.
        """
        found = FOOTPRINTS.read(artifact, scene, self.name)
        if not found.energy_mj:
            raise MeasurementError(f"energy cannot be measured: {found.energy_note}")
        hidden = [value for value in found.energy_mj if value <= 0]
        if hidden:
            raise MeasurementError(
                f"energy cannot be told from idle power: in {len(hidden)} of "
                f"{len(found.energy_mj)} processes the runs took no more; measure on a machine "
                "that does nothing else"
            )
        return of_processes(
            found.energy_mj,
            unit=self.unit,
            expected=EXPECTED_SPREAD,
            protocol="energy above idle, fresh processes",
            details=facts(found),
        )
