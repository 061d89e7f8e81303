"""Folders that Ray writes to, after launches that ended well, late or not at all."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from parefront.search.engines.ray.scratch import PREFIX, YOUNG, Scratch, sweep

PROGRAM = (
    "import sys, time\n"
    "from parefront.search.engines.ray.scratch import Scratch\n"
    "own = Scratch()\n"
    "print(own.path, flush=True)\n"
    "time.sleep(600)"
)


@pytest.fixture
def short(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="pf", dir="/tmp") as folder:
        monkeypatch.setattr(tempfile, "tempdir", folder)
        yield Path(folder)


def aged(path: Path) -> None:
    then = time.time() - 2 * YOUNG
    os.utime(path, (then, then))


def test_what_a_killed_process_left_is_removed_by_the_next(short: Path) -> None:
    other = subprocess.Popen(
        [sys.executable, "-c", PROGRAM],
        env=os.environ | {"TMPDIR": str(short)},
        stdout=subprocess.PIPE,
        text=True,
    )
    assert other.stdout is not None
    left = Path(other.stdout.readline().strip())
    assert left.parent == short
    (left / "session").mkdir()
    aged(left)
    sweep(short)
    assert left.is_dir()  # its owner lives
    other.kill()
    other.communicate()
    own = Scratch()
    assert own.path.is_dir()
    assert not left.exists()
    own.close()
    assert list(short.iterdir()) == []


def test_what_is_young_or_not_its_own_is_left_alone(short: Path) -> None:
    own = Scratch()
    own._lock.release()  # as between the making of a folder and its lock
    foreign = short / f"{PREFIX}of-somebody"
    foreign.mkdir()
    aged(foreign)
    sweep(short)
    assert own.path.is_dir()
    assert foreign.is_dir()
    aged(own.path)
    sweep(short)
    assert not own.path.exists()
