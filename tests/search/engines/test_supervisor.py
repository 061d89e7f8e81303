"""What the supervisor makes of what a process tells, with processes that only tell."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from parefront.errors import EngineError, StudyFileError, TaskError
from parefront.objectives.measurement import Measurement
from parefront.search.engines import supervisor
from parefront.search.engines.messages import (
    End,
    Ended,
    Failure,
    Message,
    Phase,
    message_of,
)
from parefront.search.engines.supervisor import Supervisor
from parefront.search.launch import Stop
from parefront.search.plan import Plan
from parefront.search.records import Outcome, Owner, Status
from tests.search.engines.studies import Told, study
from tests.tiny import make

AWAY = Failure(type="EngineError", message="the cluster is away", again=True)


class Teller:
    """A process that tells its messages and ends."""

    def __init__(self, *messages: Message) -> None:
        self.owner = Owner.me()
        self._left = list(messages)

    def messages(self, seconds: float) -> list[Message]:
        told, self._left = self._left, []
        return told

    def ended(self, seconds: float = 0.0) -> bool:
        return not self._left

    def tell(self, word: bytes) -> None:
        pass

    def kill(self) -> None:
        pass

    def close(self) -> None:
        pass


def supervised(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    messages: Iterator[Message],
    told: Told,
    *,
    entered: bool = True,
) -> str:
    """What comes of processes that tell a message each, the first after it began something."""
    first = [Phase(text="searching")] if entered else []

    def process(plan: Plan) -> Teller:
        before = [first.pop()] if first else []
        return Teller(*before, next(messages))

    monkeypatch.setattr(supervisor, "ChildProcess", process)
    monkeypatch.setattr(supervisor, "AGAIN", (0.01, 0.02, 0.03))
    given = study(tmp_path, make(), "process")
    plan = Plan(
        settings=given.settings, url=given.storage, task=make(), base=None, budget=given.budget()
    )
    return Supervisor(plan, told, Stop()).run()


def test_an_engine_that_is_away_is_tried_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    told = Told()
    messages: Iterator[Message] = iter([AWAY, AWAY, End(reason="it is over")])
    assert supervised(tmp_path, monkeypatch, messages, told) == "it is over"
    assert len(told.phases) == 3
    assert told.phases[1].startswith("the cluster is away; trying again in ")


def test_an_engine_that_stays_away_ends_the_launch(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    told = Told()
    with pytest.raises(EngineError, match="the cluster is away"):
        supervised(tmp_path, monkeypatch, iter([AWAY] * 4), told)
    assert len(told.phases) == 4


def test_an_engine_that_never_was_there_ends_the_launch_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    told = Told()
    with pytest.raises(EngineError, match="the cluster is away"):
        supervised(tmp_path, monkeypatch, iter([AWAY]), told, entered=False)
    assert not told.phases


@pytest.mark.parametrize("kind", [TaskError, StudyFileError, EngineError])
def test_an_error_is_raised_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: type[Exception]
) -> None:
    failure = Failure(type=kind.__name__, message="this is why")
    with pytest.raises(kind, match="^this is why$"):
        supervised(tmp_path, monkeypatch, iter([failure]), Told())


def test_what_is_no_error_of_parefront_is_told_with_its_trace(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    failure = Failure(type="KeyError", message="'x'", trace="Traceback: here")
    with pytest.raises(EngineError, match=r"failed by KeyError: 'x'\nTraceback: here"):
        supervised(tmp_path, monkeypatch, iter([failure]), Told())


def test_outcomes_come_over_as_they_are() -> None:
    value = Measurement.exact(1 / 3, "ms", "made up")
    outcome = Outcome(
        status=Status.COMPLETE,
        measurements={"latency": value},
        violations={"latency": float("inf")},
        achieved={"prune": {"layers": [1, 2], "share": 0.1}},
    )
    told = Ended(trial=3, outcome=outcome)
    assert message_of(told.line()) == told
