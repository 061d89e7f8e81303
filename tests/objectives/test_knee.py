"""The balanced point of a front and distances to its ideal."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray

from parefront.objectives.knee import SAME_DISTANCE, distance_to_ideal, knee

Floats = NDArray[np.float64]


@st.composite
def sets(draw: st.DrawFn) -> tuple[Floats, list[bool]]:
    n, m = draw(st.integers(1, 12)), draw(st.integers(1, 4))
    values = draw(arrays(np.float64, (n, m), elements=st.integers(0, 8).map(float)))
    return values, draw(st.lists(st.booleans(), min_size=m, max_size=m))


class TestKnee:
    def test_of_an_l_shaped_front_is_its_corner(self) -> None:
        values = [[0.0, 10.0], [1.0, 1.0], [10.0, 0.0]]
        assert knee(values, [False, False], [False, False]) == 1

    def test_of_maximised_and_minimised_objectives(self) -> None:
        values = [[0.95, 100.0], [0.94, 20.0], [0.60, 10.0]]
        assert knee(values, [True, False], [False, False]) == 1

    def test_a_log_scale_weighs_ratios(self) -> None:
        values = [[0.0, 100.0], [0.5, 30.0], [0.6, 8.0], [1.0, 1.0]]
        # Lengths by hand: 0.58 and 0.60 linearly, 0.89 and 0.75 by ratio.
        assert knee(values, [False, False], [False, False]) == 1
        assert knee(values, [False, False], [False, True]) == 2

    def test_of_equally_near_points_is_the_first(self) -> None:
        mirrored = [[0.0, 1.0], [0.1, 0.7], [0.7, 0.1], [1.0, 0.0]]
        assert knee(mirrored, [False, False], [False, False]) == 1
        assert knee(mirrored[::-1], [False, False], [False, False]) == 1

    def test_of_one_point_is_that_point(self) -> None:
        assert knee([[0.9, 5.0, 7.0]], [True, False, False], [False, True, True]) == 0

    def test_is_never_a_point_that_was_not_measured(self) -> None:
        assert knee([[np.nan, 0.0], [1.0, 1.0]], [False, False], [False, False]) == 1

    @given(sets())
    def test_depends_on_no_unit(self, case: tuple[Floats, list[bool]]) -> None:
        values, maximize = case
        log = [False] * len(maximize)
        # Powers of two change no digit of a float.
        assert knee(values * 1024, maximize, log) == knee(values, maximize, log)
        positive = values + 1
        assert knee(positive * 1024, maximize, [True] * len(log)) == knee(
            positive, maximize, [True] * len(log)
        )

    def test_refuses_what_has_no_logarithm_or_no_points(self) -> None:
        with pytest.raises(ValueError, match=r"expected positive values in column 1 .* got 0\.0"):
            knee([[1.0, 0.0]], [True, False], [False, True])
        with pytest.raises(ValueError, match="at least one row"):
            knee(np.empty((0, 2)), [True, False], [False, False])


class TestDistance:
    def test_of_known_points(self) -> None:
        values = [[0.0, 4.0], [1.0, 1.0], [2.0, 0.0]]
        found = distance_to_ideal(values, [False, False], [False, False])
        assert found.tolist() == [1.0, pytest.approx(np.hypot(0.5, 0.25)), 1.0]
        weighted = distance_to_ideal(values, [False, False], [False, False], [4.0, 2.0])
        assert weighted.tolist() == [0.5, pytest.approx(np.hypot(0.5, 0.125)), 1.0]

    def test_what_was_not_measured_is_infinitely_far(self) -> None:
        found = distance_to_ideal([[np.nan, 0.0], [1.0, 1.0]], [False] * 2, [False] * 2, [0.0, 1.0])
        assert found.tolist() == [np.inf, 0.0]

    @given(sets(), st.data())
    def test_only_proportions_of_weights_matter(
        self, case: tuple[Floats, list[bool]], data: st.DataObject
    ) -> None:
        values, maximize = case
        weights = data.draw(
            st.lists(st.floats(0, 10), min_size=len(maximize), max_size=len(maximize))
        )
        assume(max(weights) > 1e-3)
        factor = data.draw(st.floats(1e-3, 1e3))
        log = [False] * len(maximize)
        once = distance_to_ideal(values, maximize, log, weights)
        again = distance_to_ideal(values, maximize, log, [factor * each for each in weights])
        assert again == pytest.approx(once, abs=SAME_DISTANCE)

    @given(sets())
    def test_a_better_point_is_never_further(self, case: tuple[Floats, list[bool]]) -> None:
        values, maximize = case
        distance = distance_to_ideal(values, maximize, [False] * len(maximize))
        costs = values * np.where(maximize, -1.0, 1.0)
        for mine, other in zip(*np.nonzero((costs[:, None] <= costs).all(axis=2)), strict=True):
            assert distance[mine] <= distance[other] + SAME_DISTANCE

    @pytest.mark.parametrize("weights", [[1.0], [-1.0, 1.0], [0.0, 0.0], [np.inf, 1.0]])
    def test_refuses_weights_that_mean_nothing(self, weights: list[float]) -> None:
        with pytest.raises(ValueError, match="expected 2 weights of zero or more, at least one"):
            distance_to_ideal([[1.0, 1.0]], [False, False], [False, False], weights)
