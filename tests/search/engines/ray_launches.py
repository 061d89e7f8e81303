"""Launches on Ray in processes of their own, of a task whose trials can be made to go wrong.

Ray keeps state in a process, and warns where this test suite takes warnings for errors.
"""

from __future__ import annotations

import os
import secrets
import socket
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
import psutil

import parefront as pf
from parefront.search.entry import Entry
from tests.waiting import until

ROOT = Path(__file__).parents[3]

_TASK = """
import os, signal, threading, time
from pathlib import Path
from parefront.search.task import cross_entropy
from tests.tiny import make

HERE = Path(__file__).parent

def once():
    try:
        (HERE / "armed").rename(HERE / "fired")
    except FileNotFoundError:
        return False
    return True

def fault():
    {fault}

def loss(outputs, targets):
    # In a worker, and in training.
    if threading.current_thread() is not threading.main_thread() and outputs.requires_grad:
        fault()
    return cross_entropy(outputs, targets)

task = make(loss=loss)
"""

NONE = "pass"
DIES_ONCE = "if once(): os.kill(os.getpid(), signal.SIGKILL)"
DIES = "os.kill(os.getpid(), signal.SIGKILL)"
FAILS = "raise ArithmeticError('of the test')"
HANGS_ONCE = "while once() or (HERE / 'for_ever').exists(): (HERE / 'for_ever').touch()"
SLOW = (
    "while (HERE / 'armed').exists(): (HERE / 'waiting').touch(); "
    "(HERE / f'waiting-{os.getpid()}').touch(); time.sleep(0.05)"
)

_STUDY = """
[study]
name = "tiny"
task = "task.py:task"
trials = {trials}
settle = 0
{study}

[target]
protocol = "fixed"

[space]
prune = {{ ratio = [0.1, 0.6] }}
recover = {{ epochs = [1, 3] }}
quantize = {{ method = "static", calibration = "minmax" }}

[engine]
name = "ray"
{engine}
"""


@dataclass(frozen=True)
class Launches:
    """Launches of one study.

    Attributes:
        folder: Where its files are.
        env: Environment of the launches.
    """

    folder: Path
    env: Mapping[str, str]

    @classmethod
    def of(
        cls,
        folder: Path,
        fault: str = NONE,
        *,
        trials: int = 8,
        study: str = "",
        engine: str = "",
        env: Mapping[str, str] | None = None,
    ) -> Launches:
        """Writes the study and its task."""
        (folder / "task.py").write_text(_TASK.format(fault=fault))
        (folder / "study.toml").write_text(_STUDY.format(trials=trials, study=study, engine=engine))
        (folder / "armed").touch()
        return cls(folder, environment(folder) | dict(env or {}))

    def begin(self, *options: str) -> subprocess.Popen[str]:
        """Begins a launch."""
        return subprocess.Popen(
            [sys.executable, "-m", "parefront", "launch", "study.toml", *options],
            cwd=self.folder,
            env=dict(self.env),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def run(self, *options: str) -> str:
        """A whole launch that ends well; what it wrote."""
        code, text = ended(self.begin(*options))
        assert code == 0, text
        return text

    @property
    def study(self) -> pf.Study:
        """The study as it is in its storage."""
        return pf.Study.load("tiny", storage=f"sqlite:///{self.folder}/.parefront/studies.db")

    def entries(self) -> list[Entry]:
        """Its trials."""
        return self.study.opened().entries()

    def frame(self) -> pd.DataFrame:
        """Its trials as a frame."""
        return self.study.frame()


def environment(home: Path) -> dict[str, str]:
    """The environment of programs that keep nothing in the user's home."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    return kept | {
        "HOME": str(home),
        "PYTHONPATH": str(ROOT),
        "PYTHONDONTWRITEBYTECODE": "1",
        "COLUMNS": "200",
    }


def ended(process: subprocess.Popen[str]) -> tuple[int, str]:
    """Waits for the end of a launch; its exit code and what it wrote."""
    try:
        text, _ = process.communicate(timeout=200)
    except subprocess.TimeoutExpired:
        process.kill()
        raise
    return process.returncode, text


@dataclass(frozen=True)
class Head:
    """A node of a cluster, its head or a further one.

    Attributes:
        address: Where it is joined.
        env: What a process that joins needs in its environment.
        process: What started it and ends it.
    """

    address: str
    env: Mapping[str, str]
    process: psutil.Process

    def part(self, name: str) -> psutil.Process:
        """A process of it."""
        [found] = [p for p in self.process.children(recursive=True) if p.name() == name]
        return found


@contextmanager
def head(folder: Path, cpus: int = 2, like: Head | None = None) -> Iterator[Head]:
    """A cluster as a user starts one, with a token.

    Args:
        folder: Its temporary folder, whose path must be short.
        cpus: Cores for trials on its own machine.
        like: One that is gone, whose port and token it has.
    """
    if like is None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = str(free.getsockname()[1])
        env: Mapping[str, str] = {
            "RAY_AUTH_MODE": "token",
            "RAY_AUTH_TOKEN": secrets.token_hex(32),
        }
    else:
        port, env = like.address.rpartition(":")[2], like.env
    options = (
        "--head", f"--port={port}", f"--num-cpus={cpus}", "--include-dashboard=false",
        f"--temp-dir={folder}",
    )  # fmt: skip
    with _started(folder, env, *options) as process:
        until(lambda: _addresses(process))
        yield Head(_addresses(process)[0], env, process)


@contextmanager
def node(of: Head, folder: Path) -> Iterator[Head]:
    """A further node of a cluster, with one core."""
    options = (f"--address={of.address}", "--num-cpus=1")
    with _started(folder, of.env, *options) as process:
        until(lambda: any(p.name() == "raylet" for p in process.children(recursive=True)))
        yield Head(of.address, of.env, process)


@contextmanager
def _started(folder: Path, env: Mapping[str, str], *options: str) -> Iterator[psutil.Process]:
    """What `ray start` starts, until the end."""
    started = subprocess.Popen(
        [
            sys.executable, "-m", "ray.scripts.scripts", "start", *options,
            "--disable-usage-stats", "--block",
        ],
        env=environment(folder) | dict(env),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )  # fmt: skip
    process = psutil.Process(started.pid)
    try:
        yield process
    finally:
        members = process.children(recursive=True) if process.is_running() else []
        started.terminate()
        try:
            started.communicate(timeout=20)
        except subprocess.TimeoutExpired:
            started.kill()
            started.communicate()
        for member in members:
            if member.is_running():
                member.kill()


def _addresses(process: psutil.Process) -> list[str]:
    """Where the cluster of a head is joined, once that is known."""
    found = []
    for each in process.children(recursive=True):
        try:
            line = each.cmdline()
        except psutil.Error:
            continue
        found += [x.partition("=")[2] for x in line if x.startswith("--gcs-address=")]
    return found
