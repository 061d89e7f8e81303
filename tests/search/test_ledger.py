from __future__ import annotations

import os
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from urllib.parse import quote

import optuna
import psutil
import pytest
import sqlalchemy

from parefront.errors import StorageError, StorageUrlError, StorageVersionError
from parefront.search.entry import MAX_DEATHS, QUARANTINE, died, unfinished
from parefront.search.records import Origin, Outcome, Owner, Status
from parefront.search.storage import home_of, open_storage
from parefront.spaces.space import Candidate
from tests.search.fakes import RepairChoices, WidthChoices, outcome, space
from tests.search.trials import GONE, NAMES, create, ledger, propose, proposer, search


def test_a_trial_reads_back_as_it_was_written(any_storage: str) -> None:
    into = ledger(any_storage)
    proposal = propose(proposer(), into)
    trial_id = create(into, proposal)
    assert into.entries()[0].status == Status.RUNNING
    told = outcome(proposal.candidate).model_copy(
        update={"violations": {"latency": 0.5, "size": -1.0}}
    )
    into.finish(trial_id, told)
    (entry,) = ledger(any_storage).entries()
    assert entry.outcome == told
    assert entry.record.origin == Origin.BASELINE
    assert entry.counts
    assert entry.trial.values == [told.measurements[name].value for name in NAMES]
    assert entry.trial.constraints == {"latency": 0.5, "size": -1.0}


@pytest.mark.parametrize("sampler", ["screening", "tpe", "nsga2", "random"])
def test_the_same_seed_proposes_the_same_and_never_twice(tmp_path: Path, sampler: str) -> None:
    runs = []
    for index, seed in enumerate((1, 1, 2)):
        folder = tmp_path / str(index)
        folder.mkdir()
        runs.append(search(ledger(folder), proposer(seed, sampler), 30))
    assert runs[0] == runs[1]
    assert runs[0] != runs[2]
    assert all(len(set(run)) == len(run) for run in runs)


@pytest.mark.parametrize("sampler", ["screening", "tpe", "random"])
def test_an_interrupted_search_goes_on_as_if_it_had_not_been(tmp_path: Path, sampler: str) -> None:
    (tmp_path / "whole").mkdir()
    (tmp_path / "parts").mkdir()
    whole = search(ledger(tmp_path / "whole"), proposer(0, sampler), 30)
    parts: list[str] = []
    while len(parts) < 30:
        into = ledger(tmp_path / "parts")
        parts += search(into, proposer(0, sampler), min(4, 30 - len(parts)))
        create(into, propose(proposer(0, sampler), into), GONE)  # dies with a trial in flight
        assert into.reclaim(into.entries())
    assert parts == whole


def test_a_trial_whose_process_died_is_tried_again(any_storage: str) -> None:
    into, by = ledger(any_storage), proposer()
    search(into, by, 5)
    proposal = propose(by, into)
    create(into, proposal, GONE)
    assert into.reclaim(into.entries()) == [5]
    assert not into.entries()[5].counts
    again = propose(by, into)
    assert again.candidate == proposal.candidate
    assert again.deaths == 1
    assert again.origin == proposal.origin


def test_a_candidate_that_kills_its_process_is_given_up(any_storage: str) -> None:
    into, by = ledger(any_storage), proposer()
    search(into, by, 1)
    poison = propose(by, into).candidate
    for _ in range(MAX_DEATHS):
        create(into, propose(by, into), GONE)
        into.reclaim(into.entries())
    last = into.entries()[-1]
    assert last.record.candidate_id == poison.id
    assert last.status == Status.FAILED
    assert last.outcome is not None
    assert last.outcome.reason is not None
    assert f"died {MAX_DEATHS} times" in last.outcome.reason
    assert propose(by, into).candidate != poison


def test_a_baseline_that_failed_is_tried_again_first(any_storage: str) -> None:
    into, by = ledger(any_storage), proposer()
    failed = Outcome(status=Status.FAILED, reason="quarantined")
    for _ in range(2):
        again = propose(by, into)
        assert again.candidate == Candidate()
        assert (again.deaths, again.crashes) == (0, 0)
        into.finish(create(into, replace(again, deaths=4, crashes=1)), failed)
    assert not any(entry.counts for entry in into.entries())
    search(into, by, 1)
    assert [entry.counts for entry in into.entries()] == [False, False, True]
    second = propose(by, into)
    assert second.candidate != Candidate()
    into.finish(create(into, second), failed)
    assert propose(by, into).candidate not in (Candidate(), second.candidate)


def test_a_stop_is_no_death(any_storage: str) -> None:
    into, by = ledger(any_storage), proposer()
    for _ in range(MAX_DEATHS + 2):
        proposal = propose(by, into)
        assert proposal.deaths == 0
        into.finish(create(into, proposal), Outcome(status=Status.STOPPED))
    assert [record.deaths for record in unfinished(into.entries())] == [0]


def test_a_result_that_was_written_but_not_told_is_told(any_storage: str) -> None:
    into = ledger(any_storage)
    proposal = propose(proposer(), into)
    create(into, proposal, GONE)
    storage = open_storage(any_storage)
    trial_id = storage.get_trial_id_from_study_id_trial_number(
        storage.get_study_id_from_name("s"), 0
    )
    told = outcome(proposal.candidate)
    storage.set_trial_user_attr(trial_id, "parefront:result", told.model_dump(mode="json"))
    into.reclaim(into.entries())
    (entry,) = into.entries()
    assert entry.status == Status.COMPLETE
    assert entry.outcome == told


def test_a_living_process_keeps_its_trial(any_storage: str) -> None:
    into = ledger(any_storage)
    create(into, propose(proposer(), into))
    assert into.reclaim(into.entries()) == []


def test_the_owner_knows_a_dead_a_zombie_and_a_reused_process() -> None:
    me = Owner.me()
    assert me.alive()
    assert not me.model_copy(update={"started": me.started - 100}).alive()
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as child:
        started = psutil.Process(child.pid).create_time()
        theirs = me.model_copy(update={"pid": child.pid, "started": started})
        assert theirs.alive()
        child.kill()
        os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)  # dead, and not yet reaped
        assert not theirs.alive()
    assert not theirs.alive()
    assert theirs.model_copy(update={"place": "elsewhere"}).alive()


def test_a_space_that_is_searched_through_ends(tmp_path: Path) -> None:
    small = space(
        WidthChoices.model_validate({"ratio": 0.5}), RepairChoices.model_validate({"steps": 1})
    )
    into, by = ledger(tmp_path), proposer(of=small)
    seen = set()
    while (proposal := by.propose(into.entries())) is not None:
        assert proposal.candidate.id not in seen
        seen.add(proposal.candidate.id)
        into.finish(create(into, proposal), outcome(proposal.candidate))
    assert len(seen) == 4  # nothing, repair alone, and two kinds of width with it


def test_a_storage_of_another_version_is_refused(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/studies.db"
    open_storage(url)
    connection = sqlite3.connect(tmp_path / "studies.db")
    connection.execute("UPDATE alembic_version SET version_num = 'v0.9.0.a'")
    connection.commit()
    connection.close()
    with pytest.raises(StorageVersionError, match="made by another version of Optuna"):
        open_storage(url)


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("nonsense", "expected a storage URL"),
        ("", "expected a storage URL .* got ''"),
        ("sqlite://", "outlives the process"),
        ("oracle+nodriver://x/y", "no kind of storage 'oracle.nodriver', got .*; expected sqlite:"),
        ("grpc://h:abc", r"got 'grpc://\*\*\*'; what comes after the ':' of its host is no port"),
        ("grpc://h:99999", "got 'grpc://h:99999'; what comes after the ':' of its host is no port"),
        (
            "postgresql://me:123456/d",
            r"got 'postgresql://\*\*\*/d'; .* is no port, 1 to 65535",
        ),
    ],
)
def test_what_names_no_storage_is_refused(url: str, message: str) -> None:
    with pytest.raises(StorageUrlError, match=message):
        open_storage(url)


@pytest.mark.parametrize(("scheme", "package"), [("mysql", "mysqlclient"), ("mssql", "pyodbc")])
def test_a_missing_driver_of_a_database_is_named(
    monkeypatch: pytest.MonkeyPatch, scheme: str, package: str
) -> None:
    for module in ("MySQLdb", "pyodbc"):
        monkeypatch.setitem(sys.modules, module, None)  # as if it were not installed
    needed = rf"{scheme}://me:\*\*\*@h/d needs the package .* pip install {package}, or"
    with pytest.raises(StorageError, match=needed):
        open_storage(f"{scheme}://me:secret@h/d")


def test_a_file_that_is_no_database_is_refused(tmp_path: Path) -> None:
    (tmp_path / "x.db").write_text("this is not a database, but long enough to look at" * 50)
    with pytest.raises(StorageError, match="not a database"):
        open_storage(f"sqlite:///{tmp_path}/x.db")


def test_reading_makes_no_storage(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match="there is no storage .*launch a study first"):
        open_storage(f"sqlite:///{tmp_path}/none/x.db", create=False)
    assert not (tmp_path / "none").exists()


CONTENTS: dict[str, Callable[[Path], object]] = {
    "empty": lambda path: path.touch(),
    "text": lambda path: path.write_text("[study]\nname = 'x'\n" * 500),
    "other": lambda path: another(path, "DELETE"),
    "other in WAL mode": lambda path: another(path, "WAL"),
}


def another(path: Path, mode: str) -> None:
    """Makes a database of something else."""
    connection = sqlite3.connect(path)
    connection.execute(f"PRAGMA journal_mode={mode}")
    connection.execute("CREATE TABLE mine (x INTEGER)")
    connection.commit()
    connection.close()


@pytest.mark.parametrize("content", CONTENTS)
def test_reading_changes_no_file_of_something_else(tmp_path: Path, content: str) -> None:
    path = tmp_path / "x y?#%.db"
    CONTENTS[content](path)
    before = path.read_bytes()
    with pytest.raises(StorageError, match="is no storage of studies|is not a database"):
        open_storage(f"sqlite:///{quote(str(path))}", create=False)
    assert list(tmp_path.iterdir()) == [path]
    assert path.read_bytes() == before


def test_reading_leaves_a_database_in_the_mode_it_is_in(tmp_path: Path) -> None:
    path = tmp_path / "x.db"
    optuna.create_study(study_name="s", storage=f"sqlite:///{path}")  # in no log of its own
    before = path.read_bytes()
    storage = open_storage(f"sqlite:///{path}", create=False)
    assert [study.study_name for study in storage.get_all_studies()] == ["s"]
    assert list(tmp_path.iterdir()) == [path]
    assert path.read_bytes() == before


def test_what_is_only_in_the_log_of_a_storage_is_read(tmp_path: Path) -> None:
    holding = []

    def connected(connection: sqlite3.Connection, _: object) -> None:
        connection.execute("PRAGMA wal_autocheckpoint=0")
        holding.append(connection)

    sqlalchemy.event.listen(sqlalchemy.pool.Pool, "connect", connected)
    try:
        writing = open_storage(f"sqlite:///{tmp_path}/x.db")
        writing.create_new_study([optuna.study.StudyDirection.MINIMIZE], "s")
        assert (tmp_path / "x.db").stat().st_size <= 4096  # all tables are in the log
        reading = open_storage(f"sqlite:///{tmp_path}/x.db", create=False)
    finally:
        sqlalchemy.event.remove(sqlalchemy.pool.Pool, "connect", connected)
    assert [study.study_name for study in reading.get_all_studies()] == ["s"]
    assert holding


def test_artifacts_are_kept_beside_the_database(tmp_path: Path) -> None:
    assert home_of(f"sqlite:///{tmp_path}/a/x.db") == tmp_path / "a"
    assert home_of("postgresql://u@h/d") == Path(".parefront")


def test_writes_do_not_wait_for_the_disk(tmp_path: Path) -> None:
    modes = []

    def connected(connection: sqlite3.Connection, _: object) -> None:
        ask = [f"PRAGMA {name}" for name in ("journal_mode", "synchronous")]
        modes.append([connection.execute(sql).fetchone()[0] for sql in ask])

    sqlalchemy.event.listen(sqlalchemy.pool.Pool, "connect", connected)
    try:
        open_storage(f"sqlite:///{tmp_path}/x.db")
    finally:
        sqlalchemy.event.remove(sqlalchemy.pool.Pool, "connect", connected)
    assert modes
    assert all(mode == ["wal", 1] for mode in modes)


def test_a_trial_that_two_launches_clear_up_ends_once(tmp_path: Path) -> None:
    first, second, by = ledger(tmp_path), ledger(tmp_path), proposer()
    create(first, propose(by, first), GONE)
    (left,) = first.left_by(GONE)
    assert first.finish_left(left, died(0, how="by a crash")) == died(0, how="by a crash")
    assert second.finish_left(left, died(0)) is None
    assert first.entries()[0].outcome == died(0, how="by a crash")
    assert first.left_by(GONE) == []


def test_a_death_that_was_seen_counts_for_more() -> None:
    assert died(0).status == died(0, how="how").status == Status.INTERRUPTED
    assert died(MAX_DEATHS - 2).status == Status.INTERRUPTED
    # Launches that were killed are not held against a candidate that crashes once.
    assert died(MAX_DEATHS - 2, 0, "by a crash").status == Status.INTERRUPTED
    assert died(MAX_DEATHS - 1, 0, "by a crash").status == Status.FAILED
    quarantined = died(QUARANTINE - 1, QUARANTINE - 1, "by a crash")
    assert quarantined.status == Status.FAILED
    assert quarantined.reason is not None
    assert quarantined.reason.startswith("quarantined: its process died 2 times")
    assert quarantined.reason.endswith("the last time by a crash")
