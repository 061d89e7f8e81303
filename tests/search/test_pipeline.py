"""What a pipeline asks before and while it trains, on a tiny model with real exports."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from parefront.errors import DeviceAwayError, StageError
from parefront.objectives.measurement import Measurement
from parefront.objectives.targets.fixed import FixedDevice
from parefront.search.pipeline import Interrupted, Pipeline
from parefront.search.records import Outcome, Rung, Status
from parefront.search.stage_cache import StageCache
from parefront.spaces.space import Candidate
from tests.search.pipelines import pipeline
from tests.tiny import make

SPACE: dict[str, dict[str, Any]] = {
    "prune": {"ratio": [0.1, 0.9]},
    "recover": {"epochs": 2},
    "quantize": {"calibration": "minmax"},
}


class Asked:
    """Notes what it is asked, and answers as it was told to."""

    def __init__(
        self, *, gates: bool = True, rungs: tuple[float, ...] = (0.25, 0.5), stop: float = 1.0
    ) -> None:
        self.gates, self.rungs, self._stop = gates, rungs, stop
        self.reason: str | None = None
        self.known: list[set[str]] = []
        self.latest: dict[str, Measurement] = {}
        self.judged: list[tuple[float, Mapping[str, float]]] = []

    def hopeless(self, candidate: Candidate, known: Mapping[str, Measurement]) -> str | None:
        self.known.append(set(known))
        self.latest = dict(known)
        return self.reason

    def judge(self, share: float, values: Mapping[str, float]) -> Rung:
        self.judged.append((share, dict(values)))
        return Rung(share=share, values=values, rivals=7, promoted=share < self._stop)


@pytest.fixture(scope="module")
def ready(tmp_path_factory: pytest.TempPathFactory) -> Pipeline:
    return pipeline(tmp_path_factory.mktemp("pipeline"), make(), SPACE)


def pruned(of: Pipeline) -> Candidate:
    return of.builder.space.completed(
        {stage.name: stage.anchors()[0] for stage in of.builder.space.stages}
    )


def evaluate(of: Pipeline, checks: Asked | None) -> Outcome:
    return of.evaluate(pruned(of), lambda: None, checks)


def test_what_needs_no_device_is_asked_about_first(ready: Pipeline) -> None:
    checks = Asked()
    outcome = evaluate(ready, checks)
    assert outcome.status == Status.COMPLETE
    assert checks.known == [{"size"}, {"size", "latency"}]


def test_what_is_hopeless_is_not_trained(ready: Pipeline, trainings: list[str]) -> None:
    checks = Asked()
    checks.reason = "others are better"
    outcome = evaluate(ready, checks)
    assert (outcome.status, outcome.reason) == (Status.GATED, "others are better")
    assert trainings == []
    assert set(outcome.measurements) == {"size"}
    assert outcome.artifact_sha256 is None


@pytest.mark.parametrize(("begun", "status"), [(False, Status.STOPPED), (True, Status.INTERRUPTED)])
def test_a_trial_whose_device_is_away_is_given_back(
    ready: Pipeline, begun: bool, status: Status, monkeypatch: pytest.MonkeyPatch
) -> None:
    def away(*_: object, **__: object) -> None:
        raise DeviceAwayError("the device did not answer", begun=begun)

    monkeypatch.setattr(FixedDevice, "time", away)
    outcome = evaluate(ready, None)
    assert (outcome.status, outcome.reason) == (status, "the device did not answer")
    assert outcome.device_away


def test_what_was_measured_untrained_is_what_the_trained_file_has(ready: Pipeline) -> None:
    checks = Asked()
    outcome = evaluate(ready, checks)
    (_, values), *_ = checks.judged
    for name in ("size", "latency"):
        assert values[name] == outcome.measurements[name].value


def test_training_may_change_how_well_weights_pack(tmp_path: Path) -> None:
    space: dict[str, dict[str, Any]] = {
        "round": {"levels": "ternary", "ends": True},
        "recover": {"epochs": 2, "learning_rate": 0.01},
    }
    of, asked = pipeline(tmp_path, make(), space), Asked(rungs=())
    outcome = evaluate(of, asked)
    before, after = asked.latest["size"], outcome.measurements["size"]
    assert before.low == pytest.approx(0.8 * before.value)
    assert before.high == pytest.approx(1.2 * before.value)
    assert before.low < after.value < before.high
    assert after.low == after.value == after.high


def test_the_rungs_see_accuracy_and_what_is_cheap(ready: Pipeline) -> None:
    checks = Asked()
    outcome = evaluate(ready, checks)
    assert [share for share, _ in checks.judged] == [0.25, 0.5]
    assert [rung.share for rung in outcome.rungs] == [0.25, 0.5]
    for _, values in checks.judged:
        assert set(values) == {"accuracy", "latency", "size"}
        assert 0 < values["accuracy"] <= 1


def test_what_falls_behind_ends_at_its_rung(ready: Pipeline) -> None:
    checks = Asked(stop=0.5)
    outcome = evaluate(ready, checks)
    assert outcome.status == Status.EARLY_STOPPED
    assert outcome.reason == (
        "stopped after 50% of its training: of 8 trials that came so far, enough others were ahead"
    )
    assert [rung.promoted for rung in outcome.rungs] == [True, False]
    assert set(outcome.measurements) == {"latency", "size"}
    assert outcome.artifact_sha256 is None


def test_rungs_change_nothing_in_what_is_made(ready: Pipeline) -> None:
    assert evaluate(ready, Asked()).artifact_sha256 == evaluate(ready, None).artifact_sha256


def test_without_checks_only_bounds_are_looked_at(tmp_path: Path, trainings: list[str]) -> None:
    bounded = pipeline(tmp_path, make(), SPACE, objectives={"size": {"at_most": 100.0}})
    outcome = evaluate(bounded, None)
    assert outcome.status == Status.INFEASIBLE
    assert outcome.reason == "breaks the bound on size before training"
    assert trainings == []


def test_what_trains_nothing_is_not_asked_about(ready: Pipeline) -> None:
    checks = Asked()
    checks.reason = "others are better"
    assert ready.evaluate(Candidate(), lambda: None, checks).status == Status.COMPLETE
    assert checks.known == []


class TestCache:
    @pytest.fixture
    def kept(self, tmp_path: Path) -> Pipeline:
        cache = StageCache(tmp_path / "cache", keys=tmp_path / "keys")
        return pipeline(tmp_path, make(), SPACE, cache=cache)

    def test_a_repeated_training_is_judged_by_what_it_was_worth(
        self, kept: Pipeline, trainings: list[str]
    ) -> None:
        first, again = Asked(), Asked()
        evaluate(kept, first)
        assert len(trainings) == 1
        outcome = evaluate(kept, again)
        assert len(trainings) == 1
        assert again.judged == first.judged
        assert again.known == first.known
        assert outcome.status == Status.COMPLETE

    def test_one_that_was_stopped_is_stopped_again_without_training(
        self, kept: Pipeline, trainings: list[str]
    ) -> None:
        first, again = Asked(stop=0.5), Asked(stop=0.5)
        evaluate(kept, first)
        outcome = evaluate(kept, again)
        assert outcome.status == Status.EARLY_STOPPED
        assert len(trainings) == 1
        assert again.judged == first.judged

    def test_one_that_was_stopped_goes_on_when_it_is_promoted_now(
        self, kept: Pipeline, trainings: list[str]
    ) -> None:
        evaluate(kept, Asked(stop=0.25))
        further = Asked()
        outcome = evaluate(kept, further)
        assert outcome.status == Status.COMPLETE
        assert len(trainings) == 2
        assert [share for share, _ in further.judged] == [0.25, 0.5]


class TestLook:
    def test_it_is_what_the_trained_file_has(self, ready: Pipeline, trainings: list[str]) -> None:
        found = ready.look(pruned(ready))
        assert set(found) == {"size"}
        assert trainings == []
        assert found["size"].value == evaluate(ready, None).measurements["size"].value

    def test_what_cannot_be_built_says_so(
        self, ready: Pipeline, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def broken(*_: object, **__: object) -> None:
            raise ZeroDivisionError("no channels")

        stage = next(s for s in ready.builder.space.stages if s.name == "prune")
        monkeypatch.setattr(type(stage), "apply", broken)
        with pytest.raises(StageError, match="ZeroDivisionError: no channels"):
            ready.look(pruned(ready))


def test_a_stop_while_it_is_measured_untrained_is_a_stop(ready: Pipeline) -> None:
    def stop() -> None:
        raise Interrupted

    with pytest.raises(Interrupted):
        ready.evaluate(pruned(ready), stop, Asked())
