"""Measuring again after the search, on a study whose device says what it is told to."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import parefront as pf
from parefront.errors import MeasurementError, UsageError
from parefront.objectives.targets.device import Effort, Timing
from parefront.objectives.targets.fixed import FixedDevice
from parefront.objectives.targets.runtime import Feeds
from parefront.objectives.targets.target import Target
from parefront.search.frame import Which
from parefront.search.launch import Silent
from parefront.search.settle import gains
from tests.tiny import make

WIDE, FINE = 0.9, 0.001
"""Half-widths of the ratios' intervals, the first time and with more effort."""


class Vague(FixedDevice):
    """Knows ratios roughly, and exactly when it is given three times as long."""

    def __init__(self, failing: bool = False) -> None:
        self.failing = failing
        self.efforts: list[Effort] = []

    def time(
        self,
        candidate: Path,
        baseline: Path,
        feeds: Feeds,
        *,
        runtime: str,
        threads: int,
        effort: Effort,
    ) -> Timing:
        self.efforts.append(effort)
        fine = effort.precision < 0.02
        if fine and self.failing:
            raise MeasurementError("not now")
        found = super().time(
            candidate, baseline, feeds, runtime=runtime, threads=threads, effort=effort
        )
        half = found.ratio * (FINE if fine else WIDE)
        return replace(found, ratio_low=found.ratio - half, ratio_high=found.ratio + half)


@pytest.fixture
def device(monkeypatch: pytest.MonkeyPatch) -> Vague:
    found = Vague()
    monkeypatch.setattr(Target, "open", lambda self: found)
    return found


def study(folder: Path, **changes: Any) -> pf.Study:
    parts: dict[str, Any] = {
        "name": "tiny",
        "trials": 20,  # enough that some beat others by less than the noise
        "objectives": ["accuracy", "latency"],
        "space": {"prune": {"ratio": [0.1, 0.6]}, "recover": {"epochs": 1}},
        "settle": 60,
        "storage": f"sqlite:///{folder}/studies.db",
    }
    return pf.Study(make(), **(parts | changes))


class Phases(Silent):
    def __init__(self, action: Callable[[], None] = lambda: None) -> None:
        self.again: list[str] = []
        self._action = action

    def phase(self, text: str) -> None:
        if "again" in text:
            self.again.append(text)
            self._action()


def test_what_noise_left_undecided_is_settled(tmp_path: Path, device: Vague) -> None:
    before = study(tmp_path, settle=0).optimize()
    objectives = before.summary().objectives
    worth_it = gains(before.frame(), objectives, {"latency"})
    assert len(worth_it) > 2
    phases = Phases()
    found = study(tmp_path).optimize(progress=phases)
    after = found.front()
    assert int(phases.again[0].split()[2]) == next(iter(worth_it))
    # What is left is not beaten even by the values.
    values = after[["accuracy", "latency_ms"]].to_numpy()
    for mine in values:
        assert not any(other[0] >= mine[0] and other[1] < mine[1] for other in values)
    again = found.opened().measured_again
    assert set(again) == {int(text.split()[2]) for text in phases.again}
    # What is still open is so in accuracy, or a tie.
    assert set(gains(found.frame(), objectives, {"latency"})) <= set(again)
    for trial, measurements in again.items():
        row = found.frame().set_index("trial").loc[trial]
        assert row["latency_ms_high"] == measurements["latency"].high
        assert measurements["latency"].high / measurements["latency"].value < 1 + 2 * FINE


def test_a_front_is_certain_on_or_possible(tmp_path: Path, device: Vague) -> None:
    found = study(tmp_path, settle=0).optimize()
    parts: list[Which] = ["certain", "on", "possible"]
    certain, on, possible = (set(found.front(which=part)["trial"]) for part in parts)
    assert certain <= on <= possible
    assert certain != possible
    with pytest.raises(UsageError, match="expected one of on, certain, possible .* got 'sure'"):
        found.front(which="sure")  # type: ignore[arg-type]


def test_launching_again_measures_nothing_twice(tmp_path: Path, device: Vague) -> None:
    study(tmp_path).optimize()
    phases = Phases()
    study(tmp_path).optimize(progress=phases)
    assert phases.again == []


def test_what_cannot_be_measured_again_stands_and_is_tried_at_the_next_launch(
    tmp_path: Path, device: Vague
) -> None:
    device.failing = True
    first = Phases()
    found = study(tmp_path).optimize(progress=first)
    assert first.again
    assert found.opened().measured_again == {}
    device.failing = False
    second = Phases()
    study(tmp_path).optimize(progress=second)
    assert second.again
    assert found.opened().optuna_study.user_attrs


def test_a_stop_ends_settling(tmp_path: Path, device: Vague) -> None:
    found = study(tmp_path)
    phases = Phases(lambda: found.stop())
    found.optimize(progress=phases)
    assert len(phases.again) == 1


def test_a_bound_is_judged_by_what_was_measured_last(tmp_path: Path, device: Vague) -> None:
    goals = {"accuracy": {}, "latency": {"at_most": 1000.0}}
    found = study(tmp_path, objectives=goals).optimize()
    again = found.opened().measured_again
    assert again
    entries = {entry.trial.number: entry for entry in found.opened().entries()}
    for trial, measurements in again.items():
        outcome = entries[trial].outcome
        assert outcome is not None
        assert outcome.violations["latency"] == measurements["latency"].value - 1000.0


def test_more_effort_has_an_end(tmp_path: Path, device: Vague) -> None:
    study(tmp_path, target={"seconds": 100.0}).optimize()
    again = [effort for effort in device.efforts if effort.precision < 0.02]
    assert {effort.seconds for effort in again} == {120.0}
    assert min(effort.precision for effort in device.efforts) == pytest.approx(0.02 / 3)
