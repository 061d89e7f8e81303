"""What a process can meet: crashes, hangs, want of memory, and the death of its parent."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pandas as pd
import psutil
import pytest
from filelock import FileLock

import parefront as pf
from parefront.errors import EngineError, TrialError, UsageError
from parefront.objectives.targets.local import lock_path
from parefront.search.engines import supervisor
from parefront.spaces.space import Candidate
from tests.search.engines.faults import Untakeable, fragile, fussy
from tests.search.engines.studies import SAME, START, Told, counted, soon, study
from tests.tiny import make

PROCESS = {"name": "process"}
POISON = 2
"""The trial of the candidate that is fragile."""


def marked(folder: Path) -> Path:
    """The file without which nothing happens."""
    marker = folder / "marker"
    marker.touch()
    return marker


def test_a_model_that_exits_fails_its_trial(tmp_path: Path) -> None:
    found = study(tmp_path, fragile("leave", marked(tmp_path)), "inline").optimize()
    assert found.frame()["reason"][POISON] == "SystemExit: 4"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("fault", "how"),
    [
        ("segv", "killed by signal 11 (SIGSEGV) at faults.py:"),
        ("exit", "it ended with exit code 3"),
    ],
)
def test_a_crash_ends_a_trial_whose_candidate_is_tried_again(
    tmp_path: Path, fault: str, how: str
) -> None:
    plain = study(tmp_path / "plain", fragile(fault, tmp_path / "none"), "inline").optimize()
    told = Told()
    task = fragile(fault, marked(tmp_path), once=True)
    found = study(tmp_path / "crashed", task, PROCESS).optimize(progress=told)
    pd.testing.assert_frame_equal(counted(found)[SAME], plain.frame()[SAME])
    frame = found.frame()
    assert frame["state"].tolist()[POISON] == "interrupted"
    assert how in frame["reason"][POISON]
    assert [number for number, _ in told.outcomes] == frame["trial"].tolist()
    assert any(phase.startswith("going on in a new process") for phase in told.phases)


@pytest.mark.slow
@pytest.mark.parametrize("fault", ["exit", "loop"])
def test_a_baseline_that_takes_its_process_down_ends_the_launch(tmp_path: Path, fault: str) -> None:
    task = fussy(fault, marked(tmp_path))
    found = study(tmp_path, task, {"name": "process", "hang": "3s"})
    with pytest.raises(TrialError, match="unchanged model failed in trial ."):
        found.optimize()
    (tmp_path / "marker").unlink()
    again = study(tmp_path, task, "process").optimize()
    assert counted(again)["state"].tolist()[-4:] == ["complete"] * 4


@pytest.mark.slow
def test_a_candidate_that_kills_every_process_is_quarantined(tmp_path: Path) -> None:
    found = study(tmp_path, fragile("kill", marked(tmp_path)), PROCESS).optimize()
    frame = found.frame()
    assert frame["state"].tolist() == ["complete", "complete", "interrupted", "failed", "complete"]
    assert frame["candidate_id"][2] == frame["candidate_id"][3]
    assert frame["reason"][2].endswith("killed by signal 9 (SIGKILL), perhaps for want of memory")
    assert frame["reason"][3].startswith("quarantined: its process died 2 times while it ran")
    assert found.ended == "4 trials are done"


@pytest.mark.slow
def test_a_hang_fails_its_trial(tmp_path: Path) -> None:
    task = fragile("lock", marked(tmp_path))
    found = study(tmp_path, task, PROCESS | {"hang": "10s"}).optimize()
    frame = found.frame()
    assert frame["state"].tolist() == ["complete", "complete", "failed", "complete"]
    assert frame["reason"][POISON].startswith("it gave no sign of life for 10s at faults.py:")


@pytest.mark.slow
def test_a_trial_that_does_not_notice_that_its_time_is_over_fails(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(supervisor, "GRACE", 1.0)
    found = study(tmp_path, fragile("loop", marked(tmp_path)), PROCESS)
    section = found.settings.study.model_copy(update={"trial_time": 10.0})
    found.settings = found.settings.model_copy(update={"study": section})
    frame = found.optimize().frame()
    assert frame["state"].tolist() == ["complete", "complete", "failed", "complete"]
    assert frame["reason"][POISON] == "it took longer than 10 s"


@pytest.mark.slow
def test_a_trial_that_takes_too_much_memory_fails(tmp_path: Path) -> None:
    task = fragile("memory", marked(tmp_path))
    frame = study(tmp_path, task, PROCESS | {"memory_mb": 1500}).optimize().frame()
    assert frame["state"].tolist() == ["complete", "complete", "failed", "complete"]
    assert frame["reason"][POISON] == "it took more than 1500 MB of memory"


@pytest.mark.slow
def test_a_trial_that_does_not_hear_that_it_is_to_end_is_ended(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(supervisor, "GRACE", 1.0)
    found = study(tmp_path, fragile("lock", marked(tmp_path)), PROCESS, start=START[1:])

    def begun(candidate: Candidate) -> None:
        if candidate.configs:
            soon(lambda: found.stop(now=True), 3.0)

    found.optimize(progress=Told(began=begun))
    assert found.ended == "it was stopped"
    assert found.frame()["state"].tolist() == ["complete", "interrupted"]
    assert found.frame()["reason"][1] == "the study was stopped"


@pytest.mark.slow
def test_an_error_of_the_display_ends_the_process_and_gives_the_trial_up(tmp_path: Path) -> None:
    class Odd(Exception):  # noqa: N818
        pass

    def begun(candidate: Candidate) -> None:
        if candidate.configs:
            raise Odd

    long = {"start": [], "space": {"recover": {"epochs": 1_000_000}}}
    found = study(tmp_path, make(), PROCESS, **long)
    with pytest.raises(Odd):
        found.optimize(progress=Told(began=begun))
    assert found.frame()["state"].tolist() == ["complete", "interrupted"]
    assert not psutil.Process().children()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("fault", "engine", "message"),
    [
        (
            "segv",
            {},
            "ended at 'training the baseline': killed by signal 11 .SIGSEGV. at faults.py",
        ),
        ("lock", {"hang": "10s"}, "ended at 'training the baseline': it gave no sign of life for"),
    ],
)
def test_a_process_that_gets_nowhere_ends_the_launch(
    tmp_path: Path, fault: str, engine: dict[str, Any], message: str
) -> None:
    pretrain = pf.Pretrain(epochs=1, learning_rate=1e-3)
    task = fragile(fault, marked(tmp_path), few=1000, pretrain=pretrain)
    with pytest.raises(EngineError, match=message):
        study(tmp_path, task, PROCESS | engine).optimize()


def test_a_task_that_cannot_be_taken_along_is_refused(tmp_path: Path) -> None:
    task = make(loss=Untakeable())
    with pytest.raises(UsageError, match="cannot be handed .*lock.*; name it as path/to/file"):
        study(tmp_path, task, PROCESS).optimize()


@pytest.mark.slow
def test_waiting_for_the_measurements_of_others_is_no_hang(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    timed = {"target": {"runs": 20, "seconds": 0.2}, "trials": 1}
    # Not the one of this machine, for others would wait as well.
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    lock = FileLock(tmp_path / lock_path().name, thread_local=False)
    lock.acquire()
    threading.Timer(25.0, lock.release).start()
    found = study(tmp_path, make(), PROCESS | {"hang": "10s"}, **timed).optimize()
    assert found.frame()["state"].tolist() == ["complete"]


SCRIPT = """
import sys
import torch
import parefront as pf
from tests.tiny import data, model

class Net(torch.nn.Module):  # of the script itself
    def __init__(self):
        super().__init__()
        self.layers = model()

    def forward(self, x):
        return self.layers(x)

task = pf.Task(model=Net, train=data(256, 0), validation=data(128, 1), test=data(128, 2))
found = pf.Study(
    task, name="tiny", trials=int(sys.argv[3]), settle=0, engine=sys.argv[2],
    target={"seconds": 1.0}, space={"recover": {"epochs": 1}}, storage=f"sqlite:///{sys.argv[1]}",
)
found.optimize()
"""


def script(folder: Path, engine: str, trials: int) -> subprocess.Popen[bytes]:
    """A program without a guard of its main module, whose task is its own."""
    path = folder / "script.py"
    path.write_text(SCRIPT)
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    words = [sys.executable, str(path), str(folder / f"{engine}.db"), engine, str(trials)]
    return subprocess.Popen(words, env=environment)


@pytest.mark.slow
def test_a_task_of_the_program_itself_is_taken_along_and_known_again(tmp_path: Path) -> None:
    keys = []
    for engine in ("inline", "process"):
        with script(tmp_path, engine, 2) as running:
            assert running.wait() == 0
        found = pf.Study.load("tiny", storage=f"sqlite:///{tmp_path}/{engine}.db")
        assert set(found.frame()["state"]) == {"complete"}
        baseline = found.opened().baseline
        assert baseline is not None
        keys.append(baseline.key)
    assert keys[0] == keys[1] != ""


@pytest.mark.slow
def test_nothing_is_left_of_a_launch_that_is_killed(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/process.db"
    with script(tmp_path, "process", 1000) as running:
        program = psutil.Process(running.pid)
        family: list[psutil.Process] = []
        end = time.monotonic() + 120
        # The process of the launch, and one that measures.
        while len(family) < 2 and time.monotonic() < end and running.poll() is None:
            family = program.children(recursive=True)
            time.sleep(0.01)
        running.kill()
    assert len(family) >= 2
    assert psutil.wait_procs(family, timeout=30)[1] == []
    with script(tmp_path, "process", 3) as running:
        assert running.wait() == 0
    frame = counted(pf.Study.load("tiny", storage=url))
    assert set(frame["state"]) == {"complete"}
    assert frame["candidate_id"].is_unique
    assert len(frame) >= 3


@pytest.mark.slow
def test_two_launches_at_once_meet_a_candidate_that_kills_them(tmp_path: Path) -> None:
    task = fragile("kill", marked(tmp_path))
    launches = [study(tmp_path, task, PROCESS, trials=6) for _ in range(2)]
    with ThreadPoolExecutor(2) as threads:
        ended = list(threads.map(lambda each: each.optimize().ended, launches))
    assert ended == ["6 trials are done"] * 2
    frame = counted(launches[0])
    assert len(frame) == 6
    assert frame["candidate_id"].is_unique
    assert set(frame["state"]) == {"complete", "failed"}
    assert frame["reason"].dropna().str.startswith("quarantined").all()


def test_signals_of_the_terminal_do_not_reach_the_process_of_a_launch() -> None:
    """A session of its own keeps the terminal's away, and it minds no others."""
    program = (
        "import os, signal\n"
        "from parefront.search.engines.child import _leave_signals_to_the_parent\n"
        "_leave_signals_to_the_parent()\n"
        "os.kill(os.getpid(), signal.SIGINT); os.kill(os.getpid(), signal.SIGTERM)\n"
        "child = os.fork()\n"
        "if not child:\n"
        "    os.kill(os.getpid(), signal.SIGTERM); os._exit(0)\n"
        "status = os.waitpid(child, 0)[1]\n"
        "assert os.WTERMSIG(status) == signal.SIGTERM\n"
    )
    subprocess.run([sys.executable, "-c", program], check=True)
