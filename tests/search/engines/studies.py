"""Small studies whose trials are the same wherever they run."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd

import parefront as pf
from parefront.search.launch import Silent
from parefront.search.records import Outcome
from parefront.spaces.space import Candidate

SPACE: dict[str, dict[str, Any]] = {
    "prune": {"ratio": [0.1, 0.6], "importance": "l2", "scope": "uniform"},
    "recover": {"epochs": [1, 2], "learning_rate": 4e-3, "soft_weight": 0.5, "temperature": 4.0},
}
START = [
    {"recover": {"epochs": 1}},
    {"prune": {"ratio": 0.5}, "recover": {"epochs": 1}},
    {"recover": {"epochs": 2}},
]
"""Not fragile, fragile, not fragile."""
SAME = ["candidate_id", "state", "accuracy", "latency_ms", "size_bytes", "artifact_sha256"]
"""Columns that do not depend on when and where a trial ran."""


def study(folder: Path, task: pf.Task | str, engine: Any, **changes: Any) -> pf.Study:
    folder.mkdir(exist_ok=True)
    parts: dict[str, Any] = {
        "name": "tiny",
        "trials": 4,
        "target": {"protocol": "fixed"},
        "space": SPACE,
        "start": START,
        "settle": 0,
        "gate": False,
        "early_stop": False,
        "storage": f"sqlite:///{folder}/studies.db",
    }
    return pf.Study(task, engine=engine, **(parts | changes))


def counted(found: pf.Study) -> pd.DataFrame:
    """The trials that count."""
    frame = found.frame()
    return frame[frame["state"] != "interrupted"].reset_index(drop=True)


class Told(Silent):
    """Notes what it is told, and acts on it.

    Args:
        ended: Called with how many trials have ended.
        began: Called with a candidate that begins.
    """

    def __init__(
        self,
        ended: Callable[[int], None] | None = None,
        began: Callable[[Candidate], None] | None = None,
    ) -> None:
        self.phases: list[str] = []
        self.outcomes: list[tuple[int, Outcome]] = []
        self._ended = ended
        self._began = began

    def phase(self, text: str) -> None:
        self.phases.append(text)

    def began(self, trial: int, candidate: Candidate) -> None:
        if self._began is not None:
            self._began(candidate)

    def ended(self, trial: int, outcome: Outcome) -> None:
        self.outcomes.append((trial, outcome))
        if self._ended is not None:
            self._ended(len(self.outcomes))


def soon(action: Callable[[], None], seconds: float = 1.0) -> None:
    """Does something in a while."""
    timer = threading.Timer(seconds, action)
    timer.daemon = True
    timer.start()
