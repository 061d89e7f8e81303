"""What was seen elsewhere, and how far it is trusted."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import optuna
import pytest
from optuna.distributions import FloatDistribution, IntDistribution

from parefront.search.samplers import ScreeningSampler, Told
from tests.search.samplers.screening_cases import cheap, draw, evaluate
from tests.search.samplers.screening_told import compared, drawn, told_study, wrongness


@pytest.fixture(autouse=True)
def _quiet() -> None:
    optuna.logging.set_verbosity(optuna.logging.ERROR)


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
