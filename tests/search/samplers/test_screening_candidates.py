"""Candidates, and the rows of numbers that stand for them."""

from __future__ import annotations

from random import Random

import numpy as np
import optuna
import pytest
from hypothesis import given
from hypothesis import strategies as st

from parefront.search.samplers.screening import encoding
from parefront.search.samplers.screening.candidates import generator
from parefront.search.samplers.screening.drawn_space import DrawnSpace
from parefront.search.samplers.screening.encoding import Encoder
from parefront.search.samplers.screening.gaussian_process import GaussianProcess
from parefront.search.samplers.screening.hyper_fit import fit
from parefront.search.samplers.screening.values import at_position, neighbour, position_of


def draw(trial: optuna.trial.BaseTrial) -> None:
    trial.suggest_float("rate", 1e-3, 1.0, log=True)
    trial.suggest_categorical("bits", (4, 8, 16))
    if trial.suggest_categorical("prune", (False, True)):
        trial.suggest_float("ratio", 0.0, 1.0)
    elif trial.suggest_categorical("share", (False, True)):
        trial.suggest_categorical("kind", ("a", "b", None))


class TestCandidates:
    @given(st.integers(0, 2**32 - 1), st.floats(0.0, 1.0))
    def test_positions_and_neighbours_stay_within_bounds(self, seed: int, share: float) -> None:
        random = Random(seed)
        each: optuna.distributions.FloatDistribution | optuna.distributions.IntDistribution
        for each in (
            optuna.distributions.FloatDistribution(-2.0, 3.0),
            optuna.distributions.FloatDistribution(1e-5, 1e2, log=True),
            optuna.distributions.FloatDistribution(0.0, 1.0, step=0.25),
            optuna.distributions.IntDistribution(1, 7),
            optuna.distributions.IntDistribution(1, 100, log=True),
            optuna.distributions.IntDistribution(4, 64, step=4),
        ):
            value = at_position(each, share)
            assert each.low <= value <= each.high
            near = neighbour(each, value, random)
            assert each.low <= near <= each.high
            assert type(near) is type(value)
            assert at_position(each, position_of(each, value)) == pytest.approx(value)

    def test_a_grid_never_stands_still(self) -> None:
        each = optuna.distributions.IntDistribution(1, 3)
        for seed in range(200):
            random = Random(seed)
            random_jump = Random(seed).random() < 0.2
            assert random_jump or neighbour(each, 2, random) != 2

    def test_rows_tell_candidates_apart(self) -> None:
        space = DrawnSpace(draw)
        sample = [space.draw(generator(0, i), {}) for i in range(200)]
        encoder = Encoder(sample)
        rows = encoder.encode(sample)
        assert len({row.tobytes() for row in rows}) == len({each.key for each in sample})
        assert ((rows >= 0.0) & (rows <= 1.0)).all()
        assert len(encoder.columns.groups) == rows.shape[1]

    def test_two_categories_are_at_distance_one(self) -> None:
        space = DrawnSpace(lambda trial: trial.suggest_categorical("kind", ("a", "b", "c")))
        sample = [space.draw(generator(0), {"kind": kind}) for kind in "abc"]
        rows = Encoder(sample).encode(sample)
        for one in range(3):
            for other in range(one):
                assert np.linalg.norm(rows[one] - rows[other]) == pytest.approx(1.0)

    def test_wanted_values_are_taken_where_they_fit(self) -> None:
        wanted = {"prune": True, "ratio": 0.3, "bits": 5, "rate": 7.0, "kind": "a"}
        params = DrawnSpace(draw).draw(generator(0), wanted).params
        assert params["ratio"] == 0.3
        assert params["rate"] == 1.0
        assert params["bits"] in (4, 8, 16)
        assert "kind" not in params


class TestPooling:
    def layers(self, trial: optuna.trial.BaseTrial) -> None:
        for layer in range(5):
            trial.suggest_categorical(f"layer{layer}", ("a", "b", "c"))
            trial.suggest_float(f"ratio{layer}", 0.0, 1.0)
        trial.suggest_categorical("other", ("a", "b"))

    def test_what_layers_have_in_common_has_columns_of_its_own(self) -> None:
        space = DrawnSpace(self.layers)
        sample = [space.draw(generator(0, i), {}) for i in range(100)]
        encoder = Encoder(sample)
        rows = encoder.encode(sample)
        pooled = rows[:, -4:]
        for column, letter in enumerate("abc"):
            counts = [[each.params[f"layer{i}"] for i in range(5)].count(letter) for each in sample]
            assert np.corrcoef(pooled[:, column], counts)[0, 1] == pytest.approx(1.0)
        ratios = [np.mean([each.params[f"ratio{i}"] for i in range(5)]) for each in sample]
        assert np.corrcoef(pooled[:, 3], ratios)[0, 1] == pytest.approx(1.0)
        np.testing.assert_allclose(pooled.mean(axis=0), 0.5)
        np.testing.assert_allclose(pooled.std(axis=0), 0.25)
        # Each is a group of its own, and no parabola is fitted to it.
        assert len(set(encoder.columns.groups[-4:]) - set(encoder.columns.groups[:-4])) == 4
        assert not encoder.columns.curved[-4:].any()

    def test_two_parameters_have_nothing_in_common(self) -> None:
        space = DrawnSpace(lambda trial: [trial.suggest_float(name, 0, 1) for name in "xy"])
        sample = [space.draw(generator(0, i), {}) for i in range(20)]
        rows = Encoder(sample).encode(sample)
        assert rows.shape == (20, 2)

    def test_what_a_choice_does_in_some_layers_is_expected_in_others(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        space = DrawnSpace(self.layers)
        random = [space.draw(generator(0, i), {}) for i in range(150)]
        # In the last layer, only one choice was ever tried.
        told = [each for each in random if each.params["layer4"] == "a"][:30]
        last = [(each, space.draw(generator(1), {**each.params, "layer4": "b"})) for each in told]

        def expected() -> float:
            """What the other choice is expected to do, of something that each `b` adds 1 to."""
            encoder = Encoder(random)
            rows = encoder.encode(told)
            layers = [[each.params[f"layer{i}"] for i in range(5)] for each in told]
            values = np.array([each.count("b") for each in layers], dtype=float)
            targets = (values - values.mean()) / values.std()
            hyper, _ = fit(rows, encoder.columns, targets)
            process = GaussianProcess(rows, encoder.columns, targets, hyper)
            before, after = (
                process.predict(encoder.encode(each))[0] for each in zip(*last, strict=True)
            )
            return float(np.mean(after - before) * values.std())

        pooled = expected()
        monkeypatch.setattr(encoding, "ALIKE", 99)
        assert pooled > 0.2 > 0.05 > expected()
