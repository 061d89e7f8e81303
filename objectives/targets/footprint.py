"""What an artifact takes besides time: load, memory and energy, seen from inside a process.

The process should have done little else: it has imported the runtime's library and holds one batch
of inputs.
"""

from __future__ import annotations

import ctypes
import gc
import re
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from parefront.errors import MeasurementError
from parefront.objectives.targets.device import Footprint
from parefront.objectives.targets.energy import energy_mj
from parefront.objectives.targets.runtime import Feeds, Session

Clock = Callable[[], int]
"""Nanoseconds from any origin."""

_PAGE = 4096
_PIECE = 1 << 20


@dataclass(frozen=True)
class Look:
    """What one process saw; the attributes are those of `Footprint`, one value each.

    Attributes:
        load_ms: Milliseconds of the load.
        peak_memory_bytes: Most memory that loading and one run added.
        energy_mj: Millijoules of one run, `None` where there is no counter.
        energy_note: Where the energy was read, or why it was not.
    """

    load_ms: float
    peak_memory_bytes: int
    energy_mj: float | None
    energy_note: str


def look(
    load: Callable[[], Session],
    path: Path,
    feeds: Feeds,
    *,
    root: Path = Path("/"),
    clock: Clock = time.perf_counter_ns,
) -> Look:
    """Loads an artifact and runs one batch, watching this process.

    Args:
        load: Loads the artifact.
        path: The artifact, to be read into the system's cache beforehand.
        feeds: One batch of inputs.
        root: Root of the tree with `/sys` and `/proc`.
        clock: Where time is read.

    Raises:
        MeasurementError: If the artifact cannot be read, loaded or run.
    """
    _read_once(path)
    _give_back()
    memory = PeakMemory(root)
    began = clock()
    session = load()
    load_ms = (clock() - began) / 1e6
    session.run(feeds)
    peak = memory.added()
    energy, note = energy_mj(lambda: session.run(feeds), root=root, clock=clock)
    return Look(load_ms, peak, energy, note)


def gathered(looks: Sequence[Look]) -> Footprint:
    """The looks of several processes as one footprint.

    Energy is left out where one of them could not measure it.
    """
    energies = [each.energy_mj for each in looks if each.energy_mj is not None]
    failed = [each.energy_note for each in looks if each.energy_mj is None]
    return Footprint(
        load_ms=tuple(each.load_ms for each in looks),
        peak_memory_bytes=tuple(each.peak_memory_bytes for each in looks),
        energy_mj=() if failed else tuple(energies),
        energy_note=[*failed, *(each.energy_note for each in looks)][0],
    )


class PeakMemory:
    """The most memory this process has added since this object was made (resident set).

    The mark that the kernel keeps of the peak is reset where that is permitted. Where it is not,
    the peak is exact if the process goes beyond its earlier one; if it does not, what is resident
    in the end stands for it. The peak of `getrusage` is of no use: it survives the start of
    another program in the process, so it begins with the peak of the process that started this
    one.
    """

    def __init__(self, root: Path = Path("/")) -> None:
        """Notes the memory now.

        Args:
            root: Root of the tree with `/proc`.

        Raises:
            MeasurementError: If the system does not tell.
        """
        self._status = root / "proc/self/status"
        with suppress(OSError):
            (root / "proc/self/clear_refs").write_text("5")
        self._resident, self._peak = self._read()

    def added(self) -> int:
        """Bytes, at least one page.

        Raises:
            MeasurementError: If the system does not tell.
        """
        resident, peak = self._read()
        top = peak if peak > self._peak else resident
        return max(top - self._resident, _PAGE)

    def _read(self) -> tuple[int, int]:
        """Resident bytes now, and at the peak."""
        try:
            text = self._status.read_text()
        except OSError as error:
            raise MeasurementError(
                f"the memory of the process cannot be read: {error.strerror or error}"
            ) from error
        fields = dict(re.findall(r"^(VmRSS|VmHWM):\s+(\d+) kB$", text, re.MULTILINE))
        if len(fields) != 2:
            raise MeasurementError(
                "the memory of the process cannot be read: expected VmRSS and VmHWM in "
                "/proc/self/status"
            )
        return int(fields["VmRSS"]) * 1024, int(fields["VmHWM"]) * 1024


def _read_once(path: Path) -> None:
    """Reads a file into the system's cache, so that every load finds it there."""
    piece = bytearray(_PIECE)
    try:
        with path.open("rb", buffering=0) as file:
            while file.readinto(piece):
                pass
    except OSError as error:
        raise MeasurementError(f"cannot read {path.name}: {error.strerror or error}") from error


def _give_back() -> None:
    """Returns free memory to the system: what is loaded into it would not show."""
    gc.collect()
    with suppress(AttributeError):  # only the GNU library has it
        ctypes.CDLL(None).malloc_trim(0)
