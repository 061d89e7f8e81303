"""Which objectives and constraints the screening sampler knows, and what it makes of them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

import numpy as np
import optuna
import pytest
from optuna.trial import TrialState

from parefront.search.samplers import ScreeningSampler
from parefront.search.samplers.screening.candidates import key_of
from tests.search.samplers.screening_cases import (
    ALL,
    cheap,
    draw,
    evaluate,
    keys,
    size_of,
    started,
    volume,
)


@pytest.fixture(autouse=True)
def _quiet() -> None:
    optuna.logging.set_verbosity(optuna.logging.ERROR)


class TestObjectives:
    @pytest.mark.parametrize("arguments", ALL)
    def test_finds_more_than_random_draws(self, arguments: dict[str, Any]) -> None:
        ours = [volume(started(ScreeningSampler(seed=s, **arguments), 35)) for s in range(3)]
        random = [
            volume(started(optuna.samplers.RandomSampler(seed=seed), 35)) for seed in range(3)
        ]
        assert np.mean(ours) > np.mean(random)
        assert min(ours) > min(random)

    def test_directions_are_honoured(self) -> None:
        def run(direction: Literal["minimize", "maximize"], sign: float) -> list[object]:
            study = optuna.create_study(
                directions=["minimize", direction],
                sampler=ScreeningSampler(
                    cheap=lambda params: {1: sign * size_of(params)}, space=draw, seed=2
                ),
            )
            for _ in range(15):
                trial = study.ask()
                error, size = evaluate(draw(trial))
                study.tell(trial, [error, sign * size])
            return keys(study)

        assert run("minimize", 1.0) == run("maximize", -1.0)

    def test_a_dear_trial_needs_a_larger_gain(self) -> None:
        def cost(params: Mapping[str, Any]) -> float:
            return 1000.0 if params["prune"] else 1.0

        sampler = ScreeningSampler(cheap=cheap, space=draw, cost=cost, seed=0)
        pruned = [trial.params["prune"] for trial in started(sampler, 24).trials[4:]]
        free = started(ScreeningSampler(cheap=cheap, space=draw, seed=0), 24)
        assert sum(pruned) < sum(trial.params["prune"] for trial in free.trials[4:])

    def test_answers_in_batches_are_the_same_answers(self) -> None:
        def batch(many: list[Mapping[str, Any]]) -> list[dict[int | str, float]]:
            return [cheap(params) for params in many]

        one = started(ScreeningSampler(cheap=cheap, space=draw, seed=0), 12)
        many = started(ScreeningSampler(cheap=batch, batched=True, space=draw, seed=0), 12)
        assert keys(one) == keys(many)

    def test_each_candidate_is_looked_up_once(self) -> None:
        asked: list[object] = []

        def noted(params: Mapping[str, Any]) -> dict[int | str, float]:
            asked.append(key_of(params))
            return cheap(params)

        started(ScreeningSampler(cheap=noted, space=draw, seed=0), 12)
        assert len(asked) == len(set(asked)) > 100

    def test_what_cannot_be_looked_up_is_not_tried(self) -> None:
        def broken(params: Mapping[str, Any]) -> dict[int | str, float]:
            return {1: float("nan") if params["prune"] else size_of(params)}

        study = started(ScreeningSampler(cheap=broken, space=draw, seed=0), 15)
        assert not any(trial.params["prune"] for trial in study.trials)

    def test_nothing_beyond_the_best_there_can_be_is_hoped_for(self) -> None:
        def clipped(trial: optuna.Trial) -> tuple[float, float]:
            error, size = evaluate(draw(trial))
            return max(0.0, error - 1.5), size

        hoped = []
        for best in (None, {0: 0.0}):
            sampler = ScreeningSampler(cheap=cheap, space=draw, best=best, seed=1)
            study = optuna.create_study(directions=["minimize"] * 2, sampler=sampler)
            study.optimize(clipped, n_trials=25)
            trial = min(study.trials, key=lambda each: each.values[0])
            assert trial.values[0] == 0.0
            values = sampler.optimistic(study, trial.params, trial.distributions)
            assert values is not None
            hoped.append(values[0])
        assert hoped[0] < 0.0
        assert hoped[1] == 0.0

    def test_the_best_of_an_objective_that_does_not_exist(self) -> None:
        with pytest.raises(ValueError, match="expected objectives 0 to 1, got a value of 2"):
            started(ScreeningSampler(space=draw, best={2: 1.0}, seed=0), 2)

    def test_infinite_values_do_no_harm(self) -> None:
        study = optuna.create_study(
            directions=["minimize"] * 2, sampler=ScreeningSampler(space=draw, seed=0)
        )
        for number in range(16):
            trial = study.ask()
            error, size = evaluate(draw(trial))
            study.tell(trial, [float("inf") if number % 5 == 0 else error, size])
        assert len(set(keys(study))) == 16

    def test_equal_values_do_no_harm(self) -> None:
        study = optuna.create_study(
            directions=["minimize"] * 2, sampler=ScreeningSampler(space=draw, seed=0)
        )
        for _ in range(16):
            trial = study.ask()
            draw(trial)
            study.tell(trial, [1.0, 0.0])
        assert len(set(keys(study))) == 16


class TestConstraints:
    def test_those_that_are_cheap_are_kept_exactly(self) -> None:
        def bounded(params: Mapping[str, Any]) -> dict[int | str, float]:
            size = size_of(params)
            return {1: size, "size": size - 20.0}

        study = optuna.create_study(
            directions=["minimize"] * 2,
            sampler=ScreeningSampler(cheap=bounded, space=draw, seed=0),
        )
        for _ in range(20):
            trial = study.ask()
            values = evaluate(draw(trial))
            trial.set_constraint("size", values[1] - 20.0)
            study.tell(trial, values)
        assert max(trial.values[1] for trial in study.trials) <= 20.0

    def test_those_that_are_dear_are_learnt(self) -> None:
        def share(constrained: bool) -> float:
            study = optuna.create_study(
                directions=["minimize"] * 2,
                sampler=ScreeningSampler(cheap=cheap, space=draw, seed=0),
            )
            for _ in range(40):
                trial = study.ask()
                params = draw(trial)
                if constrained:
                    trial.set_constraint("x", 0.3 - params["x"])
                study.tell(trial, evaluate(params))
            return float(np.mean([trial.params["x"] >= 0.3 for trial in study.trials[10:]]))

        assert share(constrained=True) > 0.6 > share(constrained=False)

    def test_trials_that_were_pruned_for_a_bound_teach_it(self) -> None:
        study = optuna.create_study(
            directions=["minimize"] * 2,
            sampler=ScreeningSampler(cheap=cheap, space=draw, seed=0),
        )
        for _ in range(40):
            trial = study.ask()
            params = draw(trial)
            trial.set_constraint("x", 0.3 - params["x"])
            if params["x"] < 0.3:
                study.tell(trial, state=TrialState.PRUNED)
            else:
                study.tell(trial, evaluate(params))
        assert np.mean([trial.params["x"] >= 0.3 for trial in study.trials[20:]]) > 0.6

    def test_nothing_feasible_is_no_reason_to_stop(self) -> None:
        study = optuna.create_study(
            directions=["minimize"] * 2,
            sampler=ScreeningSampler(
                cheap=lambda params: {1: size_of(params), "never": 1.0}, space=draw, seed=0
            ),
        )
        for _ in range(12):
            trial = study.ask()
            values = evaluate(draw(trial))
            trial.set_constraint("never", 1.0)
            study.tell(trial, values)
        assert len(set(keys(study))) == 12
