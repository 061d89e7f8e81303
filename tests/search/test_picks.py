"""What is picked from a front by knee, weights and bounds."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from parefront.errors import PickError
from parefront.objectives.front import dominated
from parefront.objectives.measurement import Direction
from parefront.search.picks import pick
from parefront.search.summary import ObjectiveSummary

NAMES = ("accuracy", "latency", "size")
ON_PI = ("accuracy", "latency_pi", "size")


def objective(name: str, column: str, unit: str, **changes: object) -> ObjectiveSummary:
    parts: dict[str, object] = {"direction": Direction.MINIMIZE, "label": name}
    return ObjectiveSummary(name=name, column=column, unit=unit, **(parts | changes))  # type: ignore[arg-type]


OBJECTIVES = (
    objective("accuracy", "accuracy", "", direction=Direction.MAXIMIZE),
    objective("latency", "latency_ms", "ms", log=True, on_device=True),
    objective("size", "size_bytes", "B", log=True),
    objective("memory", "peak_memory_bytes", "B", optimized=False, on_device=True),
    objective("latency_pi", "latency_ms_pi", "ms", log=True, on_device=True, target="pi"),
)
COLUMNS = {each.name: each.column for each in OBJECTIVES}


def front(*points: tuple[float, float, float, float]) -> pd.DataFrame:
    """Points of accuracy, milliseconds, kilobytes, and milliseconds on the further target."""
    table = pd.DataFrame(points, columns=["accuracy", "latency_ms", "kb", "latency_ms_pi"])
    table["size_bytes"] = 1000 * table["kb"]
    table["peak_memory_bytes"] = 1e6 + np.arange(len(table))
    table["trial"] = np.arange(len(table))[::-1]
    return table


FRONT = front(
    (0.95, 4.0, 900.0, 40.0),
    (0.94, 2.0, 400.0, 10.0),
    (0.92, 1.0, 300.0, 12.0),
    (0.80, 0.5, 100.0, 2.0),
)


def picked(wanted: str, rows: pd.DataFrame = FRONT, target: str | None = None) -> float:
    return float(pick(rows, wanted, OBJECTIVES, target)["accuracy"])


@pytest.mark.parametrize(
    ("wanted", "accuracy"),
    [
        ("knee", 0.92),
        ("latency_ms<=1.5", 0.92),
        ("latency_us<=1500 and size_mb>=0.2", 0.92),
        ("latency_s < 0.001", 0.80),
        ("latency_ms_pi<=11", 0.94),
        ("latency_us_pi<=11e3", 0.94),
        ("latency_us_pi<=11e3 and latency_ms<=1", 0.80),
        ("memory_mb<=1", 0.95),
        ("knee and size_kb<=300", 0.92),
        ("size_kb<=300 and knee", 0.92),
        ("accuracy=1", 0.95),
        ("size=1", 0.80),
        ("accuracy=100 latency=1 size=1", 0.95),
        ("accuracy=1, latency=100 ,size=1", 0.80),
        ("accuracy=1 latency=0 size=0 and size_kb<=500", 0.94),
        ("latency_pi=1 and accuracy>=0.9", 0.94),
        ("latency = 1e0 and accuracy > 0.8", 0.92),
        ("memory=1", 0.95),
    ],
)
def test_picks(wanted: str, accuracy: float) -> None:
    assert picked(wanted) == accuracy


def test_the_knee_is_that_of_the_target_whose_front_it_is() -> None:
    rows = front((0.9, 1.0, 1.0, 100.0), (0.8, 3.0, 1.0, 1.0), (0.5, 100.0, 1.0, 1.0))
    assert picked("knee", rows) == 0.9
    assert picked("knee", rows, "pi") == 0.8


def test_bounds_leave_the_scale_of_weights_alone() -> None:
    # Within the bound alone, 0.9 and 0.8 would be the two ends of accuracy.
    rows = front((0.90, 9.0, 9.0, 1.0), (0.80, 5.0, 9.0, 1.0), (0.1, 1.0, 9.0, 1.0))
    assert picked("accuracy=2 latency=1 and accuracy>=0.8", rows) == 0.80


@pytest.mark.parametrize(
    ("wanted", "message"),
    [
        ("", "a pick is 'knee' or bounds"),
        ("knee and", "a pick is 'knee' or bounds"),
        ("accuracy==1", "a pick is 'knee' or bounds"),
        ("accuracy=1 size", "a pick is 'knee' or bounds"),
        ("knee size_kb<=1", "a pick is 'knee' or bounds"),
        ("knee and knee", "one 'knee' or one list of weights"),
        ("knee and accuracy=1", "one 'knee' or one list of weights"),
        ("accuracy=1 and size=1", "one 'knee' or one list of weights"),
        ("acuracy=1", "there is no objective 'acuracy'; did you mean 'accuracy'"),
        ("fun=1", "there is no objective 'fun'; known are accuracy, latency, size"),
        ("latency_us_pi=3", r"as in latency_pi=3, and a limit is written latency_us_pi<=3 or"),
        ("accuracy=1 accuracy=2", "'accuracy' has two weights"),
        ("accuracy=-1 size=1", "a weight of zero or more, got 'accuracy=-1'"),
        ("accuracy=0 size=0", "at least one weight above zero"),
        ("accuracy=1.2.3", "expected a number, got '1.2.3'"),
        ("accuracy=1e999", "expected a finite number"),
        ("size_kb<=1e999", "expected a finite number"),
        ("latncy_us_pi<=3", "did you mean 'latency_us_pi'"),
        ("knee and size_kb<=1", "no candidate on the front meets .* size_bytes 1e.05 to 9e.05"),
    ],
)
def test_an_error_says_what_to_write(wanted: str, message: str) -> None:
    with pytest.raises(PickError, match=message):
        picked(wanted)


def test_an_empty_front_has_no_pick() -> None:
    with pytest.raises(PickError, match="no front to pick from"):
        picked("accuracy=1", FRONT.iloc[:0])


COARSE = st.integers(1, 5).map(float)
POINTS = st.lists(st.tuples(COARSE, COARSE, COARSE, COARSE), min_size=1, max_size=10)
WEIGHT = st.integers(0, 5).map(float)
WEIGHTS = st.tuples(WEIGHT, WEIGHT, WEIGHT).filter(any)


def written(weights: tuple[float, ...], factor: float = 1.0) -> str:
    return " ".join(f"{name}={factor * w!r}" for name, w in zip(NAMES, weights, strict=True))


@given(POINTS, WEIGHTS)
def test_a_pick_is_never_beaten_by_another_row(
    points: list[tuple[float, float, float, float]], weights: tuple[float, float, float]
) -> None:
    rows = front(*points)
    values = rows[[COLUMNS[name] for name in NAMES]].to_numpy(dtype=float)
    beaten = dominated(values, values, values, [True, False, False])
    for wanted in (written(weights), "knee"):
        trial = pick(rows, wanted, OBJECTIVES)["trial"]
        assert not beaten[rows["trial"] == trial].any()


@given(POINTS, st.sampled_from([*NAMES, "latency_pi"]))
def test_a_weight_alone_picks_the_best(
    points: list[tuple[float, float, float, float]], name: str
) -> None:
    rows, column = front(*points), COLUMNS[name]
    best = rows[column].max() if name == "accuracy" else rows[column].min()
    assert pick(rows, f"{name}=1", OBJECTIVES)[column] == best


@given(POINTS, WEIGHTS, st.sampled_from([0.125, 0.3, 7.0, 1e6]))
def test_only_proportions_of_weights_matter(
    points: list[tuple[float, float, float, float]],
    weights: tuple[float, float, float],
    factor: float,
) -> None:
    rows = front(*points)
    once, again = (pick(rows, written(weights, each), OBJECTIVES) for each in (1.0, factor))
    assert once["trial"] == again["trial"]


@given(POINTS)
def test_equal_weights_are_the_knee(points: list[tuple[float, float, float, float]]) -> None:
    rows = front(*points)
    for names, target in ((NAMES, None), (ON_PI, "pi")):
        weights = " ".join(f"{name}=2" for name in names)
        knee = pick(rows, "knee", OBJECTIVES, target)
        assert pick(rows, weights, OBJECTIVES, target)["trial"] == knee["trial"]


@given(POINTS, WEIGHTS, COARSE)
def test_bounds_hold_whatever_the_weights(
    points: list[tuple[float, float, float, float]],
    weights: tuple[float, float, float],
    most: float,
) -> None:
    rows = front(*points)
    wanted = f"{written(weights)} and latency_us_pi<={1000 * most}"
    if (rows["latency_ms_pi"] <= most).any():
        assert pick(rows, wanted, OBJECTIVES)["latency_ms_pi"] <= most
    else:
        with pytest.raises(PickError, match="no candidate on the front meets"):
            pick(rows, wanted, OBJECTIVES)


@given(POINTS)
def test_the_order_of_the_rows_does_not_matter(
    points: list[tuple[float, float, float, float]],
) -> None:
    rows = front(*points)
    for wanted in ("knee", "accuracy=2 size=1", "size_kb<=5"):
        first = pick(rows, wanted, OBJECTIVES)["trial"]
        assert pick(rows[::-1], wanted, OBJECTIVES)["trial"] == first
