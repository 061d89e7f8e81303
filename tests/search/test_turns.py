"""Launches of one study wait for each other, and can be stopped while they do."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from filelock import FileLock

from parefront.search.pipeline import Interrupted
from parefront.search.turns import turn

HOLD = """
import sys
from filelock import FileLock
with FileLock(sys.argv[1]):
    print("held", flush=True)
    sys.stdin.readline()
"""


@pytest.fixture
def other(tmp_path: Path) -> Iterator[subprocess.Popen[str]]:
    """Another process that holds the lock until it reads a line."""
    words = [sys.executable, "-c", HOLD, str(tmp_path / "lock")]
    with subprocess.Popen(
        words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        yield process
        process.kill()


def test_a_free_lock_is_taken_without_a_word_and_given_back(tmp_path: Path) -> None:
    lock, said = FileLock(tmp_path / "lock"), list[str]()
    with turn(lock, lambda: False, said.append):
        assert lock.lock_counter == 1
    assert lock.lock_counter == 0
    assert not said


def test_waiting_is_said_and_ends_when_the_other_is_done(
    tmp_path: Path, other: subprocess.Popen[str]
) -> None:
    lock, said = FileLock(tmp_path / "lock"), list[str]()

    def phase(text: str) -> None:
        said.append(text)
        assert other.stdin is not None
        other.stdin.write("\n")
        other.stdin.flush()

    with turn(lock, lambda: False, phase):
        assert lock.lock_counter == 1
    assert said == ["waiting for another launch of this study"]


@pytest.mark.usefixtures("other")
@pytest.mark.parametrize("told", [True, False])
def test_waiting_can_be_given_up(tmp_path: Path, told: bool) -> None:
    stop = threading.Event()
    lock, said = FileLock(tmp_path / "lock"), list[str]()

    def phase(text: str) -> None:
        said.append(text)
        stop.set()

    if not told:  # stopped before it says that it waits
        stop.set()
    with pytest.raises(Interrupted), turn(lock, stop.is_set, phase):
        raise AssertionError("the lock is another's")
    assert len(said) == told
    assert lock.lock_counter == 0
