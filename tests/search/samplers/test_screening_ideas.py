"""Candidates that are always compared, and differences that are only noise."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import optuna
import pytest

from parefront.search.samplers import ScreeningSampler
from parefront.search.samplers.screening.frame import Frame
from tests.search.samplers.screening_cases import draw, evaluate, size_of

IDEA = {
    "x": 0.0123,
    "rate": 0.00123,
    "depth": 5,
    "bits": 4,
    "prune": True,
    "ratio": 0.5,
    "kind": "b",
}


@pytest.fixture(autouse=True)
def _quiet() -> None:
    optuna.logging.set_verbosity(optuna.logging.ERROR)


def small(params: Mapping[str, Any]) -> float:
    """The idea is much smaller than all that is like it."""
    return size_of(params) * (0.01 if params == IDEA else 1.0)


def search(
    seed: int, *ideas: dict[str, Any], trials: int = 12, **given: Any
) -> list[dict[str, Any]]:
    sampler = ScreeningSampler(
        cheap=lambda params: {1: small(params)}, space=draw, seed=seed, ideas=ideas, **given
    )
    study = optuna.create_study(directions=["minimize"] * 2, sampler=sampler)

    def objective(trial: optuna.Trial) -> tuple[float, float]:
        params = draw(trial)
        return evaluate(params)[0], small(params)

    study.optimize(objective, n_trials=trials)
    return [trial.params for trial in study.trials]


def test_a_good_idea_is_tried_and_a_bad_one_is_not() -> None:
    bad = {"x": 1.0, "rate": 0.1, "depth": 1, "bits": 16, "prune": False}
    tried = search(0, bad, IDEA)
    assert IDEA in tried
    assert bad not in tried
    assert IDEA not in search(0)


def test_ideas_lead_to_the_same_search_again() -> None:
    assert search(3, IDEA) == search(3, IDEA)


def test_the_first_candidates_have_in_common_what_is_held() -> None:
    tried = search(1, held={"depth": 4, "ratio": 0.3}, trials=48)
    first, later = tried[:36], tried[36:]
    assert {params["depth"] for params in first} == {4}
    assert {round(params.get("ratio", 0.3), 9) for params in first} == {0.3}
    assert len({params["bits"] for params in first}) > 1
    assert len({params["depth"] for params in later}) > 1


def test_a_frame_spans_ten_differences_that_mean_something() -> None:
    values = np.array([[0.02, 1.0], [0.03, 9.0]])
    narrow = Frame.of(values, values)
    assert narrow.width == pytest.approx([0.01, 8.0])
    frame = Frame.of(values, values, np.array([0.008, 0.1]))
    assert frame.width == pytest.approx([0.08, 8.0])
    assert frame.low == pytest.approx([0.02, 1.0])
    # A tenth of the range beyond the worst of the front.
    assert frame.near == pytest.approx([(0.01 + 0.008) / 0.08, 1.1])
