"""Launches of one study wait for each other, and can be stopped while they do."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from parefront.errors import StorageError
from parefront.search.locks import LockFile, lock_of
from parefront.search.pipeline import Interrupted
from parefront.search.turns import turn
from tests.waiting import until

HOLD = """
import sys
from parefront.search.locks import lock_of
lock = lock_of(sys.argv[1], "s")
assert lock.take()
print("held", flush=True)
sys.stdin.readline()
lock.release()
"""


def holder(url: str) -> subprocess.Popen[str]:
    """Another process that holds the lock until it reads a line."""
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, url], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
    return process


@pytest.fixture
def other(tmp_path: Path) -> Iterator[subprocess.Popen[str]]:
    with holder(f"sqlite:///{tmp_path}/studies.db") as process:
        yield process
        process.kill()


def lock(tmp_path: Path) -> LockFile:
    return LockFile(tmp_path / "locks" / "s.lock")


def test_one_holds_a_lock_at_a_time_and_what_it_guards_tells_locks_apart(any_storage: str) -> None:
    first, second = lock_of(any_storage, "s"), lock_of(any_storage, "s")
    others = [lock_of(any_storage, "s", "after"), lock_of(any_storage, "t")]
    for _ in range(2):
        assert first.take()
        assert not second.take()
        assert [each.take() for each in others] == [True, True]
        first.release()
        until(second.take)
        assert not first.take()
        for each in (first, second, *others):
            each.release()


def test_the_lock_of_a_process_that_died_is_free(any_storage: str) -> None:
    mine = lock_of(any_storage, "s")
    with holder(any_storage) as process:
        assert not mine.take()
        process.kill()
        if any_storage.startswith("grpc"):
            return  # the proxy waits for a sign of it, see below
    until(mine.take)
    mine.release()


def test_a_free_lock_is_taken_without_a_word_and_given_back(tmp_path: Path) -> None:
    said: list[str] = []
    with turn(lock(tmp_path), lambda: False, said.append):
        assert not lock(tmp_path).take()
    assert lock(tmp_path).take()
    assert not said


def test_waiting_is_said_and_ends_when_the_other_is_done(
    tmp_path: Path, other: subprocess.Popen[str]
) -> None:
    said: list[str] = []

    def phase(text: str) -> None:
        said.append(text)
        assert other.stdin is not None
        other.stdin.write("\n")
        other.stdin.flush()

    with turn(lock(tmp_path), lambda: False, phase):
        assert not lock(tmp_path).take()
    assert said == ["waiting for another launch of this study"]


@pytest.mark.usefixtures("other")
@pytest.mark.parametrize("told", [True, False])
def test_waiting_can_be_given_up(tmp_path: Path, told: bool) -> None:
    stop = threading.Event()
    said: list[str] = []

    def phase(text: str) -> None:
        said.append(text)
        stop.set()

    if not told:  # stopped before it says that it waits
        stop.set()
    with pytest.raises(Interrupted), turn(lock(tmp_path), stop.is_set, phase):
        raise AssertionError("the lock is another's")
    assert len(said) == told


def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "locks").write_text("in the way")
    with pytest.raises(StorageError, match="cannot write to .*locks"):
        lock(tmp_path).take()
