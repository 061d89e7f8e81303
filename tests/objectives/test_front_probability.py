"""Probabilities of being on the front, against closed forms, a second implementation and laws."""

from __future__ import annotations

import math
from statistics import NormalDist

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray

from parefront.objectives.front import dominated
from parefront.objectives.front_probability import probability_on_front, settling_gain

Floats = NDArray[np.float64]

END = NormalDist().inv_cdf(0.975)
SAMPLES = 1024


def close(found: float, exact: float, samples: int = SAMPLES) -> bool:
    """Within four standard errors, and the steps of a share of samples."""
    return abs(found - exact) <= 4 * math.sqrt(exact * (1 - exact) / samples) + 2 / samples


@st.composite
def exact_sets(draw: st.DrawFn) -> tuple[Floats, list[bool]]:
    n, m = draw(st.integers(0, 10)), draw(st.integers(1, 4))
    values = draw(arrays(np.float64, (n, m), elements=st.integers(0, 5).map(float)))
    return values, draw(st.lists(st.booleans(), min_size=m, max_size=m))


@st.composite
def noisy_sets(draw: st.DrawFn) -> tuple[Floats, Floats, Floats, list[bool]]:
    values, maximize = draw(exact_sets())
    below = draw(arrays(np.float64, values.shape, elements=st.integers(0, 3).map(float)))
    above = draw(arrays(np.float64, values.shape, elements=st.integers(0, 3).map(float)))
    return values, values - below, values + above, maximize


class TestTwoPoints:
    """The probability that one beats the other is a product of normal distribution functions."""

    @pytest.mark.parametrize(("gap", "first", "second"), [(0.0, 1, 1), (1.0, 1, 2), (3.0, 2, 0.5)])
    def test_one_noisy_objective(self, gap: float, first: float, second: float) -> None:
        # The second is worse in what is exact, so it is beaten when it is slower.
        values = np.array([[0.9, 10.0], [0.8, 10.0 + gap]])
        half = np.array([[0.0, first], [0.0, second]])
        slower = NormalDist().cdf(gap * END / math.hypot(first, second))
        found = probability_on_front(values, values - half, values + half, [True, False])
        assert found[0] == 1.0
        assert close(found[1], 1 - slower)

    @pytest.mark.parametrize("gaps", [(0.0, 0.0), (1.0, -0.5), (-1.5, 0.3)])
    def test_two_noisy_objectives(self, gaps: tuple[float, float]) -> None:
        values = np.array([[0.0, 0.0], list(gaps)])
        found = probability_on_front(values, values - 1.0, values + 1.0, [False, False])
        above = [NormalDist().cdf(gap * END / math.sqrt(2)) for gap in gaps]
        assert close(found[1], 1 - above[0] * above[1])
        assert close(found[0], 1 - (1 - above[0]) * (1 - above[1]))

    @pytest.mark.parametrize(("below", "above"), [(1.0, 3.0), (3.0, 1.0), (0.0, 2.0), (2.0, 0.0)])
    def test_a_lopsided_interval(self, below: float, above: float) -> None:
        # Beaten by an exact point where its value is above that point's.
        for other, side in ((1.0, above), (-1.0, below)):
            values = np.array([[other, 0.0], [0.0, 1.0]])
            low, high = values.copy(), values.copy()
            low[1, 0], high[1, 0] = -below, above
            within = NormalDist().cdf(END / side) if side else 1.0
            beaten = 1 - within if other > 0 else within
            found = probability_on_front(values, low, high, [False, False])
            assert close(found[1], 1 - beaten)

    def test_of_equal_points_without_room_above_one_in_four_draws_is_a_tie(self) -> None:
        # As two accuracies of 1: each is 1 in half of the draws.
        values, low = np.array([[1.0], [1.0]]), np.array([[0.9], [0.9]])
        found = probability_on_front(values, low, values, [True])
        assert all(close(each, 0.625) for each in found)


def test_many_rivals_by_quadrature() -> None:
    # All as good in one exact objective; a point stays if it is the fastest of them.
    generator = np.random.default_rng(5)
    speed, half = generator.normal(size=6), generator.uniform(0.5, 2, size=6)
    values = np.column_stack([np.zeros(6), speed])
    width = np.column_stack([np.zeros(6), half])
    found = probability_on_front(values, values - width, values + width, [False, False])
    grid = np.linspace(-12, 12, 20_001)
    distributions = [NormalDist(at, each / END) for at, each in zip(speed, half, strict=True)]
    density = np.array([[each.pdf(x) for x in grid] for each in distributions])
    slower = np.array([[1 - each.cdf(x) for x in grid] for each in distributions])
    for index in range(6):
        others = np.delete(slower, index, axis=0).prod(axis=0)
        exact = float((density[index] * others).sum() * (grid[1] - grid[0]))
        assert close(found[index], exact)
    assert found.sum() == pytest.approx(1.0)


class TestLaws:
    @given(exact_sets())
    def test_without_noise_it_is_pareto_dominance(self, case: tuple[Floats, list[bool]]) -> None:
        values, maximize = case
        found = probability_on_front(values, values, values, maximize, samples=4)
        expected = ~dominated(values, values, values, maximize)
        assert found.tolist() == expected.astype(float).tolist()

    @given(noisy_sets())
    @settings(max_examples=30)
    def test_it_is_a_probability_and_some_point_is_on_the_front(
        self, case: tuple[Floats, Floats, Floats, list[bool]]
    ) -> None:
        found = probability_on_front(*case, samples=64)
        assert ((found >= 0) & (found <= 1)).all()
        assert len(found) == 0 or found.sum() >= 1 - 1e-9

    @given(noisy_sets())
    @settings(max_examples=30)
    def test_a_further_point_raises_no_other_probability(
        self, case: tuple[Floats, Floats, Floats, list[bool]]
    ) -> None:
        values, low, high, maximize = case
        before = probability_on_front(values[:-1], low[:-1], high[:-1], maximize, samples=64)
        after = probability_on_front(values, low, high, maximize, samples=64)
        assert (after[:-1] <= before).all()

    @given(noisy_sets(), st.integers(0, 1000))
    @settings(max_examples=20)
    def test_the_order_of_the_rows_does_not_matter(
        self, case: tuple[Floats, Floats, Floats, list[bool]], seed: int
    ) -> None:
        values, low, high, maximize = case
        order = np.random.default_rng(seed).permutation(len(values))
        found = probability_on_front(values, low, high, maximize)
        moved = probability_on_front(values[order], low[order], high[order], maximize)
        # Two estimates of one number.
        error = np.sqrt(found * (1 - found) / SAMPLES)
        assert (np.abs(moved - found[order]) <= 6 * error[order] + 0.01).all()

    @given(noisy_sets())
    @settings(max_examples=30)
    def test_better_is_what_the_flag_says(
        self, case: tuple[Floats, Floats, Floats, list[bool]]
    ) -> None:
        values, low, high, maximize = case
        turned = probability_on_front(-values, -high, -low, [not each for each in maximize])
        assert turned.tolist() == probability_on_front(values, low, high, maximize).tolist()

    def test_equal_exact_points_keep_each_other_company(self) -> None:
        values = np.array([[1.0, 2.0], [1.0, 2.0], [2.0, 2.0]])
        assert probability_on_front(values, values, values, [False] * 2).tolist() == [1, 1, 0]

    def test_far_beyond_the_noise_it_is_zero_and_one(self) -> None:
        values = np.array([[1.0, 1.0], [9.0, 9.0]])
        found = probability_on_front(values, values - 0.5, values + 0.5, [False, False])
        assert found.tolist() == [1.0, 0.0]

    def test_what_was_not_measured_has_none_and_beats_nothing(self) -> None:
        values = np.array([[np.nan, 0.0], [1.0, 1.0], [0.0, 0.0]])
        low, high = values - 0.1, values + 0.1
        low[2, 0] = -np.inf
        assert probability_on_front(values, low, high, [False, False]).tolist() == [0, 1, 0]

    def test_the_same_seed_gives_the_same(self) -> None:
        values = np.random.default_rng(0).normal(size=(20, 3))
        arguments = (values, values - 0.5, values + 0.5, [True, False, False])
        first = probability_on_front(*arguments, seed=3)
        assert first.tolist() == probability_on_front(*arguments, seed=3).tolist()
        assert first.tolist() != probability_on_front(*arguments, seed=4).tolist()

    def test_of_nothing_is_nothing(self) -> None:
        nothing = np.empty((0, 2))
        assert probability_on_front(nothing, nothing, nothing, [True, False]).shape == (0,)
        assert settling_gain(nothing, nothing, nothing, [True] * 2, [True] * 2).shape == (0,)

    def test_refuses_what_cannot_be(self) -> None:
        with pytest.raises(ValueError, match="expected low <= value <= high, not so in row 1"):
            probability_on_front([[1.0], [2.0]], [[0.0], [3.0]], [[1.0], [4.0]], [False])
        with pytest.raises(ValueError, match="at least one sample, got 0"):
            probability_on_front([[1.0]], [[1.0]], [[1.0]], [False], samples=0)
        with pytest.raises(ValueError, match="expected 1 flags for noise, got 2"):
            settling_gain([[1.0]], [[1.0]], [[1.0]], [False], [True, False])
        with pytest.raises(ValueError, match="a multiple of 8 samples, got 12"):
            settling_gain([[1.0]], [[1.0]], [[1.0]], [False], [True], samples=12)


def test_the_standard_error_is_what_it_is_said_to_be() -> None:
    generator = np.random.default_rng(1)
    values = generator.normal(size=(8, 2))
    low, high = values - 0.8, values + 0.8
    repeats = [
        probability_on_front(values, low, high, [False] * 2, samples=128, seed=seed)
        for seed in range(60)
    ]
    found = np.array(repeats)
    mean = found.mean(axis=0)
    # Sixty repeats know a standard deviation to a tenth of it.
    assert (found.std(axis=0) <= 1.4 * np.sqrt(mean * (1 - mean) / 128) + 1e-9).all()


class TestGain:
    NOISY = (False, True)

    def gain(self, *points: tuple[float, float, float]) -> list[float]:
        """Of points of an exact cost, a timed cost, and the half-width of its interval."""
        table = np.array(points)
        values, half = table[:, :2], np.column_stack([np.zeros(len(table)), table[:, 2]])
        found = settling_gain(values, values - half, values + half, [False] * 2, self.NOISY)
        return [float(each) for each in found]

    def test_of_one_noisy_point_it_is_the_whole_question(self) -> None:
        # p = P(X < 0.3), and knowing X answers it: p (1 - p) is settled.
        exact = NormalDist().cdf(0.3 * END)
        beaten, rival = self.gain((1.0, 0.0, 1.0), (0.0, 0.3, 0.0))
        assert beaten == pytest.approx(exact * (1 - exact), rel=0.25)  # eight parts blur it
        assert rival == 0.0  # exact already

    def test_two_alike_settle_alike(self) -> None:
        first, second = self.gain((1.0, 0.0, 1.0), (0.0, 0.0, 1.0))
        # By half the plane: the variance of the normal distribution function is 1 / 12.
        assert first == pytest.approx(1 / 12, rel=0.1)
        assert second == pytest.approx(first, rel=0.1)

    def test_a_rival_of_many_settles_more_than_each_of_them(self) -> None:
        slower = [(1.0, 0.1, 0.4), (2.0, 0.0, 0.4), (3.0, -0.1, 0.4)]
        rival, *others = self.gain((0.0, 0.0, 1.0), *slower)
        assert rival > max(others)

    def test_nothing_open_is_nothing_to_settle(self) -> None:
        assert self.gain((0.0, 0.0, 1.0), (1.0, 9.0, 1.0)) == [0.0, 0.0]
        assert self.gain((0.0, 1.0, 0.1), (1.0, 0.0, 0.1)) == [0.0, 0.0]
        assert self.gain((0.0, 1.0, 0.0), (1.0, 1.0, 0.0)) == [0.0, 0.0]

    def test_what_another_objective_decides_is_not_settled(self) -> None:
        # Open in the first objective, which measuring again does not sharpen.
        values = np.array([[0.0, 1.0], [0.1, 2.0]])
        half = np.array([[0.5, 0.2], [0.5, 0.2]])
        low, high = values - half, values + half
        assert 0.05 < probability_on_front(values, low, high, [False] * 2)[1] < 0.95
        assert settling_gain(values, low, high, [False] * 2, [False, True]).tolist() == [0, 0]
        assert (settling_gain(values, low, high, [False] * 2, [True, False]) > 0).all()
