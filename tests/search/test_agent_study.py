"""A search that measures on this machine and on an agent's, which comes and goes."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import parefront as pf
from parefront.errors import TokenError
from parefront.search.launch import Silent
from parefront.search.records import Outcome
from tests.objectives.agent.process import AgentProcess
from tests.tiny import make

pytestmark = pytest.mark.slow
QUICK = {"runs": 20, "seconds": 0.2}


@pytest.fixture
def agent(tmp_path: Path) -> Iterator[AgentProcess]:
    running = AgentProcess(tmp_path / "agent")
    try:
        yield running
    finally:
        if running.process.poll() is None:
            running.stop()


def study(folder: Path, agent: AgentProcess, **changes: Any) -> pf.Study:
    there = {"device": agent.url, "token_file": str(agent.token_file), "patience": 60, **QUICK}
    return pf.Study(
        make(),
        name="tiny",
        target=QUICK,
        targets={"pi": there | changes},
        space={"prune": {"ratio": [0.1, 0.6]}, "recover": {"epochs": 1}},
        settle=0,
        storage=f"sqlite:///{folder}/studies.db",
    )


class AfterTrials(Silent):
    """Does something when some trials are over."""

    def __init__(self, count: int, action: Any) -> None:
        self._left = count
        self._action = action

    def ended(self, trial: int, outcome: Outcome) -> None:
        self._left -= 1
        if self._left == 0:
            self._action()


def test_a_study_waits_for_an_agent_that_is_restarted(tmp_path: Path, agent: AgentProcess) -> None:
    def restart() -> None:
        agent.kill()
        timer.start()

    timer = threading.Timer(2.0, agent.start)
    found = study(tmp_path, agent).optimize(trials=5, progress=AfterTrials(2, restart))
    timer.join()
    frame = found.frame()
    assert frame["state"].tolist() == ["complete"] * 5
    assert frame["latency_ms_pi"].gt(0).all()
    assert len(found.front()) >= 1
    assert len(found.front("pi")) >= 1
    trained = [entry for entry in found.opened().entries() if "recover" in entry.record.candidate]
    assert all(e.outcome is not None and "train" in e.outcome.seconds for e in trained)


def test_no_trial_is_lost_to_an_agent_that_stays_away(tmp_path: Path, agent: AgentProcess) -> None:
    said: list[str] = []

    class Away(AfterTrials):
        def phase(self, text: str) -> None:
            said.append(text)
            if text.startswith("waiting"):
                agent.start()

    found = study(tmp_path, agent, patience=0.5).optimize(trials=4, progress=Away(2, agent.kill))
    frame = found.frame()
    assert frame["state"].tolist() == ["complete"] * 2 + ["interrupted"] + ["complete"] * 2
    assert "did not answer for 0.5 s" in frame["reason"].iloc[2]
    assert frame["candidate_id"].iloc[2] == frame["candidate_id"].iloc[3]
    assert any("waiting 5 s, for the agent at" in text for text in said)


def test_a_launch_that_waits_for_an_agent_can_be_stopped(
    tmp_path: Path, agent: AgentProcess
) -> None:
    class Impatient(AfterTrials):
        def phase(self, text: str) -> None:
            if text.startswith("waiting"):
                found.stop()

    found = study(tmp_path, agent, patience=0.5)
    found.optimize(trials=4, progress=Impatient(2, agent.kill))
    assert found.ended == "it was stopped"
    assert found.frame()["state"].tolist() == ["complete"] * 2 + ["interrupted"]
    agent.start()
    again = study(tmp_path, agent, patience=0.5).optimize(trials=4)
    assert again.frame()["state"].eq("complete").sum() == 4


def test_a_wrong_token_ends_the_study_at_once(tmp_path: Path, agent: AgentProcess) -> None:
    wrong = tmp_path / "wrong"
    wrong.write_text("not-the-token-but-long-enough")
    wrong.chmod(0o600)
    with pytest.raises(TokenError):
        study(tmp_path, agent, token_file=str(wrong)).optimize(trials=1)
