"""Values, intervals and candidates in words."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from parefront.dashboards import words
from parefront.objectives.objective import Bound
from tests.dashboards.frames import objectives


@pytest.mark.parametrize(
    ("value", "unit", "text"),
    [
        (0.94123, "", "0.9412"),
        (0.9, "", "0.9000"),
        (0.0, "", "0"),
        (12.3456, "ms", "12.3 ms"),
        (1234.5, "ms", "1234 ms"),
        (0.00123456, "ms", "0.00123 ms"),
        (1e-12, "", "1e-12"),
        (999.0, "B", "999 B"),
        (1000.0, "B", "1.00 kB"),
        (44_712_345.0, "B", "44.7 MB"),
        (2.5e9, "B", "2.50 GB"),
        (math.nan, "ms", "not measured"),
    ],
)
def test_values_carry_unit_and_few_digits(value: float, unit: str, text: str) -> None:
    assert words.value_text(value, unit) == text


@given(st.floats(1e-5, 1e12), st.sampled_from(["", "ms", "B"]))
def test_a_value_can_be_read_back_to_its_digits(value: float, unit: str) -> None:
    number, _, shown = words.value_text(value, unit).partition(" ")
    factor = {"GB": 1e9, "MB": 1e6, "kB": 1e3}.get(shown, 1.0)
    assert float(number) * factor == pytest.approx(value, rel=0.006, abs=0.5 if unit == "B" else 0)


@pytest.mark.parametrize(
    ("low", "high", "unit", "text"),
    [
        (2.276, 2.393, "ms", "2.28 to 2.39 ms"),
        (0.93, 0.95, "", "0.9300 to 0.9500"),
        (999_000.0, 1_200_000.0, "B", "999 kB to 1.20 MB"),
        (5.0, 5.0, "B", ""),
        (math.nan, math.nan, "ms", ""),
    ],
)
def test_intervals_name_the_unit_once(low: float, high: float, unit: str, text: str) -> None:
    assert words.interval_text(low, high, unit) == text


def test_round_values_have_no_needless_zeros_and_no_exponent() -> None:
    assert words.round_text(6.0, "ms") == "6 ms"
    assert words.round_text(5e-05, "") == "0.00005"
    assert words.round_text(2e6, "B") == "2 MB"
    assert words.round_text(0.0, "") == "0"


def test_a_ratio_below_one_is_told_the_other_way_round() -> None:
    assert words.ratio_words(3.6, "faster", "slower") == ("3.60\u00d7", "faster")
    assert words.ratio_words(0.5, "faster", "slower") == ("2.00\u00d7", "slower")
    assert words.ratio_words(math.nan, "faster", "slower") is None


def test_bounds_in_words() -> None:
    accuracy, latency, size = objectives(at_least=0.85, at_most_ms=6)
    assert words.bound_text(accuracy) == "accuracy at least 0.85"
    assert words.bound_text(latency) == "latency at most 6 ms"
    assert words.bound_text(size) == ""
    both = Bound(at_least=1e3, at_most=2e6)
    assert words.bound_text(type(size)(**{**vars(size), "bound": both})) == (
        "file size at least 1 kB and at most 2 MB"
    )


def test_axis_titles_name_unit_and_direction() -> None:
    accuracy, latency, size = objectives()
    assert words.axis_text(accuracy, "") == "accuracy, higher is better"
    assert words.axis_text(latency, "ms") == "latency (ms), lower is better"
    assert words.axis_text(size, "MB", hint=False) == "file size (MB)"


@pytest.mark.parametrize(
    ("values", "unit", "scale"),
    [
        ([2e6, 4e7], "B", (1e6, "MB")),
        ([20.0, 400.0], "B", (1.0, "B")),
        ([2e6], "ms", (1.0, "ms")),
        ([], "B", (1.0, "B")),
    ],
)
def test_bytes_on_an_axis_are_scaled_to_the_largest(
    values: list[float], unit: str, scale: tuple[float, str]
) -> None:
    assert words.unit_scale(np.array(values), unit) == scale


def test_candidates_in_words() -> None:
    candidate: dict[str, dict[str, Any]] = {
        "pruning": {"ratio": 0.59412, "importance": "l1", "iterative": False, "steps": None},
        "distillation": {"learning_rate": 2.5e-05, "per_layer": True, "epochs": 3},
        "sharing": {},
        "mixed": {"bits": [4, 8]},
    }
    assert words.stage_texts(candidate) == [
        "pruning (ratio 0.594, importance l1, not iterative)",
        "distillation (learning rate 0.000025, per layer, epochs 3)",
        "sharing",
        "mixed (bits [4, 8])",
    ]
    assert words.candidate_text({"a": {}, "b": {"x": 1}}) == "a \u2192 b (x 1)"
    assert words.candidate_text({}) == "unchanged model"
