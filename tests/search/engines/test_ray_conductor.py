"""What becomes of trials that are out, on a real ledger, without Ray."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import pytest

from parefront.errors import CertificateError, EngineError, StorageError, TrialError
from parefront.search.budget import Budget
from parefront.search.desk import Desk, Started
from parefront.search.entry import Entry
from parefront.search.launch import Silent, Stop
from parefront.search.locks import LockFile
from parefront.search.pipeline import Checks, NoChecks
from parefront.search.records import Rung, Status
from tests.search.engines.studies import Told
from tests.search.fakes import outcome
from tests.search.trials import ledger, proposer

pytest.importorskip("ray")

from parefront.search.engines.ray.conductor import Conductor
from parefront.search.engines.ray.talk import Kind, Report

KILLED = (
    "The actor died unexpectedly before finishing this task.\nWorker exit type: SYSTEM_ERROR "
    "Worker exit detail: Worker unexpectedly exits with a connection error code 2. End of file. "
    "Some common causes include: (1) the process was killed by the OOM killer"
)
NODE = "The actor died because its node has died. Node Id: abc"
AWAY = (
    "The actor 95c13ccde14354620960db9f01000000 is unavailable: The actor is temporarily "
    "unavailable: RpcError: RPC error: Socket closed rpc_code: 14. The task may or may not have "
    "been executed on the actor."
)
BEGAN = Report(kind=Kind.BEGAN)


def desk(folder: Path, trials: int, checks: Callable[[int], Checks] | None = None) -> Desk:
    return Desk(
        ledger=ledger(folder),
        proposer=proposer(),
        checks=checks or (lambda trial: NoChecks()),
        budget=Budget(trials, None),
        lock=LockFile(folder / "lock"),
        stop=Stop(),
        progress=Silent(),
    )


def conductor(of: Desk, workers: int = 2, **changes: object) -> Conductor:
    parts: dict[str, object] = {"workers": lambda: workers, "lost": lambda: None, "hang": 600.0}
    return Conductor(of, **(parts | changes))  # type: ignore[arg-type]


def over(found: Started) -> Report:
    return Report(kind=Kind.OUTCOME, outcome=outcome(found.candidate))


def taken(led: Conductor, key: str) -> Started:
    found = led.take(key)
    assert isinstance(found, Started)
    return found


def entries(led: Conductor) -> list[Entry]:
    return led.desk.ledger.entries()


def test_no_more_are_out_than_there_are_workers(tmp_path: Path) -> None:
    led = conductor(desk(tmp_path, 4))
    first = taken(led, "a")
    taken(led, "b")
    assert led.take("c") is None
    led.hear("a", over(first))
    taken(led, "c")


def test_the_end_of_a_budget_is_not_the_end_while_trials_are_out(tmp_path: Path) -> None:
    led = conductor(desk(tmp_path, 2), workers=3)
    first, second = taken(led, "a"), taken(led, "b")
    assert led.take("c") is None
    led.hear("a", BEGAN)
    led.died("a", KILLED)  # which gives its place in the budget back
    again = taken(led, "c")
    assert again.candidate == first.candidate
    assert again.deaths == 1
    led.hear("b", over(second))
    led.hear("c", over(again))
    assert led.take("d") == "2 trials are done"
    assert [e.status for e in entries(led)] == [
        Status.INTERRUPTED, Status.COMPLETE, Status.COMPLETE,
    ]  # fmt: skip
    assert led.error is None


def test_a_second_death_is_the_last(tmp_path: Path) -> None:
    led = conductor(desk(tmp_path, 2), workers=1)
    led.hear("baseline", over(taken(led, "baseline")))
    for key in ("a", "b"):
        taken(led, key)
        led.hear(key, BEGAN)
        led.died(key, KILLED)
    assert led.take("c") == "2 trials are done"
    last = entries(led)[-1].outcome
    assert last is not None
    assert last.reason == (
        "quarantined: its process died 2 times while it ran, the last time Worker unexpectedly "
        "exits with a connection error code 2. End of file"
    )


def test_a_baseline_that_fails_ends_the_launch(tmp_path: Path) -> None:
    led = conductor(desk(tmp_path, 2), workers=1)
    for key in ("a", "b"):
        assert not led.over
        taken(led, key)
        led.hear(key, BEGAN)
        led.died(key, KILLED)
    assert isinstance(led.error, TrialError)
    assert "quarantined" in str(led.error)
    assert led.take("c") == Desk.was_stopped


@pytest.mark.parametrize("how", [NODE, AWAY])
def test_a_node_that_leaves_is_not_the_candidates_doing_unless_it_is_each_time(
    tmp_path: Path, how: str
) -> None:
    led = conductor(desk(tmp_path, 1), workers=1)
    for key in ("a", "b"):
        taken(led, key)
        led.hear(key, BEGAN)
        led.died(key, how)
    third = taken(led, "c")
    assert third.deaths == 0
    led.hear("c", BEGAN)
    led.died("c", how)
    assert taken(led, "d").deaths == 1


def test_workers_that_die_before_they_begin_end_the_launch(tmp_path: Path) -> None:
    led = conductor(desk(tmp_path, 9), workers=1)
    for key in ("a", "b", "c"):
        assert not led.over
        taken(led, key)
        led.died(key, KILLED)
    assert isinstance(led.error, EngineError)
    assert "3 workers failed one after another before they began" in str(led.error)
    assert "its worker died: Worker unexpectedly exits" in str(led.error)
    assert {e.record.deaths for e in entries(led)} == {0}
    assert led.take("d") == Desk.was_stopped


def test_a_preparation_that_hangs_is_nobodys_failure(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = time.monotonic()
    monkeypatch.setattr(time, "monotonic", lambda: now)
    led = conductor(desk(tmp_path, 9), workers=1, hang=50.0)
    for key in ("a", "b", "c"):
        assert not led.over
        taken(led, key)
        led.hear(key, Report(kind=Kind.ALIVE))
        assert led.overdue() == []
        now += 60
        assert led.overdue() == [key]
        assert led.overdue() == []
        led.hear(key, BEGAN)  # too late
        led.died(key, KILLED)
    assert isinstance(led.error, EngineError)
    assert "the last so: it gave no sign of life for 50s while its worker" in str(led.error)
    assert {(e.status, e.record.deaths) for e in entries(led)} == {(Status.STOPPED, 0)}


def test_a_worker_that_cannot_be_prepared_is_another_ones_chance(tmp_path: Path) -> None:
    led = conductor(desk(tmp_path, 9), workers=1)
    full = Report(kind=Kind.BROKEN, error=("ArtifactError", "the disk is full"))
    for key in ("a", "b", "began", "c", "d", "e"):
        assert not led.over
        started = taken(led, key)
        if key == "began":
            led.hear(key, BEGAN)
            led.hear(key, over(started))
            continue
        led.hear(key, full)
        assert led.overdue() == [key]
        led.died(key, KILLED)
    assert isinstance(led.error, EngineError)
    assert "the last so: the disk is full" in str(led.error)
    assert [e.status for e in entries(led)].count(Status.STOPPED) == 5


def test_a_node_that_is_waited_for_is_told_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = time.monotonic()
    monkeypatch.setattr(time, "monotonic", lambda: now)
    of, told = desk(tmp_path, 9), Told()
    of = Desk(**(of.__dict__ | {"progress": told}))
    waiting, served = (conductor(of, workers=1, needs="CPU 1, big 1") for _ in range(2))
    taken(waiting, "a")
    taken(served, "b")
    served.hear("b", BEGAN)
    for _ in range(10):
        assert waiting.overdue() == served.overdue() == []
        now += 10
    assert told.phases == ["waiting for a node with CPU 1, big 1"]


def test_what_hangs_or_takes_too_long_fails_with_its_reason(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = time.monotonic()
    monkeypatch.setattr(time, "monotonic", lambda: now)
    of = desk(tmp_path, 4)
    led = conductor(Desk(**(of.__dict__ | {"trial_seconds": 100.0})), hang=50.0)
    taken(led, "slow")
    taken(led, "still")
    for key in ("slow", "still"):
        led.hear(key, BEGAN)
    for second in range(0, 200, 10):
        if led.overdue():
            break
        led.hear("slow", Report(kind=Kind.ALIVE, signs=second))
        led.hear("still", Report(kind=Kind.ALIVE, signs=0))
        now += 10
    led.died("still", KILLED)  # as it was told to
    for second in range(200, 400, 10):
        if led.overdue():
            break
        led.hear("slow", Report(kind=Kind.ALIVE, signs=second))
        now += 10
    led.died("slow", KILLED)
    reasons = [e.outcome.reason for e in entries(led) if e.outcome]
    assert reasons == ["it took longer than 100 s", "it gave no sign of life for 50s"]
    assert {e.status for e in entries(led)} == {Status.FAILED}


def test_a_lost_cluster_is_nobodys_death(tmp_path: Path) -> None:
    gone: list[EngineError] = []
    led = conductor(desk(tmp_path, 4), lost=lambda: gone[0] if gone else None)
    for key in ("a", "b"):
        taken(led, key)
        led.hear(key, BEGAN)
    gone.append(EngineError("Ray lost its cluster", again=True))
    led.died("a", KILLED)
    assert led.over
    led.leave()
    assert led.error is gone[0]
    assert {e.status for e in entries(led)} == {Status.STOPPED}
    assert {e.outcome.reason for e in entries(led) if e.outcome} == {"Ray lost its cluster"}


def test_the_launch_judges_in_the_order_of_reports(tmp_path: Path) -> None:
    class Asked(NoChecks):
        def hopeless(self, candidate: object, known: object) -> str:
            return "of the test"

        def judge(self, share: float, values: object) -> Rung:
            return Rung(share=share, values={"accuracy": 0.5}, rivals=7, promoted=False)

    led = conductor(desk(tmp_path, 4, lambda trial: Asked()))
    taken(led, "a")
    gate = led.hear("a", Report(kind=Kind.GATE))
    rung = led.hear("a", Report(kind=Kind.RUNG, share=0.25, values={"accuracy": 0.5}))
    assert gate is not None
    assert gate.hopeless == "of the test"
    assert rung is not None
    assert rung.rung == Asked().judge(0.25, {})
    assert led.hear("unknown", BEGAN) is None


def test_errors_of_workers_and_of_the_storage_end_the_launch(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    led = conductor(desk(tmp_path, 4))
    taken(led, "a")
    led.hear("a", Report(kind=Kind.BROKEN, error=("CertificateError", "no such")))
    assert isinstance(led.error, CertificateError)
    assert led.over
    other = conductor(led.desk)

    def fail(*given: object) -> None:
        raise StorageError("of the test")

    found = taken(other, "b")
    monkeypatch.setattr(type(other.desk.ledger), "finish", fail)
    other.hear("b", over(found))
    assert str(other.error) == "of the test"


def test_a_stop_takes_no_more(tmp_path: Path) -> None:
    led = conductor(desk(tmp_path, 4))
    found = taken(led, "a")
    led.desk.stop.request()
    assert led.take("b") is None
    assert not led.over
    led.hear("a", over(found))
    assert led.take("c") == Desk.was_stopped
