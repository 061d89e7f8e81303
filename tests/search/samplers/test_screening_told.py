"""What trials tell besides their values, and what was seen elsewhere."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import optuna
import pytest
from optuna.distributions import BaseDistribution, FloatDistribution, IntDistribution
from optuna.trial import TrialState, create_trial

from parefront.search.samplers import PARTIAL_KEY, ScreeningSampler, Told, observed
from parefront.search.samplers.screening.history import History
from parefront.search.samplers.screening.observations import Losses
from tests.search.samplers.screening_cases import cheap, draw, evaluate, keys

Drawn = tuple[dict[str, Any], dict[str, BaseDistribution]]


@pytest.fixture(autouse=True)
def _quiet() -> None:
    optuna.logging.set_verbosity(optuna.logging.ERROR)


def drawn(count: int, seed: int) -> list[Drawn]:
    """Random candidates."""
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed))
    found = []
    for _ in range(count):
        trial = study.ask()
        draw(trial)
        found.append((dict(trial.params), dict(trial.distributions)))
    return found


def told_study(sampler: ScreeningSampler, seed: int, complete: int) -> optuna.Study:
    study = optuna.create_study(directions=["minimize"] * 2, sampler=sampler)
    for params, distributions in drawn(complete, seed):
        study.add_trial(
            create_trial(params=params, distributions=distributions, values=evaluate(params))
        )
    return study


def stopped(study: optuna.Study, seed: int, count: int, told: Callable[..., Any]) -> optuna.Study:
    """Adds trials that were pruned, and told something."""
    for params, distributions in drawn(count, 1000 + seed):
        study.add_trial(
            create_trial(
                state=TrialState.PRUNED,
                params=params,
                distributions=distributions,
                user_attrs={PARTIAL_KEY: told(params)},
            )
        )
    return study


def halfway(params: Mapping[str, Any]) -> float:
    """Error halfway: larger, and most where the rate is small."""
    slow = -np.log10(params["rate"]) / 4.0
    return float(0.5 + 1.3 * evaluate(params)[0] + slow)


def wrongness(sampler: ScreeningSampler, study: optuna.Study) -> float:
    """Root mean square of how far expected errors are from true ones."""
    errors = []
    for params, distributions in drawn(40, 5000):
        expected = sampler.optimistic(study, params, distributions, 0.0)
        assert expected is not None
        errors.append(expected[0] - evaluate(params)[0])
    return float(np.sqrt(np.mean(np.square(errors))))


def compared(make: Callable[[int], float], other: Callable[[int], float], seeds: int) -> float:
    """Mean logarithm of a ratio over seeds, over its standard error."""
    ratios = [np.log(make(seed) / other(seed)) for seed in range(seeds)]
    return float(np.mean(ratios) / (np.std(ratios, ddof=1) / np.sqrt(seeds)))


class TestFidelities:
    def alone(self, seed: int) -> float:
        sampler = ScreeningSampler(cheap=cheap, space=draw, seed=seed)
        study = stopped(told_study(sampler, seed, 8), seed, 25, lambda params: [])
        return wrongness(sampler, study)

    def test_values_halfway_help(self) -> None:
        def helped(seed: int) -> float:
            sampler = ScreeningSampler(cheap=cheap, space=draw, seed=seed)
            study = stopped(
                told_study(sampler, seed, 8),
                seed,
                25,
                lambda params: [observed({0: halfway(params)}, 0.5)],
            )
            return wrongness(sampler, study)

        assert compared(helped, self.alone, 6) < -3.0
        assert np.mean([helped(s) for s in range(3)]) < 0.7 * np.mean(
            [self.alone(s) for s in range(3)]
        )

    def test_true_values_help_most(self) -> None:
        def told(fidelity: float) -> Callable[[int], float]:
            def wrong(seed: int) -> float:
                sampler = ScreeningSampler(cheap=cheap, space=draw, seed=seed)
                study = stopped(
                    told_study(sampler, seed, 8),
                    seed,
                    25,
                    lambda params: [observed({0: evaluate(params)[0]}, fidelity)],
                )
                return wrongness(sampler, study)

            return wrong

        assert compared(told(1.0), self.alone, 5) < -3.0
        assert compared(told(1.0), told(0.0), 5) < 0.0

    def test_what_is_partial_is_never_on_the_front(self) -> None:
        study = told_study(ScreeningSampler(seed=0), 0, 10)
        history = History(Losses(study.directions, ()))
        history.update(study.trials, {})
        front, values = list(history.front), history.values.copy()
        for told in ({0: -50.0, 1: 0.0}, {0: -60.0}):
            stopped(study, 0, 3, lambda params, told=told: [observed(told), observed(told, 0.5)])
        history.update(study.trials, {})
        assert history.front == front
        np.testing.assert_array_equal(history.values, values)
        assert len(history.observations) == 10 + 12
        assert len(history.series[0]) == 10 + 12
        assert len(history.series[1]) == 10 + 6

    def test_a_whole_trial_tells_its_values_once(self) -> None:
        def outlook(told: Sequence[Any]) -> float:
            sampler = ScreeningSampler(cheap=cheap, space=draw, seed=0)
            study = optuna.create_study(directions=["minimize"] * 2, sampler=sampler)
            for params, distributions in drawn(12, 0):
                study.add_trial(
                    create_trial(
                        params=params,
                        distributions=distributions,
                        values=evaluate(params),
                        user_attrs={PARTIAL_KEY: list(told)},
                    )
                )
            result = sampler.outlook(study)
            assert result is not None
            return result.gain

        assert outlook([observed({0: 3.0, 1: 7.0})]) == outlook([])

    def test_objectives_that_gated_trials_have_are_learnt(self) -> None:
        def wrong(told: Callable[..., Any]) -> float:
            sampler = ScreeningSampler(space=draw, seed=0)
            study = stopped(told_study(sampler, 0, 12), 0, 30, told)
            errors = []
            for params, distributions in drawn(40, 5000):
                expected = sampler.optimistic(study, params, distributions, 0.0)
                assert expected is not None
                errors.append(abs(expected[1] - evaluate(params)[1]))
            return float(np.mean(errors))

        size = wrong(lambda params: [observed({1: evaluate(params)[1]})])
        assert size < 0.6 * wrong(lambda params: [])

    @pytest.mark.parametrize("rungs", [(), (0.5,), (0.25, 0.5)])
    def test_a_search_that_is_taken_up_proposes_the_same(self, rungs: Sequence[float]) -> None:
        def run(study: optuna.Study, trials: int) -> None:
            for _ in range(trials):
                trial = study.ask()
                params = draw(trial)
                told = [observed({0: halfway(params) + 1 - rung}, rung) for rung in rungs]
                trial.set_user_attr(PARTIAL_KEY, told)
                if trial.number % 3 == 2:
                    study.tell(trial, state=TrialState.PRUNED)
                else:
                    study.tell(trial, evaluate(params))

        def fresh() -> optuna.Study:
            sampler = ScreeningSampler(cheap=cheap, space=draw, seed=4)
            return optuna.create_study(directions=["minimize"] * 2, sampler=sampler)

        whole, again = fresh(), fresh()
        run(whole, 24)
        again.add_trials(whole.trials[:15])
        run(again, 9)
        assert keys(again) == keys(whole)

    def test_trials_that_end_out_of_order_are_taken_up_as_they_ended(self) -> None:
        def fresh() -> optuna.Study:
            sampler = ScreeningSampler(cheap=cheap, space=draw, seed=4)
            return optuna.create_study(directions=["minimize"] * 2, sampler=sampler)

        whole, again = fresh(), fresh()
        for _ in range(5):
            asked = [whole.ask() for _ in range(3)]
            params = [draw(trial) for trial in asked]
            for position in (2, 0, 1):
                whole.tell(asked[position], evaluate(params[position]))
        again.add_trials(whole.trials)
        assert draw(again.ask()) == draw(whole.ask())

    @pytest.mark.parametrize(
        "entry", [3.0, {"values": {"0": 1.0}}, {"values": {"9": 1.0}, "fidelity": 1.0}]
    )
    def test_what_cannot_be_understood_names_the_trial(self, entry: object) -> None:
        sampler = ScreeningSampler(cheap=cheap, space=draw, seed=0)
        study = stopped(told_study(sampler, 0, 2), 0, 1, lambda params: [entry])
        with pytest.raises(ValueError, match=r"'parefront:told' of trial 2 .* `observed` returns"):
            draw(study.ask())

    @pytest.mark.parametrize("fidelity", [-0.1, 1.1, float("nan")])
    def test_a_fidelity_is_a_share(self, fidelity: float) -> None:
        with pytest.raises(ValueError, match="a fidelity from 0 to 1"):
            observed({0: 1.0}, fidelity)
        with pytest.raises(ValueError, match="a fidelity from 0 to 1"):
            Told({}, {}, {}, fidelity)


class TestEarlier:
    def wrong(
        self, own: int, value: Callable[[Mapping[str, Any]], float] | None
    ) -> Callable[[int], float]:
        def measured(seed: int) -> float:
            earlier = [
                Told(params, distributions, {0: value(params)}, source="another")
                for params, distributions in drawn(30, 2000 + seed)
                if value is not None
            ]
            sampler = ScreeningSampler(cheap=cheap, space=draw, seed=seed, earlier=earlier)
            return wrongness(sampler, told_study(sampler, seed, own))

        return measured

    def test_a_related_study_helps(self) -> None:
        related = self.wrong(6, lambda params: 2.0 + 0.7 * evaluate(params)[0])
        assert compared(related, self.wrong(6, None), 6) < -3.0

    @pytest.mark.parametrize("own", [20, 30])
    def test_a_misleading_study_does_little_harm_soon(self, own: int) -> None:
        opposite = self.wrong(own, lambda params: 4.0 - evaluate(params)[0])
        alone = self.wrong(own, None)
        ratio = np.exp(np.mean([np.log(opposite(s) / alone(s)) for s in range(6)]))
        assert ratio < 1.25

    def test_the_same_problem_counts_in_full(self) -> None:
        def source(name: str) -> float:
            earlier = [
                Told(params, distributions, {0: evaluate(params)[0]}, source=name)
                for params, distributions in drawn(40, 3000)
            ]
            sampler = ScreeningSampler(cheap=cheap, space=draw, seed=0, earlier=earlier)
            return wrongness(sampler, told_study(sampler, 0, 4))

        assert source("") < source("another")

    def test_there_is_a_model_from_the_first_trial_on(self) -> None:
        earlier = [Told(p, d, {0: evaluate(p)[0]}) for p, d in drawn(25, 7)]
        sampler = ScreeningSampler(cheap=cheap, space=draw, seed=0, earlier=earlier)
        study = optuna.create_study(directions=["minimize"] * 2, sampler=sampler)
        params, distributions = drawn(1, 8)[0]
        assert sampler.optimistic(study, params, distributions) is not None
        errors = []
        for _ in range(8):
            trial = study.ask()
            values = evaluate(draw(trial))
            errors.append(values[0])
            study.tell(trial, values)
        assert np.median(errors) < np.median([evaluate(p)[0] for p, _ in drawn(50, 9)])

    def test_what_does_not_fit_the_space_is_left_out(self) -> None:
        def expected(extra: Sequence[Told]) -> float:
            earlier = [Told(p, d, {0: evaluate(p)[0]}, source="a") for p, d in drawn(10, 7)]
            sampler = ScreeningSampler(cheap=cheap, space=draw, seed=0, earlier=[*earlier, *extra])
            study = told_study(sampler, 0, 8)
            params, distributions = drawn(1, 8)[0]
            bounds = sampler.optimistic(study, params, distributions, 0.0)
            assert bounds is not None
            return bounds[0]

        params, distributions = drawn(1, 11)[0]
        outside = {**params, "depth": 50}, {**distributions, "depth": IntDistribution(1, 99)}
        foreign = {"alpha": 0.5}, {"alpha": FloatDistribution(0.0, 1.0)}
        extra = [Told(p, d, {0: -1e6}, source="a") for p, d in (outside, foreign)]
        # Hyperparameters are fitted a little later.
        assert expected(extra) == pytest.approx(expected([]), rel=0.01)

    def test_names_that_the_space_lacks_are_ignored(self) -> None:
        def expected(more: Mapping[str, Any]) -> float:
            earlier = [
                Told(
                    {**p, **more},
                    {**d, **dict.fromkeys(more, FloatDistribution(0.0, 1.0))},
                    {0: evaluate(p)[0]},
                    source="a",
                )
                for p, d in drawn(10, 7)
            ]
            sampler = ScreeningSampler(cheap=cheap, space=draw, seed=0, earlier=earlier)
            study = told_study(sampler, 0, 6)
            bounds = sampler.optimistic(study, *drawn(1, 8)[0])
            assert bounds is not None
            return bounds[0]

        assert expected({"alpha": 0.3}) == pytest.approx(expected({}))

    def test_the_good_ones_from_elsewhere_are_tried_here(self) -> None:
        special = {"x": 0.123456789, "rate": 1e-3, "depth": 2, "bits": 4, "prune": False}
        distributions = next(d for p, d in drawn(20, 7) if not p["prune"])
        earlier = [Told(p, d, {0: evaluate(p)[0]}, source="a") for p, d in drawn(15, 7)]
        earlier.append(Told(special, distributions, {0: 0.1}, source="a"))
        sampler = ScreeningSampler(cheap=cheap, space=draw, seed=0, earlier=earlier)
        study = optuna.create_study(directions=["minimize"] * 2, sampler=sampler)
        for _ in range(6):
            trial = study.ask()
            study.tell(trial, evaluate(draw(trial)))
        near = {"depth": 2, "bits": 4, "prune": False}
        found = [trial.params for trial in study.trials if near.items() <= trial.params.items()]
        assert min(abs(params["x"] - special["x"]) for params in found) < 0.2
