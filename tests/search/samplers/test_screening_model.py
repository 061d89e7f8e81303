"""Gaussian process and warp against closed forms, plain formulas and differences."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from parefront.search.samplers.screening.gaussian_process import GaussianProcess
from parefront.search.samplers.screening.hyper import Columns, Hyper
from parefront.search.samplers.screening.hyper_fit import Posterior, fit
from parefront.search.samplers.screening.model import Fitted, Model
from parefront.search.samplers.screening.selection import spread
from parefront.search.samplers.screening.warping import Warp

Floats = NDArray[np.float64]
COLUMNS = Columns(np.array([0, 1, 1]), np.array([True, False, False]))
HYPER = Hyper(np.log([0.7, 1.5]), np.log(0.8), np.log(0.2), np.log(0.1), np.log(0.01))
CONTEXT = Columns(np.array([0, 1, 1, 2, 3]), np.array([True, False, False, False, False]), 2)
HYPER_CONTEXT = Hyper(np.log([0.7, 1.5, 2.0, 0.4]), *HYPER.vector()[-4:].tolist())


def matern(a: Floats, b: Floats, lengths: Floats) -> float:
    r = np.sqrt(5.0 * (((a - b) / lengths) ** 2).sum())
    return float((1.0 + r + r**2 / 3.0) * np.exp(-r))


def kernel(a: Floats, b: Floats) -> float:
    """The kernel of two points as written in the papers; what comes after three is context."""
    hyper, columns = (HYPER, COLUMNS) if len(a) == 3 else (HYPER_CONTEXT, CONTEXT)
    lengths = np.exp(hyper.lengths)[columns.groups]
    whole = np.exp(hyper.scale) * matern(a, b, lengths)
    line = np.exp(hyper.linear) * 12.0 / 2.0 * ((a[:3] - 0.5) @ (b[:3] - 0.5))
    p, q = (a[0] - 0.5) ** 2 - 1.0 / 12.0, (b[0] - 0.5) ** 2 - 1.0 / 12.0
    curve = np.exp(hyper.quadratic) * 180.0 / 2.0 * p * q
    alike = matern(a[3:], b[3:], lengths[3:])
    return float(whole + alike * (line + curve) + 1.0 + a[3:] @ b[3:])


class TestGaussianProcess:
    random = np.random.default_rng(0)
    inputs = random.random((9, 3))
    targets = random.normal(size=9)
    seen = np.hstack([inputs, random.choice([0.0, 0.5, 1.0], (9, 2))])

    def covariance(self, a: Floats, b: Floats) -> Floats:
        return np.array([[kernel(x, y) for y in b] for x in a])

    @pytest.mark.parametrize("context", [False, True])
    def test_predicts_by_the_textbook_formulas(self, context: bool) -> None:
        inputs, columns, hyper = self.inputs, COLUMNS, HYPER
        there = np.random.default_rng(1).random((4, 3))
        if context:
            inputs, columns, hyper = self.seen, CONTEXT, HYPER_CONTEXT
            there = np.hstack([there, np.array([[0.0, 0.0], [0.5, 0.0], [0.0, 1.0], [1.0, 1.0]])])
        noisy = self.covariance(inputs, inputs) + 0.01 * np.eye(9)
        cross = self.covariance(there, inputs)
        mean = cross @ np.linalg.solve(noisy, self.targets)
        variance = self.covariance(there, there) - cross @ np.linalg.solve(noisy, cross.T)
        got, deviation = GaussianProcess(inputs, columns, self.targets, hyper).predict(there)
        np.testing.assert_allclose(got, mean, rtol=1e-5)
        np.testing.assert_allclose(deviation, np.sqrt(np.diag(variance)), rtol=1e-5)

    def test_a_context_that_is_never_another_changes_nothing(self) -> None:
        inputs = np.hstack([self.inputs, np.zeros((9, 2))])
        hyper, _ = fit(inputs, CONTEXT, self.targets)
        plain, _ = fit(self.inputs, COLUMNS, self.targets)
        np.testing.assert_allclose(hyper.lengths[:2], plain.lengths)
        np.testing.assert_allclose(hyper.vector()[-4:], plain.vector()[-4:])
        there = GaussianProcess(inputs, CONTEXT, self.targets, hyper).predict(inputs)
        again = GaussianProcess(self.inputs, COLUMNS, self.targets, plain).predict(self.inputs)
        np.testing.assert_allclose(there, again)

    def test_gradients_are_differences(self) -> None:
        posterior = Posterior(self.seen, CONTEXT, self.targets)
        vector = HYPER_CONTEXT.vector()
        _, gradient = posterior.loss(vector)
        for axis, slope in enumerate(gradient):
            step = np.zeros(len(vector))
            step[axis] = 1e-5
            change = posterior.loss(vector + step)[0] - posterior.loss(vector - step)[0]
            assert change / 2e-5 == pytest.approx(slope, rel=1e-4, abs=1e-6)

    def test_left_out_errors_are_those_of_leaving_out(self) -> None:
        got = GaussianProcess(self.inputs, COLUMNS, self.targets, HYPER).left_out()
        for row in range(9):
            others = np.arange(9) != row
            process = GaussianProcess(self.inputs[others], COLUMNS, self.targets[others], HYPER)
            mean, deviation = process.predict(self.inputs[row : row + 1])
            expected = (self.targets[row] - mean[0]) / np.hypot(deviation[0], 0.1)
            assert got[row] == pytest.approx(expected, rel=1e-4)

    def test_fitting_finds_what_the_data_were_drawn_from(self) -> None:
        random = np.random.default_rng(1)
        inputs = random.random((70, 2))
        columns = Columns(np.array([0, 1]), np.array([True, True]))
        targets = np.sin(9.0 * inputs[:, 0]) + 0.05 * random.normal(size=70)
        targets = (targets - targets.mean()) / targets.std()
        hyper, posterior = fit(inputs, columns, targets)
        # The second column means nothing, the noise has a variance of about 0.005.
        assert hyper.lengths[1] > hyper.lengths[0] + 1.0
        assert 0.001 < np.exp(hyper.noise) < 0.02
        assert posterior > fit(inputs, columns, targets, steps=1)[1]

    def test_points_that_coincide_do_no_harm(self) -> None:
        inputs = np.repeat(self.inputs[:2], 20, axis=0)
        targets = np.repeat(self.targets[:2], 20)
        hyper, _ = fit(inputs, COLUMNS, targets)
        mean, _ = GaussianProcess(inputs, COLUMNS, targets, hyper).predict(inputs[::20])
        np.testing.assert_allclose(mean, targets[::20], atol=0.05)


class TestModel:
    def test_a_skewed_function_is_predicted_and_calibrated(self) -> None:
        random = np.random.default_rng(2)
        inputs = random.random((120, 3))
        values = 100.0 + np.exp(3.0 * inputs[:, 0] + inputs[:, 1] ** 2)
        columns = Columns(np.arange(3), np.ones(3, dtype=bool))
        known, rest = slice(0, 40), slice(40, 120)
        fitted = Fitted.of(inputs[known], columns, values[known])
        model = Model(inputs[known], columns, values[known], fitted)
        mean, deviation = model.predict(inputs[rest])
        truth = model.warp.forward(values[rest])
        assert np.corrcoef(mean, truth)[0, 1] > 0.99
        assert np.mean(np.abs(mean - truth) < 3.0 * deviation + 0.02) > 0.8
        assert fitted.power < 1.0

    def test_it_takes_what_it_believes_for_known(self) -> None:
        random = np.random.default_rng(3)
        inputs, there = random.random((12, 3)), random.random((2, 3))
        values = inputs.sum(axis=1)
        model = Model(inputs, COLUMNS, values, Fitted.of(inputs, COLUMNS, values))
        before, wide = model.predict(there)
        sure, believed = model.believing(there)
        after, narrow = sure.predict(there)
        np.testing.assert_allclose(model.warp.forward(believed), before, rtol=1e-6)
        np.testing.assert_allclose(after, before, atol=0.02)
        assert (narrow <= wide + 1e-9).all()

    def test_some_beliefs_move_no_prediction_and_make_all_surer(self) -> None:
        random = np.random.default_rng(4)
        inputs, there = random.random((12, 3)), random.random((40, 3))
        values = inputs.sum(axis=1)
        model = Model(inputs, COLUMNS, values, Fitted.of(inputs, COLUMNS, values))
        some, of_some = model.believing(there, np.array([0, 7, 20]))
        every, of_all = model.believing(there)
        np.testing.assert_array_equal(of_some, of_all)
        before, wide = model.predict(there)
        after, narrow = some.predict(there)
        np.testing.assert_allclose(after, before, atol=1e-4)
        assert (narrow <= wide + 1e-9).all()
        assert (every.predict(there)[1] <= narrow + 1e-9).all()


@pytest.mark.parametrize("context", [0, 2])
def test_data_that_come_later_count_as_if_they_had_been_there(context: int) -> None:
    random = np.random.default_rng(5)
    columns = Columns(np.arange(3 + context), np.ones(3 + context, dtype=bool), context)
    inputs, targets = random.random((30, 3 + context)), random.normal(size=30)
    there = random.random((10, 3 + context))
    hyper = Hyper.prior(columns)
    whole = GaussianProcess(inputs, columns, targets, hyper)
    part = GaussianProcess(inputs[:18], columns, targets[:18], hyper)
    joined = part.joined(inputs[18:25], targets[18:25]).joined(inputs[25:], targets[25:])
    for found, wanted in zip(joined.predict(there), whole.predict(there), strict=True):
        np.testing.assert_allclose(found, wanted, rtol=1e-6, atol=1e-8)
    np.testing.assert_allclose(joined.left_out(), whole.left_out(), rtol=1e-6)
    np.testing.assert_allclose(joined.mean(there), whole.predict(there)[0], rtol=1e-6)


class TestSpread:
    @given(st.integers(1, 9), st.integers(1, 5), st.integers(0, 10**6))
    def test_none_is_farther_than_twice_the_least_possible(
        self, rows: int, count: int, seed: int
    ) -> None:
        points = np.random.default_rng(seed).random((rows, 2))
        chosen = spread(points, count)
        assert len(set(chosen.tolist())) == min(rows, count)

        def farthest(some: Sequence[int]) -> float:
            gaps = np.linalg.norm(points[:, None] - points[list(some)][None], axis=2)
            return float(gaps.min(axis=1).max())

        least = min(farthest(some) for some in combinations(range(rows), min(rows, count)))
        assert farthest(chosen.tolist()) <= 2.0 * least + 1e-7

    def test_points_that_coincide_are_chosen_once_each(self) -> None:
        assert spread(np.zeros((5, 2)), 3).tolist() == [0, 1, 2]


class TestWarp:
    @given(
        st.lists(st.floats(-1e6, 1e6).map(lambda v: round(v, 6)), min_size=1, max_size=30),
        st.none() | st.sampled_from([-2.0, 0.0, 0.5, 1.0, 2.0, 4.0]),
    )
    def test_there_and_back(self, values: list[float], power: float | None) -> None:
        given_values = np.array(values)
        warp = Warp.of(given_values, power)
        back = warp.backward(warp.forward(given_values))
        np.testing.assert_allclose(back, given_values, rtol=1e-5, atol=1e-5 * warp.spread)

    def test_makes_skewed_values_symmetric(self) -> None:
        values = np.random.default_rng(0).lognormal(sigma=0.8, size=400)
        for sign in (1.0, -1.0):
            warped = Warp.of(sign * values).forward(sign * values)
            assert abs(np.mean(warped**3)) < 0.3 < abs(np.mean(((values - 1.4) / 1.3) ** 3))
            assert warped.mean() == pytest.approx(0.0, abs=1e-9)
            assert warped.std() == pytest.approx(1.0)

    def test_slopes_are_those_of_differences(self) -> None:
        values = np.random.default_rng(0).normal(size=20) ** 3
        warp = Warp.of(values)
        near = warp.forward(values + 1e-6) - warp.forward(values - 1e-6)
        slope = np.log(near / 2e-6 * warp.spread).sum()
        assert warp.log_slope(values) == pytest.approx(slope, abs=1e-3)

    def test_far_away_is_finite(self) -> None:
        for power in (-2.0, 0.0, 4.0):
            far = Warp.of(np.arange(9.0), power).backward(np.array([-1e9, 1e9]))
            assert np.isfinite(far).all()
