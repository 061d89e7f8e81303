"""The screening sampler in a space that it learns, and candidates that lack parameters."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import optuna
import pytest
from optuna.distributions import BaseDistribution
from optuna.trial import TrialState

from parefront.search.samplers import ScreeningSampler
from parefront.search.samplers.screening.candidates import generator
from parefront.search.samplers.screening.drawn_space import DrawnSpace
from parefront.search.samplers.screening.learned_space import LearnedSpace
from tests.search.samplers.screening_cases import draw, keys, started, volume


@pytest.fixture(autouse=True)
def _quiet() -> None:
    optuna.logging.set_verbosity(optuna.logging.ERROR)


def strict(params: Mapping[str, Any]) -> dict[int | str, float]:
    """Size, which needs every parameter that goes with the others."""
    kept = 1.0 - params["ratio"] + 0.0 * len(params["kind"]) if params["prune"] else 1.0
    return {1: params["depth"] * params["bits"] * kept}


def batch(many: list[Mapping[str, Any]]) -> list[dict[int | str, float]]:
    return [strict(params) for params in many]


def nested(trial: optuna.trial.BaseTrial) -> None:
    trial.suggest_categorical("first", (False, True))
    if trial.suggest_categorical("prune", (False, True)):
        trial.suggest_float("ratio", 0.0, 1.0)
    elif trial.suggest_categorical("share", (False, True)):
        trial.suggest_categorical("kind", ("a", "b", None))
    trial.suggest_float("rate", 1e-3, 1.0, log=True)


@pytest.mark.parametrize(
    "arguments",
    [
        pytest.param({"cheap": strict}, id="cheap"),
        pytest.param({"cheap": batch, "batched": True}, id="batched"),
        pytest.param({"cost": lambda params: strict(params)[1]}, id="cost"),
        pytest.param({"look": strict}, id="look"),
    ],
)
def test_candidates_that_lack_parameters_are_no_errors(arguments: dict[str, Any]) -> None:
    study = started(ScreeningSampler(seed=0, **arguments), 30)
    assert {trial.params["prune"] for trial in study.trials} == {False, True}
    assert len(set(keys(study))) == 30


@pytest.mark.parametrize("seed", range(4))
def test_what_goes_together_is_known_soon(seed: int) -> None:
    study = optuna.create_study(
        directions=["minimize"] * 2, sampler=ScreeningSampler(cheap=strict, seed=seed)
    )
    wrong = []
    for _ in range(25):
        trial = study.ask()
        proposed = set(trial.relative_params)
        wrong.append(proposed != set(draw(trial)))
        study.tell(trial, [1.0, strict(trial.params)[1]])
    assert sum(wrong) <= 5
    assert not any(wrong[-8:])


@pytest.mark.parametrize("seed", range(4))
def test_a_branch_that_was_never_seen_is_tried(seed: int) -> None:
    def deep(trial: optuna.trial.BaseTrial) -> dict[str, Any]:
        for layer in range(trial.suggest_int("layers", 1, 4)):
            trial.suggest_int(f"width{layer}", 1, 8)
        return dict(trial.params)

    def total(params: Mapping[str, Any]) -> dict[int | str, float]:
        return {1: float(sum(params[f"width{layer}"] for layer in range(params["layers"])))}

    def objective(trial: optuna.Trial) -> tuple[float, float]:
        size = total(deep(trial))[1]
        return 1.0 / size, size

    sampler = ScreeningSampler(cheap=total, seed=seed)
    study = optuna.create_study(directions=["minimize"] * 2, sampler=sampler)
    study.optimize(objective, n_trials=16)
    assert {trial.params["layers"] for trial in study.trials} == {1, 2, 3, 4}


def test_what_is_never_known_is_an_error() -> None:
    def wrong(params: Mapping[str, Any]) -> dict[int | str, float]:
        return {1: params["widht"]}

    with pytest.raises(KeyError, match="widht"):
        started(ScreeningSampler(cheap=wrong, seed=0), 2)


def test_with_a_space_what_is_missing_is_an_error() -> None:
    def half(params: Mapping[str, Any]) -> dict[int | str, float]:
        return {1: params["ratio"]}

    with pytest.raises(KeyError, match="ratio"):
        started(ScreeningSampler(cheap=half, space=draw, seed=0), 1)


def test_a_learnt_space_costs_little() -> None:
    def reached(make: Callable[[int], optuna.samplers.BaseSampler]) -> float:
        return float(np.mean([volume(started(make(seed), 25)) for seed in range(3)]))

    random = reached(optuna.samplers.RandomSampler)
    given = reached(lambda seed: ScreeningSampler(cheap=strict, space=draw, seed=seed))
    learnt = reached(lambda seed: ScreeningSampler(cheap=strict, seed=seed))
    assert learnt - random > 0.8 * (given - random) > 0.0


def test_trials_elsewhere_that_have_not_all_parameters_yet_are_left_out() -> None:
    sampler = ScreeningSampler(cheap=strict, space=draw, seed=0)
    study = started(sampler, 8)
    known: dict[str, BaseDistribution] = {}
    for each in study.trials:
        known.update(each.distributions)
    study.add_trial(
        optuna.trial.create_trial(
            state=TrialState.RUNNING,
            params={"prune": True, "depth": 2},
            distributions={name: known[name] for name in ("prune", "depth")},
        )
    )
    trial = study.ask()
    draw(trial)
    assert len(set(keys(study))) == 10


def test_pruned_trials_show_the_space_too() -> None:
    study = optuna.create_study(
        directions=["minimize"] * 2, sampler=ScreeningSampler(cheap=strict, seed=0)
    )
    trial = study.ask()
    draw(trial)
    study.tell(trial, state=TrialState.PRUNED)
    assert set(study.ask().relative_params) >= {"x", "depth"}


@pytest.mark.parametrize("space", [draw, nested])
def test_few_trials_teach_which_parameters_go_together(
    space: Callable[[optuna.trial.BaseTrial], object],
) -> None:
    real, learned = DrawnSpace(space), LearnedSpace()
    for i in range(40):
        learned.absorb(real.draw(generator(0, i), {}))
    for i in range(100):
        drawn = learned.draw(generator(1, i), {})
        assert real.draw(generator(2), drawn.params).key == drawn.key


def test_two_trials_teach_that_what_follows_a_choice_depends_on_it() -> None:
    real, learned = DrawnSpace(nested), LearnedSpace()
    for i, prune in enumerate((False, True)):
        learned.absorb(real.draw(generator(i), {"prune": prune, "share": True}))
    for i in range(20):
        drawn = learned.draw(generator(1, i), {"share": True})
        assert ("ratio" in drawn.params) == drawn.params["prune"]


def test_names_keep_the_order_of_the_objective() -> None:
    real, learned = DrawnSpace(nested), LearnedSpace()
    learned.absorb(real.draw(generator(0), {"prune": False, "share": False}))
    learned.absorb(real.draw(generator(0), {"prune": False, "share": True}))
    learned.absorb(real.draw(generator(0), {"prune": True}))
    names = list(learned.distributions)
    assert names.index("prune") < names.index("ratio") < names.index("rate")
    assert names.index("share") < names.index("kind") < names.index("rate")
