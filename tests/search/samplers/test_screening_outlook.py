"""What the screening sampler says of candidates and of the trials to come."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import moocore
import numpy as np
import optuna
import pytest

from benchmarks.synthetic import Problem, layers, sphere, stages
from parefront.search.samplers import ScreeningSampler
from tests.search.samplers.screening_cases import cheap, draw, evaluate, keys, started


@pytest.fixture(autouse=True)
def _quiet() -> None:
    optuna.logging.set_verbosity(optuna.logging.ERROR)


def sampler_of(problem: Problem, seed: int) -> ScreeningSampler:
    def known(params: Mapping[str, Any]) -> dict[int | str, float]:
        values = problem.evaluate(params)
        return {objective: float(values[objective]) for objective in problem.cheap}

    return ScreeningSampler(cheap=known, space=problem.draw, seed=seed)


def study_of(problem: Problem, sampler: ScreeningSampler) -> optuna.Study:
    return optuna.create_study(directions=["minimize"] * len(problem.best), sampler=sampler)


def tried(problem: Problem, study: optuna.Study, trials: int) -> None:
    for _ in range(trials):
        trial = study.ask()
        problem.draw(trial)
        study.tell(trial, problem.evaluate(trial.params).tolist())


class TestOptimistic:
    def beyond(self, make: Callable[[int], Problem], seed: int) -> list[tuple[bool, ...]]:
        """Whether random and proposed candidates are better than their bounds."""
        problem = make(seed)
        sampler = sampler_of(problem, seed)
        study = study_of(problem, sampler)
        random = study_of(problem, sampler)
        random.sampler = optuna.samplers.RandomSampler(900 + seed)
        found = []
        for number in range(40):
            asked = [study.ask()]
            problem.draw(asked[0])
            if number in (12, 18, 26, 38):
                asked += [random.ask() for _ in range(20)]
            for trial in asked:
                problem.draw(trial)
                values = problem.evaluate(trial.params)
                frozen = trial.study.get_trials(deepcopy=False)[trial.number]
                bounds = [
                    sampler.optimistic(study, frozen.params, frozen.distributions, deviations)
                    for deviations in (1.0, 2.0, 3.0)
                ]
                for objective in bounds[0] or {}:
                    at = [bound[objective] for bound in bounds if bound is not None]
                    found.append(tuple(bool(values[objective] < each - 1e-12) for each in at))
            study.tell(asked[0], problem.evaluate(asked[0].params).tolist())
        return found

    @pytest.mark.slow
    @pytest.mark.parametrize("make", [stages, layers, sphere])
    def test_values_are_hardly_ever_better(self, make: Callable[[int], Problem]) -> None:
        found = [each for seed in range(4) for each in self.beyond(make, seed)]
        one, two, three = np.mean(found, axis=0)
        assert len(found) > 400
        assert three <= 0.005
        assert two <= 0.06
        # A bound that nothing is ever beyond would forbid nothing.
        assert 0.02 <= one <= 0.27

    def test_it_is_in_the_units_and_directions_of_the_study(self) -> None:
        def bound(sign: float, log: Sequence[int]) -> tuple[float, float]:
            study = optuna.create_study(
                directions=["minimize" if sign > 0 else "maximize", "minimize"],
                sampler=ScreeningSampler(cheap=cheap, space=draw, seed=0, log=log),
            )
            assert isinstance(study.sampler, ScreeningSampler)
            for trial in started(optuna.samplers.RandomSampler(0), 30).trials:
                error, size = evaluate(trial.params)
                study.add_trial(
                    optuna.trial.create_trial(
                        params=trial.params,
                        distributions=trial.distributions,
                        values=[sign * error, size],
                    )
                )
            last = study.trials[-1]
            bounds = [
                study.sampler.optimistic(study, last.params, last.distributions, deviations)
                for deviations in (0.0, 3.0)
            ]
            assert bounds[0] is not None
            assert bounds[1] is not None
            assert set(bounds[0]) == {0}
            error = evaluate(last.params)[0]
            assert sign * bounds[0][0] == pytest.approx(error, rel=0.2)
            return sign * bounds[0][0], sign * bounds[1][0]

        assert bound(1.0, ()) == pytest.approx(bound(-1.0, ()))
        for expected, best in (bound(1.0, ()), bound(1.0, (0, 1))):
            assert best < expected

    def test_there_is_none_before_a_model(self) -> None:
        sampler = ScreeningSampler(cheap=cheap, space=draw, seed=0)
        study = started(sampler, 3)
        last = study.trials[-1]
        assert sampler.optimistic(study, last.params, last.distributions) is None
        assert sampler.outlook(study) is None
        assert math.isinf(sampler.rest(study, 10))
        assert ScreeningSampler(seed=0).outlook(study) is None

    def test_there_is_none_for_what_cannot_be_looked_up(self) -> None:
        sampler = ScreeningSampler(cheap=cheap, space=draw, seed=0)
        study = started(sampler, 8)
        last = study.trials[-1]
        params = {name: value for name, value in last.params.items() if name != "bits"}
        assert sampler.optimistic(study, params, last.distributions) is None


class TestOutlook:
    def test_it_is_within_a_factor_of_what_comes(self) -> None:
        ratios: dict[int, list[float]] = {15: [], 30: []}
        for make in (stages, layers):
            for seed in range(3):
                problem = make(seed)
                sampler = sampler_of(problem, seed)
                study = study_of(problem, sampler)
                for before in ratios:
                    tried(problem, study, before - len(study.trials))
                    outlook, expected = sampler.outlook(study), sampler.rest(study, 10)
                    assert outlook is not None
                    assert expected >= outlook.gain
                    tried(problem, study, 10)
                    values = np.array([trial.values for trial in study.trials])
                    ratios[before].append(expected / gained(problem, values, before))
        for each in ratios.values():
            assert 0.5 < np.exp(np.mean(np.log(each))) < 4.0

    def test_it_falls_as_the_search_converges(self) -> None:
        problem = layers(0)
        sampler = sampler_of(problem, 0)
        study = study_of(problem, sampler)
        gains, rests = [], []
        for trials in (8, 22, 40):
            tried(problem, study, trials)
            outlook = sampler.outlook(study)
            assert outlook is not None
            gains.append(outlook.gain)
            rests.append(sampler.rest(study, 20))
        assert gains == sorted(gains, reverse=True)
        assert rests == sorted(rests, reverse=True)
        assert gains[-1] < 0.2 * gains[0]

    def test_more_trials_bring_more(self) -> None:
        sampler = ScreeningSampler(cheap=cheap, space=draw, seed=0)
        study = started(sampler, 15)
        rests = [sampler.rest(study, trials) for trials in (0, 1, 4, 8, 9, 30)]
        assert rests[0] == 0.0
        assert rests == sorted(rests)
        outlook = sampler.outlook(study)
        assert outlook is not None
        assert rests[1] == pytest.approx(outlook.gain)
        # Beyond eight, each brings what the eighth did.
        assert rests[5] - rests[3] == pytest.approx(22 * (rests[4] - rests[3]))
        assert rests[4] - rests[3] <= rests[1]

    def test_there_is_nothing_to_gain_where_all_was_tried(self) -> None:
        def space(trial: optuna.trial.BaseTrial) -> None:
            trial.suggest_int("a", 0, 3)
            trial.suggest_int("b", 0, 3)

        sampler = ScreeningSampler(space=space, seed=0)
        study = optuna.create_study(directions=["minimize"] * 2, sampler=sampler)
        for number in range(16):
            trial = study.ask()
            space(trial)
            study.tell(trial, [float(trial.params["a"]), float(trial.params["b"])])
            assert number < 12 or sampler.rest(study, 16 - number) < 0.1
        outlook = sampler.outlook(study)
        assert outlook is not None
        assert outlook.gain == 0.0
        assert sampler.rest(study, 100) == 0.0

    def test_there_is_hardly_anything_to_gain_where_all_is_the_same(self) -> None:
        sampler = ScreeningSampler(space=draw, seed=0)
        study = optuna.create_study(directions=["minimize"] * 2, sampler=sampler)
        for _ in range(14):
            trial = study.ask()
            draw(trial)
            study.tell(trial, [1.0, 2.0])
        assert sampler.rest(study, 50) < 1e-6

    def test_without_anything_feasible_it_is_infinite(self) -> None:
        study = optuna.create_study(
            directions=["minimize"] * 2,
            sampler=ScreeningSampler(cheap=cheap, space=draw, seed=0),
        )
        for _ in range(6):
            trial = study.ask()
            values = evaluate(draw(trial))
            trial.set_constraint("x", 1.5 - abs(trial.params["x"]))
            study.tell(trial, values)
        assert isinstance(study.sampler, ScreeningSampler)
        outlook = study.sampler.outlook(study)
        assert outlook is not None
        assert math.isinf(outlook.gain)

    def test_asking_for_it_changes_nothing(self) -> None:
        sampler = ScreeningSampler(cheap=cheap, space=draw, seed=1)
        study = optuna.create_study(directions=["minimize"] * 2, sampler=sampler)
        seen = []
        for _ in range(14):
            trial = study.ask()
            values = evaluate(draw(trial))
            frozen = study.get_trials(deepcopy=False)[-1]
            sampler.optimistic(study, frozen.params, frozen.distributions)
            seen.append((sampler.outlook(study), sampler.rest(study, 5)))
            study.tell(trial, values)
            sampler.outlook(study)
        plain = started(ScreeningSampler(cheap=cheap, space=draw, seed=1), 14)
        assert keys(study) == keys(plain)
        fresh = ScreeningSampler(cheap=cheap, space=draw, seed=1)
        assert fresh.outlook(study) == sampler.outlook(study)

    def test_trials_that_run_count_as_over(self) -> None:
        sampler = ScreeningSampler(cheap=cheap, space=draw, seed=1)
        study = started(sampler, 15)
        before = sampler.outlook(study)
        for _ in range(4):
            draw(study.ask())
        after = sampler.outlook(study)
        assert before is not None
        assert after is not None
        assert after.gain < before.gain


def gained(problem: Problem, values: np.ndarray[Any, Any], before: int) -> float:
    """What trials after the first ones added, as a share; the reference is beyond all values."""
    low, high = values.min(axis=0), values.max(axis=0)
    scaled = (values - low) / (high - low)
    first, whole = (
        float(moocore.hypervolume(each, ref=np.full(len(low), 1.1)))
        for each in (scaled[:before], scaled[: before + 10])
    )
    return whole / first - 1.0
