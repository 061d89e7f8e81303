"""What takes long without a word shows that it goes on, such as the measurements of a device."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from threading import Event, Thread
from typing import Any

from parefront.objectives.targets.device import Device, Effort, Footprint, Timing
from parefront.objectives.targets.runtime import Array, Feeds
from parefront.search.launch import Stop

_EVERY = 1.0


@contextmanager
def attended(stop: Stop) -> Iterator[None]:
    """Shows that the launch goes on while something takes long that cannot be asked meanwhile."""
    over = Event()

    def attend() -> None:
        while not over.wait(_EVERY):
            stop.attend()

    thread = Thread(target=attend, daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


class AttendedDevice:
    """Measures on a device, and shows meanwhile that the launch goes on.

    A measurement may wait for those of other launches for as long as they take. It needs no other
    watch: each device ends by itself what hangs there.

    Args:
        device: The device.
        stop: Shown that the launch goes on.
    """

    def __init__(self, device: Device, stop: Stop) -> None:
        self._device = device
        self._stop = stop

    def fingerprint(self, runtime: str, threads: int) -> Mapping[str, Any]:
        """As the device's."""
        with attended(self._stop):
            return self._device.fingerprint(runtime, threads)

    def time(
        self,
        candidate: Path,
        baseline: Path,
        feeds: Feeds,
        *,
        runtime: str,
        threads: int,
        effort: Effort,
    ) -> Timing:
        """As the device's."""
        with attended(self._stop):
            return self._device.time(
                candidate, baseline, feeds, runtime=runtime, threads=threads, effort=effort
            )

    def reference_ms(
        self,
        artifact: Path,
        feeds: Feeds,
        *,
        runtime: str,
        threads: int,
        runs: int = 200,
        sessions: int = 5,
    ) -> float:
        """As the device's."""
        with attended(self._stop):
            return self._device.reference_ms(
                artifact, feeds, runtime=runtime, threads=threads, runs=runs, sessions=sessions
            )

    def footprint(
        self, artifact: Path, feeds: Feeds, *, runtime: str, threads: int, sessions: int = 5
    ) -> Footprint:
        """As the device's."""
        with attended(self._stop):
            return self._device.footprint(
                artifact, feeds, runtime=runtime, threads=threads, sessions=sessions
            )

    def run(
        self, artifact: Path, feeds: Feeds, *, runtime: str, threads: int, batch_size: int
    ) -> Sequence[Array]:
        """As the device's."""
        with attended(self._stop):
            return self._device.run(
                artifact, feeds, runtime=runtime, threads=threads, batch_size=batch_size
            )
