"""The timing protocol on machines whose truth is known by construction."""

from __future__ import annotations

import math
import os
import time
from collections.abc import Callable, Sequence
from itertools import groupby
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from parefront.errors import MeasurementError
from parefront.objectives.targets.runtime import Array, Feeds
from parefront.objectives.targets.timing import Clocks, others_ns, time_alone, time_pair

US, MS, S = 10**3, 10**6, 10**9


class Machine:
    """A computer with clocks of its own.

    Attributes:
        slowness: How many times longer everything takes at a wall time.
        stolen: Wall nanoseconds that other processes take from a run.
    """

    def __init__(
        self,
        slowness: Callable[[float], float] = lambda _: 1.0,
        stolen: Callable[[], int] = lambda: 0,
    ) -> None:
        self.wall = 7 * S
        self.cpu = 0
        self.log: list[str] = []
        self._slowness = slowness
        self._stolen = stolen

    def clocks(self) -> Clocks:
        return Clocks(cpu=lambda: self.cpu, wall=lambda: self.wall)

    def work(self, name: str, cost: float) -> None:
        spent = round(cost * self._slowness(self.wall))
        self.cpu += spent
        self.wall += spent + self._stolen()
        self.log.append(name)


class Model:
    """A session that takes a known time.

    Attributes:
        cost: Nanoseconds of a run, given how many runs there were and whether the last run on
            the machine was of another model.
    """

    batch: int | None = None

    def __init__(
        self, machine: Machine, name: str, cost: float | Callable[[int, bool], float]
    ) -> None:
        self._machine = machine
        self._name = name
        self._cost = cost
        self.count = 0
        self.seen: list[Feeds] = []

    def run(self, feeds: Feeds) -> Sequence[Array]:
        cold = self._machine.log[-1:] != [self._name]
        cost = self._cost(self.count, cold) if callable(self._cost) else self._cost
        self._machine.work(self._name, cost)
        self.count += 1
        self.seen.append(feeds)
        return []


def models(machine: Machine, candidate: float, baseline: float) -> tuple[Model, Model]:
    return Model(machine, "candidate", candidate), Model(machine, "baseline", baseline)


def test_a_steady_machine_gives_the_exact_ratio() -> None:
    machine = Machine()
    candidate, baseline = models(machine, 3 * MS, 5 * MS)
    timing = time_pair(candidate, baseline, {}, runs=200, threads=1, clocks=machine.clocks())
    assert timing.ratio == pytest.approx(0.6, rel=1e-12)
    assert timing.candidate_ms == {"p50": 3.0, "p90": 3.0, "p99": 3.0}
    assert timing.baseline_ms == {"p50": 5.0, "p90": 5.0, "p99": 5.0}
    assert (timing.blocks, timing.runs, timing.clock) == (20, 200, "cpu")


def test_the_ratio_holds_on_a_drifting_machine_where_the_times_do_not() -> None:
    # Twice as slow every three seconds: the session ends several times slower than it began.
    machine = Machine(slowness=lambda now: 2 ** ((now - 7 * S) / (3 * S)))
    candidate, baseline = models(machine, 4 * MS, 10 * MS)
    timing = time_pair(candidate, baseline, {}, runs=200, threads=1, clocks=machine.clocks())
    assert timing.ratio == pytest.approx(0.4, rel=0.03)
    assert timing.candidate_ms["p50"] > 1.4 * 4


def test_the_ratio_holds_when_the_speed_swings() -> None:
    machine = Machine(slowness=lambda now: 1.5 + math.sin(2 * math.pi * now / (0.9 * S)) * 0.5)
    candidate, baseline = models(machine, 2 * MS, 2 * MS)
    timing = time_pair(candidate, baseline, {}, runs=400, threads=1, clocks=machine.clocks())
    assert timing.ratio == pytest.approx(1.0, rel=0.03)
    assert timing.candidate_ms["p99"] > 1.2 * timing.candidate_ms["p50"]


def test_cpu_time_does_not_see_other_processes_and_wall_time_does() -> None:
    def session(threads: int) -> tuple[float, float]:
        rng = np.random.default_rng(0)
        machine = Machine(stolen=lambda: int(rng.random() < 0.3) * 3 * MS)
        timing = time_pair(
            *models(machine, 1 * MS, 10 * MS), {}, runs=200, threads=threads,
            clocks=machine.clocks(),
        )  # fmt: skip
        return timing.ratio, timing.candidate_ms["p99"]

    ratio, p99 = session(threads=1)
    assert ratio == pytest.approx(0.1, rel=1e-12)
    assert p99 == pytest.approx(4.0)
    ratio, _ = session(threads=2)
    assert ratio > 0.13


def test_one_disturbed_block_does_not_move_the_ratio() -> None:
    machine = Machine()

    def cost(count: int, cold: bool) -> float:
        return 50 * MS if 60 <= count < 70 else MS

    candidate = Model(machine, "candidate", cost)
    baseline = Model(machine, "baseline", MS)
    timing = time_pair(candidate, baseline, {}, runs=200, threads=1, clocks=machine.clocks())
    assert timing.ratio == pytest.approx(1.0)
    assert timing.candidate_ms["p99"] == 50.0


def test_slow_first_runs_and_cold_caches_are_left_out() -> None:
    machine = Machine()

    def cost(count: int, cold: bool) -> float:
        return (5 if count < 15 else 3 if cold else 1) * MS

    candidate = Model(machine, "candidate", cost)
    baseline = Model(machine, "baseline", MS)
    timing = time_pair(candidate, baseline, {}, runs=100, threads=1, clocks=machine.clocks())
    assert timing.ratio == pytest.approx(1.0, rel=1e-12)
    assert timing.candidate_ms["p99"] == 1.0


@given(
    candidate=st.integers(5 * US, 20 * MS),
    baseline=st.integers(5 * US, 20 * MS),
    runs=st.integers(1, 60),
    slowness=st.floats(0.5, 2),
)
@settings(max_examples=40, deadline=None)
def test_the_ratio_is_that_of_the_costs(
    candidate: int, baseline: int, runs: int, slowness: float
) -> None:
    machine = Machine(slowness=lambda _: slowness)
    timing = time_pair(
        *models(machine, candidate, baseline), {}, runs=runs, threads=1, clocks=machine.clocks()
    )
    assert timing.ratio == pytest.approx(candidate / baseline, rel=1e-3)  # whole nanoseconds
    assert timing.blocks >= 5
    assert timing.runs >= runs


@pytest.mark.parametrize("cost", [US, 10 * US, 99 * US])
def test_blocks_of_fast_models_last_a_millisecond(cost: int) -> None:
    machine = Machine()
    timing = time_pair(*models(machine, cost, cost), {}, runs=200, threads=1,
                       clocks=machine.clocks())  # fmt: skip
    assert timing.runs * cost >= timing.blocks * MS
    assert timing.blocks == 20


@pytest.mark.parametrize("cost", [60 * MS, 400 * MS, 2 * S])
def test_slow_models_take_fewer_runs(cost: int) -> None:
    machine = Machine()
    start = machine.wall
    timing = time_pair(*models(machine, cost, 1 * MS), {}, runs=200, threads=1,
                       clocks=machine.clocks())  # fmt: skip
    assert timing.blocks == 20
    assert 20 <= timing.runs < 200
    assert machine.wall - start < 20 * max(0.5 * S, cost) + 3 * S
    assert timing.ratio == pytest.approx(cost / MS)


def test_each_model_goes_first_in_half_of_the_pairs_in_an_order_of_the_seed() -> None:
    def order(seed: int) -> list[str]:
        machine = Machine()
        time_pair(*models(machine, MS, MS), {}, runs=200, threads=1, seed=seed,
                  clocks=machine.clocks())  # fmt: skip
        timed = machine.log[60:]  # after the warm-up
        blocks = [
            name for name, run in groupby(timed) for _ in range(len(list(run)) // 11)
        ]  # 10 runs and one to fill the caches
        assert len(blocks) == 40
        return blocks[::2]

    leads = order(0)
    assert leads.count("candidate") == leads.count("baseline") == 10
    assert leads not in (["candidate", "baseline"] * 10, ["baseline", "candidate"] * 10)
    assert order(0) == leads
    assert order(1) != leads


def test_each_model_gets_its_own_inputs() -> None:
    machine = Machine()
    candidate, baseline = models(machine, MS, MS)
    mine: Feeds = {"a": np.zeros(1)}
    other: Feeds = {"b": np.zeros(2)}
    time_pair(candidate, baseline, mine, other, runs=5, threads=1, clocks=machine.clocks())
    assert all(feeds is mine for feeds in candidate.seen)
    assert all(feeds is other for feeds in baseline.seen)


def test_alone_a_model_is_timed_by_the_clock_of_its_threads() -> None:
    def alone(threads: int) -> float:
        machine = Machine(stolen=lambda: MS)
        model = Model(machine, "baseline", 2 * MS)
        return time_alone(model, {}, runs=100, threads=threads, clocks=machine.clocks())

    assert alone(threads=1) == pytest.approx(2.0)
    assert alone(threads=2) == pytest.approx(3.0)


def test_a_clock_that_stands_still_is_an_error() -> None:
    machine = Machine()
    clocks = Clocks(cpu=lambda: 5, wall=machine.clocks().wall)
    with pytest.raises(MeasurementError, match="the clock stood still for 10 runs"):
        time_pair(*models(machine, MS, MS), {}, runs=50, threads=1, clocks=clocks)


def test_the_real_clocks_are_the_default() -> None:
    class Sums:
        batch: int | None = None

        def run(self, feeds: Feeds) -> Sequence[Array]:
            return [np.cumsum(feeds["x"])]

    timing = time_pair(Sums(), Sums(), {"x": np.ones(10_000)}, runs=50, threads=1)
    assert 0.2 < timing.ratio < 5
    assert 0 < timing.candidate_ms["p50"] <= timing.candidate_ms["p90"]
    assert timing.candidate_ms["p90"] <= timing.candidate_ms["p99"]


def test_what_other_work_takes_is_seen() -> None:
    def stolen(threads: int, others: int) -> float:
        machine = Machine(stolen=lambda: MS)
        return time_pair(
            *models(machine, 3 * MS, 3 * MS), {}, runs=200, threads=threads,
            clocks=machine.clocks(), others_ns=lambda: others * machine.wall // 100,
        ).stolen  # fmt: skip

    assert stolen(threads=1, others=0) == pytest.approx(0.25)  # of CPU time there is no doubt
    assert stolen(threads=2, others=0) == 0.0
    assert stolen(threads=2, others=60) == pytest.approx(0.3, rel=1e-3)
    assert stolen(threads=2, others=-5) == 0.0


def test_a_model_is_warm_when_it_is_steady() -> None:
    def runs_before(cost: Callable[[int, bool], float]) -> int:
        machine = Machine()
        model = Model(machine, "baseline", cost)
        time_alone(model, {}, runs=50, threads=1, clocks=machine.clocks())
        return len(machine.log) - 5 * 11

    assert runs_before(lambda count, cold: MS) == 30
    assert runs_before(lambda count, cold: MS * max(1, 7 - count // 10)) == 60 + 30
    # One that never settles ends after a second.
    assert 100 < runs_before(lambda count, cold: MS * 1.1 ** (count // 10 % 7)) < 1000


STAT = """cpu  100 0 100 800 0 0 0 0 0 0
cpu0 10 1 20 300 7 2 3 4 0 0
cpu1 90 0 80 500 0 0 0 0 0 0
cpu10 7 7 7 7 7 7 7 7 7 7
"""


def test_the_time_of_others_is_what_the_cores_did_besides(tmp_path: Path) -> None:
    (tmp_path / "proc").mkdir()
    (tmp_path / "proc/stat").write_text(STAT)
    tick = S // os.sysconf("SC_CLK_TCK")
    mine = time.process_time_ns()
    assert others_ns([0], root=tmp_path) == pytest.approx(40 * tick - mine, abs=S)
    assert others_ns([0, 1], root=tmp_path) - others_ns([0], root=tmp_path) == pytest.approx(
        170 * tick, abs=S / 10
    )
    assert others_ns([0], root=tmp_path / "none") == 0
    (tmp_path / "proc/stat").write_text("cpu0 garbage")
    assert others_ns([0], root=tmp_path) == 0
    assert others_ns([0]) > -time.process_time_ns()
