"""Launches on Ray whose targets are timed: here, apart from training, and by an agent."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

import parefront as pf
from parefront.search.launch import Silent
from parefront.search.records import Outcome
from tests.objectives.agent.process import AgentProcess

pytest.importorskip("ray")

pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]

QUICK = {"runs": 20, "seconds": 0.2}


class Away(Silent):
    """Takes an agent away after two trials, and brings it back when the launch waits for it."""

    def __init__(self, agent: AgentProcess) -> None:
        self._agent = agent
        self._left = 2

    def ended(self, trial: int, outcome: Outcome) -> None:
        self._left -= 1
        if self._left == 0:
            self._agent.kill()

    def phase(self, text: str) -> None:
        if text.startswith("waiting"):
            self._agent.start()


def test_no_trial_is_lost_to_an_agent_that_goes_away(tmp_path: Path) -> None:
    agent, cores = AgentProcess(tmp_path / "agent"), os.sched_getaffinity(0)
    try:
        there = {"device": agent.url, "token_file": str(agent.token_file), "patience": 0.5}
        study = pf.Study(
            "tests/tiny.py:task",
            name="tiny",
            target=QUICK,
            targets={"pi": there | QUICK},
            space={"prune": {"ratio": [0.1, 0.6]}, "recover": {"epochs": 1}},
            engine={"name": "ray", "workers": 1},
            settle=0,
            storage=f"sqlite:///{tmp_path}/studies.db",
        ).optimize(trials=4, progress=Away(agent))
    finally:
        if agent.process.poll() is None:
            agent.stop()
    frame = study.frame()
    assert frame["state"].tolist() == ["complete"] * 2 + ["interrupted"] + ["complete"] * 2
    assert "did not answer for 0.5 s" in frame["reason"].iloc[2]
    assert frame[["latency_ms", "latency_ms_pi"]].iloc[[0, 1, 3, 4]].gt(0).all(axis=None)
    assert os.sched_getaffinity(0) == cores
