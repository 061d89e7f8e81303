"""The live display, on a terminal and in a log."""

from __future__ import annotations

from io import StringIO
from pathlib import Path

import pytest
from rich.console import Console

import parefront as pf
from parefront.live import LiveDisplay
from parefront.search.records import Outcome, Status
from tests.tiny import make


@pytest.mark.parametrize("terminal", [True, False])
def test_a_launch_shows_what_it_does(tmp_path: Path, terminal: bool) -> None:
    study = pf.Study(
        make(),
        name="tiny",
        trials=3,
        time="5m",
        target={"protocol": "fixed"},
        space={"prune": {}, "recover": {"epochs": 1}},
        storage=f"sqlite:///{tmp_path}/studies.db",
    )
    written = StringIO()
    console = Console(file=written, force_terminal=terminal, width=120)
    with LiveDisplay(study, study.budget(), console) as display:
        study.optimize(progress=display)
    text = written.getvalue()
    assert "training the baseline" in text
    if terminal:
        for shown in ("front: ", "knee: trial", "3/3", "left", "prune(0."):
            assert shown in text
    else:
        lines = [line for line in text.splitlines() if line.startswith("trial ")]
        assert len(lines) == 3
        assert all("accuracy" in line and "latency" in line for line in lines)


@pytest.mark.parametrize("terminal", [True, False])
def test_brackets_in_a_reason_are_text(tmp_path: Path, terminal: bool) -> None:
    reason = "shapes [128] and [/closed] differ [red]x"
    study = pf.Study(make(), name="tiny", storage=f"sqlite:///{tmp_path}/studies.db")
    written = StringIO()
    console = Console(file=written, force_terminal=terminal, width=120)
    with LiveDisplay(study, study.budget(), console) as display:
        display.phase(reason)
        if not terminal:
            display.ended(3, Outcome(status=Status.FAILED, reason=reason))
    assert reason in written.getvalue()
    assert terminal or f"trial   3  failed: {reason}" in written.getvalue()
