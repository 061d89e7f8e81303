"""One look at an artifact's footprint for the objectives that read different parts of it."""

from __future__ import annotations

import threading
import weakref
from dataclasses import asdict
from typing import Any

from parefront.objectives.artifact import Artifact
from parefront.objectives.objective import Scene
from parefront.objectives.targets.device import Footprint


class Footprints:
    """Remembers the last look, so that objectives measured one after another share it.

    A look costs several fresh processes. Each reader gets a look once: the second time it reads
    the same artifact, a new look is made, so that measuring again is measuring again.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._scene: weakref.ref[Scene] | None = None
        self._sha256 = ""
        self._footprint: Footprint | None = None
        self._readers: set[str] = set()

    def read(self, artifact: Artifact, scene: Scene, reader: str) -> Footprint:
        """The footprint of an artifact.

        Args:
            artifact: The artifact.
            scene: Where it is looked at.
            reader: Name of the objective that asks.

        Raises:
            MeasurementError: If the target cannot run the artifact.
        """
        with self._lock:
            same = self._scene is not None and self._scene() is scene
            if same and self._sha256 == artifact.sha256 and reader not in self._readers:
                found = self._footprint
                self._readers.add(reader)
                if found is not None:
                    return found
        found = scene.device.footprint(
            artifact.path, scene.batch, runtime=scene.runtime, threads=scene.threads
        )
        with self._lock:
            self._scene = weakref.ref(scene)
            self._sha256 = artifact.sha256
            self._footprint = found
            self._readers = {reader}
        return found


FOOTPRINTS = Footprints()
"""The looks of this process."""


def facts(footprint: Footprint) -> dict[str, Any]:
    """A footprint as JSON-able facts."""
    entries = asdict(footprint).items()
    return {name: list(each) if isinstance(each, tuple) else each for name, each in entries}
