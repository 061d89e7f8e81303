"""Which sampler is picked when, and what is said about it."""

from __future__ import annotations

import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from parefront.search.samplers.auto import Choice, Situation, choose
from parefront.search.samplers.catalog import SAMPLERS


def pick(**changes: Any) -> Choice:
    usual: dict[str, Any] = {"candidates": math.inf, "parameters": 14, "objectives": 3}
    return choose(Situation(**{**usual, **changes}))


def test_usually_screening() -> None:
    choice = pick(trials=100, trial_seconds=42.0)
    assert choice.name == "screening"
    assert choice.reason == (
        "a trial takes 42 s, the space has infinitely many candidates of 14 parameters and there "
        "are 3 objectives: it pays to look at many before trying one"
    )
    assert pick() == pick(trials=100) == pick(seconds=60.0)
    assert "trials train, as far as is known" in pick().reason


@pytest.mark.parametrize(
    ("candidates", "budget", "name"),
    [
        (200, {"trials": 200}, "random"),
        (201, {"trials": 200}, "screening"),
        (1, {"trials": 1}, "random"),
        (math.inf, {"trials": 10**9}, "screening"),
        # Time allows 30 trials of 2 s.
        (30, {"seconds": 60.0, "trial_seconds": 2.0}, "random"),
        (31, {"seconds": 60.0, "trial_seconds": 2.0}, "screening"),
        # The tighter limit counts.
        (30, {"trials": 29, "seconds": 60.0, "trial_seconds": 2.0}, "screening"),
        (30, {"trials": 99, "seconds": 59.0, "trial_seconds": 2.0}, "screening"),
        # Without knowing what a trial costs, or any limit, nobody can say that it suffices.
        (30, {"seconds": 1e9}, "screening"),
        (30, {}, "screening"),
        (30, {"trial_seconds": 2.0}, "screening"),
    ],
)
def test_a_space_within_the_budget_is_searched_through(
    candidates: float, budget: dict[str, Any], name: str
) -> None:
    assert pick(candidates=candidates, **budget).name == name


def test_it_says_how_small_the_space_is() -> None:
    assert pick(candidates=48.0, trials=1200).reason == (
        "the space has 48 candidates and the budget allows 1,200 trials: without repetition they "
        "try all of it"
    )
    assert "has 1 candidate and" in pick(candidates=1, trials=5).reason


@pytest.mark.parametrize(("objectives", "name"), [(6, "screening"), (7, "nsga3"), (12, "nsga3")])
def test_many_objectives_are_for_reference_directions(objectives: int, name: str) -> None:
    choice = pick(objectives=objectives, trial_seconds=60.0)
    assert choice.name == name
    assert f"there are {objectives} objectives" in choice.reason


def test_a_small_space_comes_before_all_else() -> None:
    assert pick(candidates=9, trials=9, objectives=12, trial_seconds=0.0).name == "random"


def test_large_numbers_are_rounded() -> None:
    assert "has 4,782,969 candidates" not in pick(candidates=3.0**14).reason
    assert "has 4.8e+06 candidates" in pick(candidates=3.0**14).reason
    assert "has 6,561 candidates" in pick(candidates=3.0**8).reason


limits = st.none() | st.floats(min_value=0.0, max_value=1e9)


@given(
    st.floats(min_value=1.0) | st.just(math.inf),
    st.integers(0, 500),
    st.integers(1, 30),
    st.none() | st.integers(1, 10**7),
    limits,
    limits,
)
def test_whatever_the_situation_there_is_one_that_exists_and_one_sentence(
    candidates: float,
    parameters: int,
    objectives: int,
    trials: int | None,
    seconds: float | None,
    trial_seconds: float | None,
) -> None:
    choice = choose(
        Situation(
            candidates=candidates,
            parameters=parameters,
            objectives=objectives,
            trials=trials,
            seconds=seconds,
            trial_seconds=trial_seconds,
        )
    )
    assert choice.name in {*SAMPLERS, "screening"}
    assert "\n" not in choice.reason
    assert not choice.reason.endswith(".")
    assert "nan" not in choice.reason
