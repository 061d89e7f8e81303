"""Pauses while a device is away, with a clock that the test turns."""

from __future__ import annotations

import pytest

from parefront.search import pauses
from parefront.search.pauses import Pauses
from parefront.search.records import Outcome, Status

AWAY = Outcome(status=Status.STOPPED, reason="the device pi is away", device_away=True)


class Clock:
    now = 1000.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(pauses, "time", clock)
    return clock


def test_pauses_grow_while_the_device_is_away_and_end_when_it_is_back(clock: Clock) -> None:
    found = Pauses()
    assert found.left == 0
    lengths = []
    for _ in range(9):
        found.note(AWAY)
        lengths.append(found.left)
        clock.now += found.left
        assert found.left == 0
    assert lengths == [5, 10, 20, 40, 80, 160, 300, 300, 300]
    assert found.reason == AWAY.reason
    found.note(Outcome(status=Status.FAILED, reason="diverged"))
    assert found.left == 0
    found.note(AWAY)
    assert found.left == 5


def test_trials_that_were_under_way_together_make_one_pause(clock: Clock) -> None:
    found = Pauses()
    for _ in range(100):
        found.note(AWAY)
        clock.now += 0.01
    assert found.left == pytest.approx(4)


@pytest.mark.parametrize(("seconds", "too_long"), [(99, False), (101, True)])
def test_a_device_is_not_waited_for_for_ever(clock: Clock, seconds: float, too_long: bool) -> None:
    found = Pauses(longest=100)
    found.note(AWAY)
    clock.now += seconds
    found.note(AWAY)
    assert found.too_long is too_long
    found.note(Outcome(status=Status.COMPLETE))
    clock.now += seconds
    found.note(AWAY)
    assert found.left == 5
