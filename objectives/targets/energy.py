"""Energy of runs, from the processor's own counters.

Linux shows the running average power limit counters of Intel and AMD processors as files that
count microjoules (https://docs.kernel.org/power/powercap/powercap.html).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

Clock = Callable[[], int]
"""Nanoseconds from any origin."""

IDLE_SECONDS = 0.5
RUN_SECONDS = 0.5
"""Runs are repeated for at least this long: a counter moves about once in a millisecond."""

_FOLDER = "sys/class/powercap"


@dataclass(frozen=True)
class Zone:
    """One counter.

    Attributes:
        energy: File with the microjoules so far.
        name: What it counts, as the kernel calls it.
        limit_uj: Microjoules after which it starts again from 0.
    """

    energy: Path
    name: str
    limit_uj: int

    def read(self) -> int:
        """Microjoules so far.

        Raises:
            OSError: If the file cannot be read.
            ValueError: If it holds no number.
        """
        return int(self.energy.read_text())


def zones(root: Path = Path("/")) -> tuple[Zone, ...]:
    """The counters that together cover processors and memory, each joule in one of them.

    These are the packages, and the memory beside them where it is counted. Cores and graphics are
    parts of a package; `psys` covers the packages again, and so does a second interface to the
    same counters (`intel-rapl-mmio`).

    Args:
        root: Root of the tree with `/sys`.

    Raises:
        OSError: If a file of a counter cannot be read.
        ValueError: If one holds no number.
    """
    found: dict[tuple[str, str], Zone] = {}
    folders = (root / _FOLDER).glob("intel-rapl*:*")
    for folder in sorted(folders, key=lambda path: ("mmio" in path.name, path.name)):
        name = (folder / "name").read_text().strip()
        parent = ""
        if folder.name.count(":") == 2:
            parent = (folder.with_name(folder.name.rpartition(":")[0]) / "name").read_text().strip()
        if name.startswith("package") or (name == "dram" and parent.startswith("package")):
            limit = int((folder / "max_energy_range_uj").read_text())
            found.setdefault((parent, name), Zone(folder / "energy_uj", name, limit))
    return tuple(found.values())


def energy_mj(
    run: Callable[[], object],
    *,
    root: Path = Path("/"),
    clock: Clock = time.perf_counter_ns,
    sleep: Callable[[float], None] = time.sleep,
) -> tuple[float | None, str]:
    """Energy of one run above that of an idle machine.

    The power of a sleeping process is measured first and subtracted from that of a loop of runs.
    What other processes do counts too, in both.

    Args:
        run: Runs the model once.
        root: Root of the tree with `/sys`.
        clock: Where time is read.
        sleep: Waits for a number of seconds.

    Returns:
        Millijoules, and where they were read; or `None`, and why there are none. The value is
        negative where the loop took less than the idle machine.

    Raises:
        MeasurementError: If `run` does.
    """
    try:
        counters = zones(root)
        if not counters:
            return None, f"this machine has no energy counter (/{_FOLDER}/intel-rapl:*)"
        idle_uj, idle_ns = _spent(counters, lambda: sleep(IDLE_SECONDS), clock, IDLE_SECONDS)[:2]
        busy_uj, busy_ns, runs = _spent(counters, run, clock, RUN_SECONDS)
    except OSError as error:
        return None, (
            f"{error.filename or 'the counter'} cannot be read: {error.strerror or error}; let "
            "this user read the energy_uj files, which most systems reserve to the administrator"
        )
    except ValueError as error:
        return None, f"an energy counter cannot be understood: {error}"
    names = ", ".join(zone.name for zone in counters)
    if busy_uj == 0:
        return None, f"the energy counter stood still while the model ran ({names})"
    above_uj = busy_uj - idle_uj / idle_ns * busy_ns
    return above_uj / runs / 1000, f"/{_FOLDER}: {names}"


def _spent(
    counters: Sequence[Zone], act: Callable[[], object], clock: Clock, seconds: float
) -> tuple[int, int, int]:
    """Acts until the time is over; returns microjoules, nanoseconds, and how often."""
    acts = 0
    before = [zone.read() for zone in counters]
    began = clock()
    while acts == 0 or clock() - began < seconds * 1e9:
        act()
        acts += 1
    after = [zone.read() for zone in counters]
    elapsed = clock() - began
    joined = sum(
        end - start if end >= start else end - start + zone.limit_uj
        for zone, start, end in zip(counters, before, after, strict=True)
    )
    return joined, elapsed, acts
