from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from parefront.errors import MeasurementError
from parefront.objectives.targets.signature import Input, Signature

SIGNATURE = Signature((Input("x", "float32", (None, 3)), Input("mask", "bool", (None,))))
FEEDS = {"mask": np.ones(4, bool), "x": np.zeros((4, 3), np.float32)}


def test_arrays_come_in_the_order_of_the_inputs() -> None:
    x, mask = SIGNATURE.ordered(FEEDS, "R")
    assert x is FEEDS["x"]
    assert mask is FEEDS["mask"]


def test_text_brings_it_back() -> None:
    assert Signature.from_json(SIGNATURE.to_json()) == SIGNATURE


@pytest.mark.parametrize(
    "text",
    ["", "{", "3", "[]", "[3]", '[{"name": "x"}]', '[{"name": "x", "dtype": "?!", "shape": []}]'],
)
def test_other_text_is_refused(text: str) -> None:
    with pytest.raises(ValueError):
        Signature.from_json(text)


def test_the_batch_is_the_first_size_of_an_input_that_fixes_it() -> None:
    assert SIGNATURE.batch is None
    assert Signature((Input("x", "float32", (5, 3)),)).batch == 5


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"x": np.zeros((4, 2), np.float32)},
            r"expected input 'x' of float32, shape \(any, 3\)",
        ),
        ({"x": np.zeros((4, 3))}, r"got float64 of shape \(4, 3\)"),
        ({"mask": np.ones((4, 1), bool)}, r"expected input 'mask' of bool, shape \(any\)"),
        ({"more": np.ones(4)}, r"expected inputs \['x', 'mask'\], got \['mask', 'x', 'more'\]"),
    ],
)
def test_wrong_arrays_are_named(change: dict[str, Any], message: str) -> None:
    with pytest.raises(MeasurementError, match="R could not run it: .*" + message):
        SIGNATURE.ordered(FEEDS | change, "R")
