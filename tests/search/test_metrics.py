import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from parefront.errors import MeasurementError
from parefront.objectives.measurement import Direction
from parefront.search.metrics import (
    Metric,
    accuracy,
    mean_absolute_error,
    mean_squared_error,
)


def logits(predicted: list[int], classes: int = 3) -> np.ndarray:
    return np.eye(classes, dtype=np.float32)[predicted]


def test_accuracy_counts_hits() -> None:
    found = accuracy.measure([logits([0, 1, 2, 0])], np.array([0, 1, 1, 0]))
    assert found.value == 0.75
    assert found.samples == 4


def test_accuracy_interval_is_wilsons() -> None:
    # 9 of 10: Wilson (1927), as tabulated by Newcombe (1998) method 3.
    found = accuracy.measure([logits([0] * 10)], np.array([0] * 9 + [1]))
    assert (found.low, found.high) == pytest.approx((0.5958, 0.9821), abs=1e-4)


@given(st.integers(1, 200), st.data())
def test_the_interval_holds_the_value(count: int, data: st.DataObject) -> None:
    hits = data.draw(st.integers(0, count))
    targets = np.array([0] * hits + [1] * (count - hits))
    found = accuracy.measure([logits([0] * count)], targets)
    assert 0 <= found.low <= found.value <= found.high <= 1


def test_accuracy_of_tokens_leaves_padding_out() -> None:
    outputs = np.stack([logits([0, 1, 2]), logits([0, 0, 0])])
    targets = np.array([[0, 1, -100], [1, -100, -100]])
    assert accuracy.measure([outputs], targets).value == pytest.approx(0.5)


def test_errors_agree_with_numpy() -> None:
    rng = np.random.default_rng(0)
    y, t = rng.normal(size=(50, 3)), rng.normal(size=(50, 3))
    assert mean_squared_error.measure([y], t).value == pytest.approx(((y - t) ** 2).mean())
    assert mean_absolute_error.measure([y], t).value == pytest.approx(abs(y - t).mean())
    assert mean_squared_error.direction is Direction.MINIMIZE


def test_a_function_gets_a_bootstrap_interval() -> None:
    targets = np.random.default_rng(0).normal(10, 1, 400)
    mean = Metric("mean", lambda y, t: float(t.mean()), Direction.MINIMIZE)
    found = mean.measure([targets], targets)
    standard_error = targets.std() / 20
    assert found.high - found.low == pytest.approx(2 * 1.96 * standard_error, rel=0.25)
    assert found == mean.measure([targets], targets)


def test_several_outputs_come_as_a_list() -> None:
    both = Metric("both", lambda y, t: float(y[0].sum() + y[1].sum() + len(t)))
    assert both.measure([np.ones(2), np.ones(2)], np.ones(2)).value == 6


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_metric_that_is_not_finite_is_refused(value: float) -> None:
    with pytest.raises(MeasurementError, match="expected a finite number"):
        Metric("bad", lambda y, t: value).measure([np.ones(2)], np.ones(2))
