"""Energy above idle from counters in a made-up tree, with time that is made up too."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import pytest

from parefront.errors import MeasurementError
from parefront.objectives.targets.energy import IDLE_SECONDS, RUN_SECONDS, energy_mj, zones

LIMIT = 262_143_328_850


def zone(root: Path, folder: str, name: str, energy_uj: int = 0, limit: int = LIMIT) -> Path:
    path = root / "sys/class/powercap" / folder
    path.mkdir(parents=True)
    (path / "name").write_text(f"{name}\n")
    (path / "energy_uj").write_text(f"{energy_uj}\n")
    (path / "max_energy_range_uj").write_text(f"{limit}\n")
    return path / "energy_uj"


@dataclass
class Machine:
    """Counters that move as time does.

    Attributes:
        counters: Files, with watts when idle, joules of one run and where they wrap.
        run_seconds: How long a run takes.
    """

    counters: dict[Path, tuple[float, float, int]]
    run_seconds: float
    now_ns: int = 0
    naps: list[float] = field(default_factory=list)
    runs: int = 0

    def clock(self) -> int:
        return self.now_ns

    def sleep(self, seconds: float) -> None:
        self.naps.append(seconds)
        self._pass(seconds, 0)

    def run(self) -> None:
        self.runs += 1
        self._pass(self.run_seconds, 1)

    def _pass(self, seconds: float, runs: int) -> None:
        self.now_ns += round(seconds * 1e9)
        for path, (watts, joules, limit) in self.counters.items():
            used = round((watts * seconds + joules * runs) * 1e6)
            path.write_text(f"{(int(path.read_text()) + used) % limit}\n")

    def energy(self, root: Path) -> tuple[float | None, str]:
        return energy_mj(self.run, root=root, clock=self.clock, sleep=self.sleep)


def test_energy_of_a_run_is_what_it_takes_above_idle(tmp_path: Path) -> None:
    counter = zone(tmp_path, "intel-rapl:0", "package-0", 5_000_000)
    machine = Machine({counter: (12.0, 0.25, LIMIT)}, run_seconds=0.02)
    energy, note = machine.energy(tmp_path)
    assert energy == pytest.approx(250)
    assert note == "/sys/class/powercap: package-0"
    assert machine.naps == [IDLE_SECONDS]
    assert machine.runs == pytest.approx(RUN_SECONDS / 0.02, abs=1)


def test_a_slow_model_runs_once(tmp_path: Path) -> None:
    counter = zone(tmp_path, "intel-rapl:0", "package-0")
    machine = Machine({counter: (12.0, 30.0, LIMIT)}, run_seconds=4.0)
    assert machine.energy(tmp_path)[0] == pytest.approx(30_000)
    assert machine.runs == 1


@pytest.mark.parametrize("before_end", [1_000_000, 5_900_000, 8_000_000])
def test_a_counter_may_start_again_while_idle_or_busy(before_end: int, tmp_path: Path) -> None:
    limit = 100_000_000
    counter = zone(tmp_path, "intel-rapl:0", "package-0", limit - before_end, limit)
    machine = Machine({counter: (10.0, 0.5, limit)}, run_seconds=0.1)
    assert machine.energy(tmp_path)[0] == pytest.approx(500)
    assert int(counter.read_text()) < limit - before_end  # it did


def test_each_joule_counts_once(tmp_path: Path) -> None:
    files = {
        (folder, name): zone(tmp_path, folder, name)
        for folder, name in [
            ("intel-rapl-mmio:0", "package-0"),
            ("intel-rapl:0", "package-0"),
            ("intel-rapl:0:0", "core"),
            ("intel-rapl:0:1", "uncore"),
            ("intel-rapl:0:2", "dram"),
            ("intel-rapl:1", "package-1"),
            ("intel-rapl:1:0", "dram"),
            ("intel-rapl:2", "psys"),
        ]
    }
    (tmp_path / "sys/class/powercap/intel-rapl").mkdir()  # the driver itself is no counter
    taken = {each.energy for each in zones(tmp_path)}
    assert taken == {
        path
        for (folder, _), path in files.items()
        if folder in {"intel-rapl:0", "intel-rapl:0:2", "intel-rapl:1", "intel-rapl:1:0"}
    }
    machine = Machine(dict.fromkeys(files.values(), (3.0, 0.1, LIMIT)), run_seconds=0.05)
    assert machine.energy(tmp_path)[0] == pytest.approx(400)


def test_the_second_interface_serves_where_the_first_is_missing(tmp_path: Path) -> None:
    counter = zone(tmp_path, "intel-rapl-mmio:0", "package-0")
    assert [each.energy for each in zones(tmp_path)] == [counter]


def test_noise_larger_than_the_run_is_negative(tmp_path: Path) -> None:
    counter = zone(tmp_path, "intel-rapl:0", "package-0")
    machine = Machine({counter: (10.0, -0.05, LIMIT)}, run_seconds=0.1)
    assert machine.energy(tmp_path)[0] == pytest.approx(-50)


def test_a_machine_without_counters_says_so(tmp_path: Path) -> None:
    machine = Machine({}, run_seconds=0.1)
    assert machine.energy(tmp_path) == (
        None,
        "this machine has no energy counter (/sys/class/powercap/intel-rapl:*)",
    )
    zone(tmp_path, "intel-rapl:0", "psys")
    assert machine.energy(tmp_path)[0] is None
    assert machine.runs == 0


def test_a_counter_that_cannot_be_read_says_so(tmp_path: Path) -> None:
    counter = zone(tmp_path, "intel-rapl:0", "package-0")
    counter.unlink()
    counter.mkdir()  # as unreadable for the administrator, too, who may be running this
    energy, note = Machine({}, run_seconds=0.1).energy(tmp_path)
    assert energy is None
    assert note.startswith(f"{counter} cannot be read: Is a directory; let this user read")


def test_a_counter_with_something_else_in_it_says_so(tmp_path: Path) -> None:
    zone(tmp_path, "intel-rapl:0", "package-0").write_text("<unsupported>\n")
    energy, note = Machine({}, run_seconds=0.1).energy(tmp_path)
    assert energy is None
    assert note.startswith("an energy counter cannot be understood: ")


def test_a_counter_that_stands_still_says_so(tmp_path: Path) -> None:
    zone(tmp_path, "intel-rapl:0", "package-0", 77)
    assert Machine({}, run_seconds=0.1).energy(tmp_path) == (
        None,
        "the energy counter stood still while the model ran (package-0)",
    )


def test_a_model_that_fails_is_no_missing_counter(tmp_path: Path) -> None:
    zone(tmp_path, "intel-rapl:0", "package-0")

    def fail() -> None:
        raise MeasurementError("could not run it")

    with pytest.raises(MeasurementError, match="could not run it"):
        energy_mj(
            fail,
            root=tmp_path,
            sleep=lambda seconds: None,
            clock=iter(range(0, 10**12, 10**9)).__next__,
        )
