"""What a study measures, from what its file says."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from parefront.errors import MeasurementError, StudyFileError
from parefront.objectives.artifact import Artifact
from parefront.objectives.catalog import ALL
from parefront.objectives.measurement import Direction
from parefront.search.goal import Goal
from parefront.search.measures import Measure, measures
from parefront.search.study_file import StudyFile

CORE = ["accuracy", "latency", "size"]


def named(goals: dict[str, Goal], targets: tuple[str, ...] = ()) -> dict[str, Measure]:
    return {each.name: each for each in measures(goals, targets)}


def test_accuracy_latency_and_size_are_always_measured() -> None:
    found = named({"size": Goal(at_most=1e6)})
    assert list(found) == CORE
    assert [each.goal.optimize for each in found.values()] == [False, False, True]
    assert found["size"].goal.at_most == 1e6
    assert not found["latency"].goal.bounded


def test_what_is_named_is_measured_optimised_or_not() -> None:
    found = named({"latency": Goal(), "memory": Goal(at_most=5e7, optimize=False)})
    assert list(found) == [*CORE, "memory"]
    assert found["memory"].goal.bounded
    assert not found["memory"].goal.optimize
    assert found["memory"].column == "peak_memory_bytes"


def test_on_every_target_is_measured_what_belongs_to_a_device() -> None:
    goals = {"accuracy": Goal(), "latency": Goal(at_most=2.0), "memory_pi": Goal(optimize=False)}
    found = named(goals, ("ov", "pi"))
    assert list(found) == [*CORE, "latency_ov", "latency_pi", "memory_pi"]
    assert found["latency_pi"].target == "pi"
    assert found["latency_pi"].column == "latency_ms_pi"
    assert found["latency_pi"].goal.optimize
    assert not found["latency_pi"].goal.bounded  # the main target's limit is its own
    assert {each.target for each in found.values()} == {None, "ov", "pi"}


@pytest.mark.parametrize("goal", [{"at_most": 1}, {"optimize": False}])
def test_one_target_may_have_a_goal_of_its_own(goal: dict[str, Any]) -> None:
    found = named({"latency": Goal(), "latency_pi": Goal(**goal)}, ("pi",))
    assert found["latency_pi"].goal == Goal(**goal)


@pytest.mark.parametrize(
    ("goals", "message"),
    [
        ({"latencyy": Goal()}, "has no 'latencyy'; did you mean 'latency'?"),
        ({"zzz": Goal()}, "has no 'zzz'; known are accuracy, latency, size, "),
        ({"latency_pi": Goal()}, "has no 'latency_pi'; did you mean"),
        ({"latency": Goal(optimize=False)}, "optimises nothing"),
    ],
)
def test_what_cannot_be_measured_is_refused(goals: dict[str, Goal], message: str) -> None:
    with pytest.raises(StudyFileError, match=message.replace("?", r"\?")):
        measures(goals, [])


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"function": "m.py:f"}, "needs direction"),
        ({"direction": "minimize"}, "belong to an objective with its own function"),
        ({"noisy": True}, "belong to an objective with its own function"),
        ({"unit": "s"}, "belong to an objective with its own function"),
        ({"at_least": 2, "at_most": 1}, "at_least <= at_most"),
    ],
)
def test_a_goal_that_says_too_little_or_too_much(content: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        Goal.model_validate(content)


def own(tmp_path: Path, source: str) -> Measure:
    (tmp_path / "mine.py").write_text(source)
    goals = {"ones": Goal(function="mine.py:ones", direction=Direction.MAXIMIZE, unit="bit")}
    *_, last = measures(goals, [], tmp_path)
    return last


def test_an_objective_of_ones_own(tmp_path: Path) -> None:
    measure = own(tmp_path, "def ones(path):\n    return path.read_bytes().count(b'1')\n")
    assert (measure.name, measure.column) == ("ones", "ones_bit")
    assert measure.direction(Direction.MINIMIZE) is Direction.MAXIMIZE
    (tmp_path / "a.bin").write_bytes(b"10110")
    artifact = Artifact.of(tmp_path / "a.bin", "bin")
    found = measure.objective.measure(artifact, None)  # type: ignore[arg-type]
    assert (found.value, found.unit) == (3.0, "bit")


def test_an_objective_of_ones_own_that_is_not_there(tmp_path: Path) -> None:
    measure = own(tmp_path, "one = 1\n")
    artifact = Artifact.of(tmp_path / "mine.py", "py")
    with pytest.raises(MeasurementError, match="has no 'ones'; did you mean 'one'"):
        measure.objective.measure(artifact, None)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("name", "targets", "message"),
    [
        ("trial", [], "two columns 'trial'"),
        ("latency_ms_pi", ["pi"], "two columns 'latency_ms_pi'"),
        ("mine", ["low"], "two columns 'latency_ms_low'"),
        ("size_bytes_high", [], "two columns 'size_bytes_high'"),
        ("speedup_pi", ["pi"], "two columns 'speedup_pi'"),
    ],
)
def test_a_name_that_is_taken_is_refused(name: str, targets: list[str], message: str) -> None:
    goal = Goal(function="mine.py:f", direction=Direction.MINIMIZE)
    with pytest.raises(StudyFileError, match=message):
        measures({"latency": Goal(), name: goal}, targets)


def test_the_manual_names_every_objective() -> None:
    text = StudyFile.model_fields["objectives"].description or ""
    for objective in ALL:
        assert objective.name in text
        assert objective.column in text
