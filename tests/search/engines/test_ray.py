"""Whole launches on a real Ray: budgets, faults and ends."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from parefront.search.records import Status
from tests.search.engines.ray_launches import (
    DIES,
    DIES_ONCE,
    FAILS,
    HANGS_ONCE,
    SLOW,
    Head,
    Launches,
    ended,
    head,
    node,
)
from tests.waiting import until

pytest.importorskip("ray")
pytestmark = pytest.mark.slow

SAME = ["candidate_id", "state", "origin", "accuracy", "latency_ms", "size_bytes", "reason"]


@pytest.fixture(scope="module")
def cluster() -> Iterator[Head]:
    with tempfile.TemporaryDirectory(prefix="pf") as folder, head(Path(folder)) as started:
        yield started


def on(cluster: Head, folder: Path, fault: str = "pass", **changes: str | int) -> Launches:
    engine = f'address = "{cluster.address}"\nworkers = 2\n' + str(changes.pop("engine", ""))
    return Launches.of(folder, fault, engine=engine, env=cluster.env, **changes)  # type: ignore[arg-type]


def test_one_worker_finds_what_inline_finds(tmp_path: Path) -> None:
    for name in ("here", "ray"):
        (tmp_path / name).mkdir()
    here, there = (Launches.of(tmp_path / name, trials=26) for name in ("here", "ray"))
    for each in (here, there):  # an engine of one worker, which no study file needs to name
        path = each.folder / "study.toml"
        path.write_text(path.read_text() + "workers = 1\n")
    here.run("--engine", "inline")
    process = there.begin()
    until(lambda: _listening(process))
    code, text = ended(process)
    assert code == 0, text
    assert "The search ended: 26 trials are done." in text
    left, right = here.frame(), there.frame()
    assert {"gated", "early_stopped"} <= set(left["state"])
    assert right[SAME].equals(left[SAME])
    rungs = [[e.outcome.rungs for e in each.entries() if e.outcome] for each in (here, there)]
    assert rungs[0] == rungs[1]
    # Nothing is scattered over the home of the user, but for what inline leaves there too.
    left_there, left_here = ({path.name for path in e.folder.iterdir()} for e in (there, here))
    assert left_there == left_here


def _listening(process: subprocess.Popen[str]) -> bool:
    """Whether Ray is up; asserts that only this machine can reach it."""
    raylets = []
    for each in psutil.Process(process.pid).children(recursive=True):
        try:
            if each.name() in ("raylet", "gcs_server"):
                raylets += [c for c in each.net_connections() if c.status == "LISTEN"]
        except psutil.Error:
            continue
    assert {c.laddr.ip.removeprefix("::ffff:") for c in raylets} <= {"127.0.0.1"}
    return bool(raylets)


def test_a_joined_cluster_spends_the_budget(cluster: Head, tmp_path: Path) -> None:
    launches = on(cluster, tmp_path, trials=8)
    text = launches.run()
    frame = launches.frame()
    assert "The search ended: 8 trials are done." in text
    assert len(frame) == 8
    assert frame["on_front"].any()
    launches.run("--trials", "10")
    assert len(launches.frame()) == 10


def test_a_failing_stage_is_a_failed_trial(cluster: Head, tmp_path: Path) -> None:
    launches = on(cluster, tmp_path, FAILS, trials=5)
    launches.run()
    entries = launches.entries()
    assert len(entries) == 5
    for entry in entries:
        assert entry.outcome is not None
        fails = "recover" in entry.record.candidate
        assert (entry.status == Status.FAILED) == fails
        assert ("ArithmeticError: of the test" in str(entry.outcome.reason)) == fails
    assert any("recover" in entry.record.candidate for entry in entries)


def test_a_killed_worker_costs_a_repetition(cluster: Head, tmp_path: Path) -> None:
    launches = on(cluster, tmp_path, DIES_ONCE, trials=6)
    launches.run()
    entries = launches.entries()
    [cut] = [e for e in entries if e.status == Status.INTERRUPTED]
    assert cut.outcome is not None
    assert str(cut.outcome.reason).startswith("its process died while it ran: ")
    again = [e for e in entries if e.record.candidate_id == cut.record.candidate_id and e.counts]
    assert [e.record.deaths for e in again] == [1]
    counted = Counter(e.record.candidate_id for e in entries if e.counts)
    assert len(counted) == sum(counted.values()) == 6


def test_what_kills_each_worker_is_quarantined(cluster: Head, tmp_path: Path) -> None:
    launches = on(cluster, tmp_path, DIES, trials=4)
    launches.run()
    entries = launches.entries()
    poisoned = [e for e in entries if "recover" in e.record.candidate]
    assert poisoned
    assert len([e for e in entries if e.counts]) == 4
    by_candidate: dict[str, list[Status]] = {}
    for entry in poisoned:
        by_candidate.setdefault(entry.record.candidate_id, []).append(entry.status)
        if entry.status == Status.FAILED:
            assert entry.outcome is not None
            assert "quarantined: its process died 2 times" in str(entry.outcome.reason)
    assert all(each == [Status.INTERRUPTED, Status.FAILED] for each in by_candidate.values())


def test_what_hangs_fails_and_the_study_goes_on(cluster: Head, tmp_path: Path) -> None:
    launches = on(cluster, tmp_path, HANGS_ONCE, trials=5, engine='hang = "20s"')
    process = launches.begin()
    until((tmp_path / "for_ever").exists)
    code, text = ended(process)
    assert code == 0, text
    (tmp_path / "for_ever").unlink()
    failed = [e for e in launches.entries() if e.status == Status.FAILED]
    assert failed
    assert {e.outcome.reason for e in failed if e.outcome} == {"it gave no sign of life for 20s"}


@pytest.mark.parametrize("signals", [1, 2])
def test_ctrl_c_ends_it_and_a_launch_goes_on(cluster: Head, tmp_path: Path, signals: int) -> None:
    launches = on(cluster, tmp_path, SLOW, trials=8)
    process = launches.begin()
    until((tmp_path / "waiting").exists)
    process.send_signal(signal.SIGINT)
    assert process.stdout is not None
    while "ending after this trial" not in process.stdout.readline():
        pass
    if signals == 2:
        process.send_signal(signal.SIGINT)
    else:
        (tmp_path / "armed").unlink()
    _, text = ended(process)
    assert "The search ended: it was stopped." in text
    states = Counter(e.status for e in launches.entries())
    assert states[Status.RUNNING] == 0
    assert (states[Status.STOPPED] > 0) == (signals == 2)
    (tmp_path / "armed").unlink(missing_ok=True)
    launches.run()
    assert len([e for e in launches.entries() if e.counts]) == 8


def test_a_launch_that_is_killed_is_taken_up(tmp_path: Path) -> None:
    launches = Launches.of(tmp_path, SLOW, trials=6)
    process = launches.begin()
    until((tmp_path / "waiting").exists)
    members = psutil.Process(process.pid).children(recursive=True)
    assert any(member.name() == "raylet" for member in members)
    process.kill()
    process.communicate()
    # Ray's agents look for its head for a minute before they end.
    working = [member for member in members if not member.name().endswith("Agent")]
    _, alive = psutil.wait_procs(working, timeout=60)
    assert not alive
    (tmp_path / "armed").unlink()
    launches.run()
    entries = launches.entries()
    assert Status.INTERRUPTED in {e.status for e in entries}
    counted = Counter(e.record.candidate_id for e in entries if e.counts)
    assert len(counted) == sum(counted.values()) == 6


def test_a_cluster_that_comes_back_is_joined_again(tmp_path: Path) -> None:
    with tempfile.TemporaryDirectory(prefix="pf") as folder, head(Path(folder)) as first:
        launches = on(first, tmp_path, SLOW, trials=6)
        process = launches.begin()
        until((tmp_path / "waiting").exists)
        first.part("raylet").kill()
        until(lambda: any(e.status == Status.STOPPED for e in launches.entries()))
    (tmp_path / "armed").unlink()
    with tempfile.TemporaryDirectory(prefix="pf") as folder, head(Path(folder), like=first):
        code, text = ended(process)
    assert code == 0, text
    # Ray may end the process of the launch itself when another head answers, before it says more.
    again = r"Ray lost its cluster: .*; trying again in 1s|going on in a new process"
    assert re.search(again, text), text
    entries = launches.entries()
    left = [e for e in entries if e.status == Status.STOPPED]
    assert all("Ray lost its cluster" in str(e.outcome.reason) for e in left if e.outcome)
    assert not any(e.record.deaths for e in entries)
    counted = Counter(e.record.candidate_id for e in entries if e.counts)
    assert len(counted) == sum(counted.values()) == 6


def test_a_node_that_is_killed_costs_its_trial_a_repetition(tmp_path: Path) -> None:
    with (
        tempfile.TemporaryDirectory(prefix="pf") as folder,
        head(Path(folder), cpus=0) as started,
        node(started, Path(folder)),
        node(started, Path(folder)) as lost,
    ):
        launches = on(started, tmp_path, SLOW, trials=6)
        process = launches.begin()
        until(lambda: len(list(tmp_path.glob("waiting-*"))) == 2)  # one on each node
        lost.part("raylet").kill()
        until(lambda: any(e.status == Status.STOPPED for e in launches.entries()))
        (tmp_path / "armed").unlink()
        code, text = ended(process)
    assert code == 0, text
    entries = launches.entries()
    [cut] = [e for e in entries if e.status == Status.STOPPED]
    again = [e for e in entries if e.record.candidate_id == cut.record.candidate_id and e.counts]
    assert [e.record.deaths for e in again] == [0]
    counted = Counter(e.record.candidate_id for e in entries if e.counts)
    assert len(counted) == sum(counted.values()) == 6


def test_no_cluster_is_said(tmp_path: Path) -> None:
    launches = Launches.of(tmp_path)
    for address, message, expected in (
        ("ray://127.0.0.1:10001", "Ray's clients cannot lead a search", 2),
        ("127.0.0.1:1", "cannot join the Ray cluster '127.0.0.1:1'", 1),
    ):
        process = launches.begin("--address", address)
        code, text = ended(process)
        assert code == expected
        assert message in text
    gone = Launches(tmp_path, dict(launches.env) | {"RAY_ADDRESS": "127.0.0.1:1"})
    code, text = ended(gone.begin("--address", "auto"))
    assert code == 1
    assert "cannot join the Ray cluster 'auto': [Errno 111] Connection refused" in text
    process = launches.begin("--engine", "inline", "--address", "auto")
    code, text = ended(process)
    assert code == 2
    assert "the engine 'inline' has no use for 'address'; ray has" in text


def test_a_task_of_a_script_goes_to_the_workers(tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(
        "import parefront as pf\nfrom torch import nn\nfrom tests.tiny import make, model\n"
        "class Net(nn.Sequential):\n    pass\n"
        "def build(): return Net(*model())\n"
        "study = pf.Study(make(model=build), name='tiny', trials=3, settle=0.0,\n"
        "    target={'protocol': 'fixed'}, engine={'name': 'ray', 'workers': 1},\n"
        "    space={'quantize': {'method': 'static'}}, storage='sqlite:///here.db')\n"
        "print(study.optimize().frame()['state'].tolist())\n"
    )
    launches = Launches.of(tmp_path)
    told = subprocess.run(
        [sys.executable, script], cwd=tmp_path, env=dict(launches.env), text=True,
        capture_output=True, timeout=100,
    )  # fmt: skip
    assert told.returncode == 0, told.stderr
    assert "'complete', 'complete'" in told.stdout
