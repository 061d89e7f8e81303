"""What trials tell besides their values: at low fidelity, or only in part."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import optuna
import pytest
from optuna.trial import TrialState, create_trial

from parefront.search.samplers import PARTIAL_KEY, ScreeningSampler, Told, observed
from parefront.search.samplers.screening.history import History
from parefront.search.samplers.screening.observations import Losses
from tests.search.samplers.screening_cases import cheap, draw, evaluate, keys
from tests.search.samplers.screening_told import compared, drawn, told_study, wrongness


@pytest.fixture(autouse=True)
def _quiet() -> None:
    optuna.logging.set_verbosity(optuna.logging.ERROR)


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
