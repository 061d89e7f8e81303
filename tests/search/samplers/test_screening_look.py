"""Candidates that the screening sampler looks at before it tries one."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import optuna
import pytest

from parefront.errors import BuildError
from parefront.search.samplers import ScreeningSampler
from parefront.search.samplers.screening.candidates import key_of
from tests.search.samplers.screening_cases import draw, evaluate, keys, size_of, started, volume


@pytest.fixture(autouse=True)
def _quiet() -> None:
    optuna.logging.set_verbosity(optuna.logging.ERROR)


def look(params: Mapping[str, Any]) -> dict[int | str, float]:
    return {1: size_of(params)}


class Noted:
    """Looks, and notes what it was asked.

    Args:
        broken: Whether some candidates cannot be looked at.
    """

    def __init__(self, *, broken: bool = False) -> None:
        self.asked: list[object] = []
        self._broken = broken

    def __call__(self, params: Mapping[str, Any]) -> dict[int | str, float]:
        self.asked.append(key_of(params))
        if self._broken and params["bits"] == 16:
            raise BuildError("no such operator")
        return look(params)


def test_a_shortlist_is_looked_at_and_each_candidate_once() -> None:
    noted = Noted()
    study = started(ScreeningSampler(look=noted, shortlist=4, space=draw, seed=0), 20)
    # Four trials come before there is a model, and one of each four that are new is tried.
    assert 16 <= len(noted.asked) <= 64
    assert len(noted.asked) == len(set(noted.asked))
    assert set(keys(study)[4:]) <= set(noted.asked)


def test_looking_helps() -> None:
    def reached(**arguments: Any) -> float:
        return float(
            np.mean(
                [
                    volume(started(ScreeningSampler(space=draw, seed=s, **arguments), 20))
                    for s in range(6)
                ]
            )
        )

    assert reached(look=look, shortlist=10) > reached()


def test_what_was_seen_decides() -> None:
    def bounded(params: Mapping[str, Any]) -> dict[int | str, float]:
        return {"even": 0.0 if params["depth"] % 2 == 0 else 1.0}

    def even(**arguments: Any) -> float:
        study = started(ScreeningSampler(space=draw, seed=0, **arguments), 30)
        return float(np.mean([trial.params["depth"] % 2 == 0 for trial in study.trials[10:]]))

    assert even(look=bounded, shortlist=5) >= 0.95 > even()


def test_what_cannot_be_looked_at_is_not_tried() -> None:
    study = started(ScreeningSampler(look=Noted(broken=True), space=draw, seed=0), 25)
    assert all(trial.params["bits"] < 16 for trial in study.trials[10:])

    def undefined(params: Mapping[str, Any]) -> dict[int | str, float]:
        return {1: float("nan") if params["bits"] == 16 else size_of(params)}

    study = started(ScreeningSampler(look=undefined, space=draw, seed=0), 25)
    assert all(trial.params["bits"] < 16 for trial in study.trials[10:])


def test_looking_in_vain_ends() -> None:
    asked: list[object] = []

    def never(params: Mapping[str, Any]) -> dict[int | str, float]:
        asked.append(key_of(params))
        raise BuildError("no runtime")

    study = started(ScreeningSampler(look=never, shortlist=2, space=draw, seed=0), 12)
    assert len(set(keys(study))) == 12
    # Eight trials have a model, and each looks at eight times a shortlist at most.
    assert len(asked) <= 8 * 16


def test_other_errors_are_errors() -> None:
    def wrong(params: Mapping[str, Any]) -> dict[int | str, float]:
        raise RuntimeError("disk full")

    with pytest.raises(RuntimeError, match="disk full"):
        started(ScreeningSampler(look=wrong, space=draw, seed=0), 11)
    with pytest.raises(ValueError, match="expected `look` to name objectives 0 to 1"):
        started(ScreeningSampler(look=lambda params: {7: 1.0}, space=draw, seed=0), 11)


@pytest.mark.parametrize("broken", [False, True])
def test_a_search_that_is_taken_up_proposes_the_same(broken: bool) -> None:
    def fresh() -> ScreeningSampler:
        return ScreeningSampler(look=Noted(broken=broken), space=draw, seed=2)

    whole = started(fresh(), 22)
    again = optuna.create_study(directions=["minimize"] * 2, sampler=fresh())
    again.add_trials(whole.trials[:15])
    again.optimize(lambda trial: evaluate(draw(trial)), n_trials=7)
    assert keys(again) == keys(whole)
