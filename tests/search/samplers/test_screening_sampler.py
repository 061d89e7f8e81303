"""The screening sampler as any Optuna sampler, and what it promises beyond."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from typing import Any

import numpy as np
import optuna
import pytest
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.testing.pytest_samplers import (
    BasicSamplerTestCase,
    MultiObjectiveSamplerTestCase,
    RelativeSamplerTestCase,
)
from optuna.trial import TrialState, create_trial

from parefront.search.samplers.screening import ScreeningSampler
from parefront.search.samplers.screening.candidates import key_of
from tests.search.samplers.screening_cases import ALL, cheap, draw, evaluate, keys, started


@pytest.fixture(autouse=True)
def _quiet() -> None:
    optuna.logging.set_verbosity(optuna.logging.ERROR)


@pytest.mark.filterwarnings("ignore::optuna.exceptions.ExperimentalWarning")
@pytest.mark.filterwarnings("ignore:Inconsistent parameter values:RuntimeWarning")
class TestConformance(BasicSamplerTestCase, RelativeSamplerTestCase, MultiObjectiveSamplerTestCase):
    """Optuna's own suite for samplers."""

    @pytest.fixture
    def sampler(self) -> Callable[[], optuna.samplers.BaseSampler]:
        return lambda: ScreeningSampler(seed=0)


class TestProposals:
    @pytest.mark.parametrize("arguments", ALL)
    def test_the_same_seed_makes_the_same_search(self, arguments: dict[str, Any]) -> None:
        first = started(ScreeningSampler(seed=3, **arguments), 22)
        second = started(ScreeningSampler(seed=3, **arguments), 22)
        other = started(ScreeningSampler(seed=4, **arguments), 22)
        assert keys(first) == keys(second)
        assert keys(first) != keys(other)

    @pytest.mark.parametrize("arguments", ALL)
    def test_a_search_goes_on_as_if_it_had_not_been_interrupted(
        self, arguments: dict[str, Any]
    ) -> None:
        whole = started(ScreeningSampler(seed=5, **arguments), 26)
        again = optuna.create_study(
            directions=["minimize"] * 2, sampler=ScreeningSampler(seed=5, **arguments)
        )
        again.add_trials(whole.trials[:20])
        again.optimize(lambda trial: evaluate(draw(trial)), n_trials=6)
        assert keys(again) == keys(whole)

    def test_nothing_is_proposed_twice_however_it_ended(self) -> None:
        def space(trial: optuna.trial.BaseTrial) -> None:
            for name in "abc":
                trial.suggest_int(name, 0, 3)

        study = optuna.create_study(
            directions=["minimize"] * 2, sampler=ScreeningSampler(space=space, seed=0)
        )
        for number in range(64):
            trial = study.ask()
            space(trial)
            total = float(sum(trial.params.values()))
            if number % 7 == 3:
                study.tell(trial, state=TrialState.FAIL)
            elif number % 7 == 5:
                study.tell(trial, state=TrialState.PRUNED)
            else:
                study.tell(trial, [total, -total])
        assert len(set(keys(study))) == 64
        # The space is exhausted now, and the sampler goes on all the same.
        trial = study.ask()
        space(trial)
        assert key_of(trial.params) in keys(study)[:64]

    def test_what_waits_is_not_proposed(self) -> None:
        def space(trial: optuna.trial.BaseTrial) -> int:
            return trial.suggest_int("a", 0, 2)

        study = optuna.create_study(sampler=ScreeningSampler(space=space, seed=0))
        study.add_trial(
            create_trial(params={"a": 0}, distributions={"a": IntDistribution(0, 2)}, values=[1.0])
        )
        running = study.ask()
        drawn = space(running)
        study.enqueue_trial({"a": 3 - drawn})
        waiting = study.ask()
        assert space(waiting) == 3 - drawn
        assert drawn in (1, 2)

    def test_trials_that_run_are_told_apart(self) -> None:
        study = started(ScreeningSampler(cheap=cheap, space=draw, seed=0), 15)
        asked = [study.ask() for _ in range(6)]
        drawn = [key_of(draw(trial)) for trial in asked]
        assert len(set(drawn)) == 6

    def test_trials_that_run_are_told_apart_before_their_parameters_are_stored(self) -> None:
        sampler = ScreeningSampler(space=draw, seed=0)
        study = started(sampler, 15)
        asked = [study.ask() for _ in range(3)]
        frozen = [study.get_trials(deepcopy=False)[trial.number] for trial in asked]
        space = sampler.infer_relative_search_space(study, frozen[0])
        drawn = [key_of(sampler.sample_relative(study, each, space)) for each in frozen]
        assert len(set(drawn)) == 3

    def test_active_parameters_only_and_all_of_them(self) -> None:
        study = started(ScreeningSampler(cheap=cheap, space=draw, seed=1), 25)
        switches = {trial.params["prune"] for trial in study.trials}
        assert switches == {True, False}
        sampler = study.sampler
        for _ in range(5):
            trial = study.ask()
            frozen = study.get_trials(deepcopy=False)[trial.number]
            space = sampler.infer_relative_search_space(study, frozen)
            params = sampler.sample_relative(study, frozen, space)
            assert set(params) == set(draw(optuna.trial.FixedTrial(params)))

    def test_learns_which_parameters_go_together(self) -> None:
        study = started(ScreeningSampler(seed=0), 30)
        trial = study.ask()
        frozen = study.get_trials(deepcopy=False)[trial.number]
        space = study.sampler.infer_relative_search_space(study, frozen)
        assert {"ratio", "kind", "x"} <= set(space)
        params = study.sampler.sample_relative(study, frozen, space)
        assert ("ratio" in params) == ("kind" in params) == params["prune"]

    def test_works_after_it_was_pickled(self) -> None:
        study = started(ScreeningSampler(space=draw, seed=0), 14)
        study.sampler = pickle.loads(pickle.dumps(study.sampler))  # noqa: S301 - our own
        study.optimize(lambda trial: evaluate(draw(trial)), n_trials=1)
        assert len(set(keys(study))) == 15


class TestErrors:
    def test_a_shortlist_is_not_empty(self) -> None:
        with pytest.raises(ValueError, match="a shortlist of at least 1 candidate, got 0"):
            ScreeningSampler(shortlist=0)

    def test_objectives_that_do_not_exist(self) -> None:
        sampler = ScreeningSampler(cheap=lambda params: {2: 1.0}, space=draw)
        with pytest.raises(ValueError, match="name objectives 0 to 1"):
            started(sampler, 1)

    def test_logarithms_of_what_is_not_positive(self) -> None:
        sampler = ScreeningSampler(cheap=lambda params: {1: -1.0}, space=draw, log=[1])
        with pytest.raises(ValueError, match="positive values of objective 1"):
            started(sampler, 1)

    def test_costs_are_positive(self) -> None:
        sampler = ScreeningSampler(space=draw, cost=lambda params: 0.0)
        with pytest.raises(ValueError, match="a cost above 0"):
            started(sampler, 1)

    def test_one_answer_a_candidate(self) -> None:
        sampler = ScreeningSampler(cheap=lambda many: [], batched=True, space=draw)
        with pytest.raises(ValueError, match="one answer of `cheap` for each"):
            started(sampler, 1)


@pytest.mark.slow
@pytest.mark.parametrize("arguments", ALL)
def test_ten_thousand_trials(arguments: dict[str, Any]) -> None:
    random = np.random.default_rng(0)
    study = optuna.create_study(
        directions=["minimize"] * 2, sampler=ScreeningSampler(seed=0, **arguments)
    )
    distributions = {
        "x": FloatDistribution(-1.0, 1.0),
        "rate": FloatDistribution(1e-4, 1e-1, log=True),
        "depth": IntDistribution(1, 5),
        "bits": CategoricalDistribution((4, 8, 16)),
        "prune": CategoricalDistribution((False, True)),
    }
    trials = []
    for _ in range(10_000):
        params = {
            "x": float(random.uniform(-1, 1)),
            "rate": float(10 ** random.uniform(-4, -1)),
            "depth": int(random.integers(1, 6)),
            "bits": (4, 8, 16)[random.integers(3)],
            "prune": False,
        }
        trials.append(
            create_trial(params=params, distributions=distributions, values=evaluate(params))
        )
    study.add_trials(trials)
    study.optimize(lambda trial: evaluate(draw(trial)), n_trials=5)
    assert len(set(keys(study)[10_000:]) - set(keys(study)[:10_000])) == 5
