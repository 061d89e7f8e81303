"""Launches that are interrupted, killed, or two at once: real processes and real signals."""

from __future__ import annotations

import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

import parefront as pf
from tests.parefront.commands import ENVIRONMENT, FILE, TASK, command, in_folder


def begin(cwd: Path, *words: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "parefront", "launch", "study.toml", *words],
        cwd=cwd,
        env=ENVIRONMENT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def wait_for(start: str, running: subprocess.Popen[str]) -> None:
    """Reads what a launch prints up to a line that begins so."""
    assert running.stdout is not None
    assert any(line.startswith(start) for line in iter(running.stdout.readline, ""))


def wait_for_trial(number: int, url: str) -> None:
    """Waits until a storage has a trial of a number."""
    end = time.monotonic() + 60
    while time.monotonic() < end:
        if number in pf.Study.load("tiny", storage=url).frame()["trial"].tolist():
            return
        time.sleep(0.05)
    raise AssertionError(f"trial {number} did not begin")


@pytest.mark.slow
def test_ctrl_c_ends_cleanly_and_launching_again_goes_on(tmp_path: Path) -> None:
    with begin(in_folder(tmp_path, FILE.replace("trials = 8", "trials = 1000"))) as running:
        wait_for("trial   2", running)
        running.send_signal(signal.SIGINT)
        rest = running.communicate()[0]
    assert running.returncode == 0, rest
    assert "The search ended: it was stopped." in rest
    assert "front of tiny" in rest
    url = f"sqlite:///{tmp_path}/.parefront/studies.db"
    frame = pf.Study.load("tiny", storage=url).frame()
    assert set(frame["state"]) == {"complete"}
    count = len(frame)
    again = command("launch", "study.toml", "--trials", str(count + 1), cwd=tmp_path)
    assert again.returncode == 0, again.stderr
    assert len(pf.Study.load("tiny", storage=url).frame()) == count + 1


@pytest.mark.slow
def test_a_second_ctrl_c_gives_up_the_trial_which_is_tried_again(tmp_path: Path) -> None:
    text = FILE.replace("epochs = 1 ", "epochs = 100000 ").replace("trials = 8", "trials = 9")
    with begin(in_folder(tmp_path, text)) as running:
        wait_for("trial   0", running)  # the baseline
        wait_for_trial(1, f"sqlite:///{tmp_path}/.parefront/studies.db")
        running.send_signal(signal.SIGINT)
        wait_for("ending after this trial", running)
        running.send_signal(signal.SIGINT)
        running.communicate()
    assert running.returncode == 0
    frame = pf.Study.load("tiny", storage=f"sqlite:///{tmp_path}/.parefront/studies.db").frame()
    assert frame["state"].tolist() == ["complete", "interrupted"]


@pytest.mark.slow
def test_ctrl_c_is_answered_while_a_library_that_prints_is_silenced(tmp_path: Path) -> None:
    (tmp_path / "signals.py").write_text(SIGNALS)
    folder = in_folder(tmp_path, FILE.replace(f"{TASK}:task", "signals.py:task"))
    # In one process, so that the signal meets the very one that is silenced.
    with begin(folder, "--engine", "inline") as running:
        printed = running.communicate()[0]
    assert running.returncode == 1, printed  # the baseline was not measured yet
    assert printed.count("ending after this trial; again to end now") == 1
    assert "The search ended: it was stopped." in printed


SIGNALS = f"""
import os, signal, sys
sys.path.append({str(TASK.parents[1])!r})
from pathlib import Path
from torch import nn
from tests.tiny import make, model

class Signals(nn.Sequential):
    def forward(self, x):
        if sys.stderr is not sys.__stderr__ and not Path("sent").exists():
            Path("sent").touch()
            os.kill(os.getpid(), signal.SIGINT)
        return super().forward(x)

task = make(model=lambda: Signals(*model()))
"""


FINE = {"complete", "gated", "early_stopped"}
"""States of trials in which nothing went wrong."""


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_killed_ten_times_it_ends_with_every_trial_once(tmp_path: Path) -> None:
    # However fast the machine, a search of that many trials is not over before it is killed.
    folder = in_folder(tmp_path, FILE.replace("trials = 8", "trials = 1000000"))
    url = f"sqlite:///{folder}/.parefront/studies.db"
    rng = random.Random(0)
    for _ in range(10):
        with begin(folder) as running:
            for _ in range(rng.randrange(4)):  # some die before a trial, most within one
                wait_for("trial ", running)
            time.sleep(rng.uniform(0.0, 1.0))
            running.kill()
            running.communicate()
        assert running.returncode == -signal.SIGKILL
    killed = pf.Study.load("tiny", storage=url).frame()
    over = (~killed["state"].isin(["interrupted", "running"])).sum()
    ended = command("launch", "study.toml", "--trials", str(over + 5), cwd=folder)
    assert ended.returncode == 0, ended.stderr
    study = pf.Study.load("tiny", storage=url)
    frame = study.frame()
    assert len(frame) > len(killed) > 0
    assert "interrupted" in set(frame["state"])
    counted = frame[frame["state"] != "interrupted"]
    assert set(counted["state"]) <= FINE, set(counted["reason"])
    assert len(counted) == over + 5
    assert counted["candidate_id"].is_unique
    for sha256 in counted["artifact_sha256"][counted["state"] == "complete"]:
        study.store.get(sha256, "onnx")


@pytest.mark.slow
def test_two_launches_share_a_study(tmp_path: Path) -> None:
    folder = in_folder(tmp_path, FILE.replace("trials = 8", "trials = 1000000"))
    with begin(folder) as first, begin(folder) as second:
        for running in (first, second):
            wait_for("trial ", running)
        for running in (first, second):
            running.send_signal(signal.SIGINT)
        printed = [running.communicate()[0] for running in (first, second)]
    assert [first.returncode, second.returncode] == [0, 0], printed
    frame = pf.Study.load("tiny", storage=f"sqlite:///{folder}/.parefront/studies.db").frame()
    assert set(frame["state"]) <= FINE
    assert frame["candidate_id"].is_unique
    after = sum(line.startswith("trial ") for text in printed for line in text.splitlines())
    assert after + 2 == len(frame)
