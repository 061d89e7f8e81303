"""Objectives that users make of functions."""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest

from parefront.errors import MeasurementError, UsageError
from parefront.objectives.artifact import Artifact
from parefront.objectives.catalog import ALL
from parefront.objectives.custom import FunctionObjective
from parefront.objectives.measurement import Direction, Measurement
from parefront.objectives.objective import Objective, Scene

NOWHERE = cast(Scene, None)
"""Nothing of the scene is used."""


@pytest.fixture
def artifact(tmp_path: Path) -> Artifact:
    (tmp_path / "m.onnx").write_bytes(b"x" * 8192)
    return Artifact.of(tmp_path / "m.onnx", "onnx")


def pages(path: Path) -> float:
    return path.stat().st_size / 4096


def test_a_function_of_the_file_is_an_objective(artifact: Artifact) -> None:
    objective: Objective = FunctionObjective("flash", pages, "pages", dear=False, log=True)
    assert (objective.name, objective.column, objective.unit) == ("flash", "flash_pages", "pages")
    assert (objective.dear, objective.noisy, objective.log) == (False, False, True)
    assert not objective.on_device
    assert objective.measure(artifact, NOWHERE) == Measurement.exact(
        2.0, "pages", "the user's function"
    )


@pytest.mark.parametrize("metric", Direction)
@pytest.mark.parametrize("direction", ["maximize", Direction.MINIMIZE])
def test_the_direction_is_its_own(direction: Any, metric: Direction) -> None:
    assert FunctionObjective("flash", pages, direction=direction).direction(metric) == direction


@pytest.mark.parametrize(
    ("unit", "column"), [("", "x1"), ("MB", "x1_MB"), ("%", "x1"), ("/s", "x1"), ("µs", "x1")]
)
def test_the_column_is_the_name_and_a_plain_unit(unit: str, column: str) -> None:
    assert FunctionObjective("x1", pages, unit).column == column


@pytest.mark.parametrize("name", ["", "two words", "1st", "a-b", "lambda", "größe", "a.b"])
def test_a_name_must_be_an_identifier(name: str) -> None:
    with pytest.raises(UsageError, match=f"to be an identifier .* got '{name}'"):
        FunctionObjective(name, pages)


@pytest.mark.parametrize("objective", ALL, ids=[each.name for each in ALL])
def test_a_name_must_not_be_taken(objective: Objective) -> None:
    for name in {objective.name, objective.column}:
        with pytest.raises(UsageError, match=f"that no objective has, got '{name}'"):
            FunctionObjective(name, pages)


def test_a_column_must_not_be_taken() -> None:
    with pytest.raises(UsageError, match="got 'load': 'load_ms' is one of parefront's own"):
        FunctionObjective("load", pages, "ms")


def test_what_is_no_function_or_direction_is_refused() -> None:
    with pytest.raises(UsageError, match="a function of a path for the objective 'x', got int"):
        FunctionObjective("x", cast(Any, 3))
    with pytest.raises(UsageError, match="'x' to be 'minimize' or 'maximize', got 'up'"):
        FunctionObjective("x", pages, direction="up")


@pytest.mark.parametrize("value", [3, 2.5, np.float32(2.5), np.int64(3), np.float64(1)])
def test_any_real_number_is_a_value(value: Any, artifact: Artifact) -> None:
    found = FunctionObjective("x", lambda path: value).measure(artifact, NOWHERE)
    assert found.low == found.value == found.high == float(value)
    assert Measurement.model_validate_json(found.model_dump_json()) == found


def test_a_measurement_keeps_its_interval(artifact: Artifact) -> None:
    answer = Measurement(value=2.0, low=1.0, high=4.0, unit="V", protocol="meter")
    assert FunctionObjective("x", lambda path: answer, "V").measure(artifact, NOWHERE) is answer
    with pytest.raises(MeasurementError, match="x: expected a measurement in the unit 'mV', got"):
        FunctionObjective("x", lambda path: answer, "mV").measure(artifact, NOWHERE)


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (float("nan"), "x: expected a finite number, got nan"),
        (float("inf"), "x: expected a finite number, got inf"),
        (None, "to return a number or a Measurement, got NoneType"),
        ("3", "to return a number or a Measurement, got str"),
        (True, "to return a number or a Measurement, got bool"),
        (1j, "to return a number or a Measurement, got complex"),
        (np.complex64(1), "to return a number or a Measurement, got complex64"),
        (np.ones(1), "to return a number or a Measurement, got ndarray"),
    ],
)
def test_an_answer_that_is_no_number_is_said(answer: Any, message: str, artifact: Artifact) -> None:
    with pytest.raises(MeasurementError, match=message):
        FunctionObjective("x", lambda path: answer).measure(artifact, NOWHERE)


@pytest.mark.parametrize(
    "error", [ValueError("bad magic"), ZeroDivisionError("bad magic"), UsageError("bad magic")]
)
def test_a_function_that_raises_is_said(error: Exception, artifact: Artifact) -> None:
    def function(path: Path) -> float:
        raise error

    match = f"x: the function raised {type(error).__name__}: bad magic"
    with pytest.raises(MeasurementError, match=match):
        FunctionObjective("x", function).measure(artifact, NOWHERE)


def test_ratios_need_values_above_zero(artifact: Artifact) -> None:
    assert FunctionObjective("x", lambda path: 0).measure(artifact, NOWHERE).value == 0
    with pytest.raises(MeasurementError, match=r"x: expected values above 0.*got 0\.0"):
        FunctionObjective("x", lambda path: 0, log=True).measure(artifact, NOWHERE)
