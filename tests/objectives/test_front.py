"""The front's mathematics against closed forms, second implementations and properties."""

from __future__ import annotations

from itertools import combinations

import moocore
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays
from numpy.typing import NDArray

from parefront.objectives import front

Floats = NDArray[np.float64]

# Few distinct values, so that ties, duplicates and touching intervals occur often.
COARSE = st.integers(0, 8).map(float)


@st.composite
def sets(draw: st.DrawFn, *, max_points: int = 12) -> tuple[Floats, list[bool]]:
    shape = draw(array_shapes(min_dims=2, max_dims=2, min_side=1, max_side=max_points))
    n, m = shape[0], min(shape[1], 4)
    values = draw(arrays(np.float64, (n, m), elements=COARSE))
    return values, draw(st.lists(st.booleans(), min_size=m, max_size=m))


@st.composite
def noisy_sets(draw: st.DrawFn) -> tuple[Floats, Floats, Floats, list[bool]]:
    values, maximize = draw(sets())
    below = draw(arrays(np.float64, values.shape, elements=st.integers(0, 3).map(float)))
    above = draw(arrays(np.float64, values.shape, elements=st.integers(0, 3).map(float)))
    return values, values - below, values + above, maximize


def beats(a: int, b: int, values: Floats, low: Floats, high: Floats, maximize: list[bool]) -> bool:
    """The definition, one pair and one objective at a time."""
    clearly = False
    for axis, larger_is_better in enumerate(maximize):
        if larger_is_better:
            if values[a, axis] < values[b, axis]:
                return False
            clearly |= bool(low[a, axis] > high[b, axis])
        else:
            if values[a, axis] > values[b, axis]:
                return False
            clearly |= bool(high[a, axis] < low[b, axis])
    return clearly


def boxes_volume(points: Floats, reference: Floats, maximize: list[bool]) -> float:
    """Volume of a union of boxes by inclusion and exclusion."""
    sign = np.where(maximize, -1.0, 1.0)
    costs, corner = points * sign, reference * sign
    total = 0.0
    for size in range(1, len(costs) + 1):
        for chosen in combinations(range(len(costs)), size):
            sides = corner - costs[list(chosen)].max(axis=0)
            total += (-1) ** (size + 1) * float(np.prod(np.maximum(sides, 0.0)))
    return total


class TestDominated:
    @given(noisy_sets())
    def test_follows_the_definition_for_every_pair(
        self, case: tuple[Floats, Floats, Floats, list[bool]]
    ) -> None:
        values, low, high, maximize = case
        n = len(values)
        expected = [any(beats(a, b, *case) for a in range(n)) for b in range(n)]
        assert front.dominated(values, low, high, maximize).tolist() == expected

    @given(noisy_sets(), st.data())
    def test_of_one_point_more_is_the_same(
        self, case: tuple[Floats, Floats, Floats, list[bool]], data: st.DataObject
    ) -> None:
        values, low, high, maximize = case
        point = np.array(
            data.draw(st.lists(COARSE, min_size=len(maximize), max_size=len(maximize)))
        )
        more = np.vstack([values, point])
        expected = front.dominated(
            more, np.vstack([low, point]), np.vstack([high, point]), maximize
        )[-1]
        assert front.dominates(values, low, high, point, maximize) == expected

    @given(sets())
    def test_is_pareto_dominance_without_noise(self, case: tuple[Floats, list[bool]]) -> None:
        values, maximize = case
        expected = moocore.is_nondominated(values, maximise=maximize, keep_weakly=True)
        assert (~front.dominated(values, values, values, maximize)).tolist() == expected.tolist()

    @given(noisy_sets())
    def test_the_front_is_never_empty_and_holds_every_pareto_optimal_estimate(
        self, case: tuple[Floats, Floats, Floats, list[bool]]
    ) -> None:
        values, low, high, maximize = case
        on_front = ~front.dominated(values, low, high, maximize)
        optimal = moocore.is_nondominated(values, maximise=maximize, keep_weakly=True)
        assert on_front.any()
        assert on_front[optimal].all()

    @given(noisy_sets())
    def test_the_relation_has_no_cycle(
        self, case: tuple[Floats, Floats, Floats, list[bool]]
    ) -> None:
        # A cycle would be left over when fronts are peeled off one after the other.
        values, low, high, maximize = case
        while len(values):
            beaten = front.dominated(values, low, high, maximize)
            assert not beaten.all()
            values, low, high = values[beaten], low[beaten], high[beaten]

    def test_touching_intervals_are_a_tie(self) -> None:
        values = np.array([[1.0], [3.0]])
        touching = front.dominated(values, [[0.0], [2.0]], [[2.0], [4.0]], [False])
        apart = front.dominated(values, [[0.0], [2.1]], [[2.0], [4.0]], [False])
        assert touching.tolist() == [False, False]
        assert apart.tolist() == [False, True]

    def test_noise_in_one_objective_does_not_save_a_point_beaten_in_another(self) -> None:
        values = np.array([[0.90, 1.0], [0.89, 9.0]])
        noise = np.array([0.05, 0.1])
        flags = front.dominated(values, values - noise, values + noise, [True, False])
        assert flags.tolist() == [False, True]

    def test_points_not_measured_are_off_the_front_and_dominate_nothing(self) -> None:
        values = np.array([[np.nan, 0.0], [1.0, 1.0], [-np.inf, 0.0]])
        assert front.dominated(values, values, values, [False, False]).tolist() == [
            True,
            False,
            True,
        ]
        good = np.array([[0.0], [1.0]])
        low = np.array([[np.nan], [1.0]])
        assert front.dominated(good, low, good, [False]).tolist() == [True, False]

    def test_an_empty_set_has_an_empty_front(self) -> None:
        nothing = np.empty((0, 3))
        assert front.dominated(nothing, nothing, nothing, [True, False, False]).shape == (0,)

    def test_ten_thousand_points_agree_with_moocore(self) -> None:
        values = np.random.default_rng(0).normal(size=(10_000, 3))
        maximize = [True, False, False]
        expected = moocore.is_nondominated(values, maximise=maximize, keep_weakly=True)
        assert (~front.dominated(values, values, values, maximize) == expected).all()

    def test_refuses_a_value_outside_its_interval(self) -> None:
        with pytest.raises(ValueError, match="expected low <= value <= high, not so in row 1"):
            front.dominated([[1.0], [2.0]], [[0.0], [3.0]], [[1.0], [4.0]], [False])

    def test_refuses_shapes_that_differ(self) -> None:
        with pytest.raises(ValueError, match=r"expected points of shape \(n, 2\)"):
            front.dominated([[1.0]], [[1.0]], [[1.0]], [False, False])
        with pytest.raises(ValueError, match=r"expected intervals of shape \(1, 1\)"):
            front.dominated([[1.0]], [1.0], [[1.0]], [False])


class TestHypervolume:
    @pytest.mark.parametrize(
        ("points", "reference", "maximize", "volume"),
        [
            ([[1.0, 1.0]], [3.0, 4.0], [False, False], 6.0),
            # Two boxes of 2 x 1 and 1 x 2 that share a unit square.
            ([[1.0, 2.0], [2.0, 1.0]], [3.0, 3.0], [False, False], 3.0),
            ([[0.9, 2.0], [0.5, 1.0]], [0.0, 4.0], [True, False], 2.3),
            ([[1.0, 1.0, 1.0]], [2.0, 3.0, 4.0], [False] * 3, 6.0),
            # Three 1 x 2 x 2 boxes: 12 in all, each pair shares 2, all three share 1.
            ([[2.0, 1, 1], [1, 2, 1], [1, 1, 2]], [3.0, 3.0, 3.0], [False] * 3, 7.0),
            ([[5.0, 0.0]], [3.0, 3.0], [False, False], 0.0),
            ([[np.nan, 0.0], [1.0, 1.0]], [2.0, 2.0], [False, False], 1.0),
        ],
    )
    def test_of_known_boxes(
        self, points: list[list[float]], reference: list[float], maximize: list[bool], volume: float
    ) -> None:
        assert front.hypervolume(points, reference, maximize) == pytest.approx(volume)

    def test_of_nothing_is_zero(self) -> None:
        assert front.hypervolume(np.empty((0, 2)), [1.0, 1.0], [True, False]) == 0.0
        assert front.hypervolume([[np.nan, 0.0]], [1.0, 1.0], [False, False]) == 0.0

    @given(sets(max_points=7), st.integers(0, 9))
    def test_equals_inclusion_and_exclusion(
        self, case: tuple[Floats, list[bool]], corner: int
    ) -> None:
        values, maximize = case
        reference = np.where(maximize, 8.0 - corner, float(corner))
        expected = boxes_volume(values, reference, maximize)
        assert front.hypervolume(values, reference, maximize) == pytest.approx(expected)

    @given(sets())
    def test_history_is_the_hypervolume_of_every_prefix_and_never_falls(
        self, case: tuple[Floats, list[bool]]
    ) -> None:
        values, maximize = case
        values[::4, 0] = np.nan
        reference = np.where(maximize, 1.0, 7.0)
        history = front.hypervolume_history(values, reference, maximize)
        prefixes = [
            front.hypervolume(values[: end + 1], reference, maximize) for end in range(len(values))
        ]
        assert history == pytest.approx(prefixes)
        assert (np.diff(history) >= 0).all()

    def test_history_of_a_thousand_points(self) -> None:
        values = np.random.default_rng(1).uniform(size=(1000, 3))
        maximize, reference = [True, False, False], [0.0, 1.0, 1.0]
        history = front.hypervolume_history(values, reference, maximize)
        assert (np.diff(history) >= 0).all()
        assert history[-1] == pytest.approx(front.hypervolume(values, reference, maximize))

    def test_history_of_nothing_is_empty(self) -> None:
        assert front.hypervolume_history(np.empty((0, 2)), [1.0, 1.0], [False, True]).shape == (0,)

    def test_refuses_a_reference_that_does_not_fit(self) -> None:
        with pytest.raises(ValueError, match=r"expected a finite reference of shape \(2,\)"):
            front.hypervolume([[1.0, 1.0]], [1.0], [False, False])
        with pytest.raises(ValueError, match="expected a finite reference"):
            front.hypervolume_history([[1.0]], [np.nan], [False])


class TestBox:
    def test_spans_best_and_worst_of_each_objective(self) -> None:
        values = [[0.9, 10.0], [0.5, 2.0], [np.nan, 0.1]]
        ideal, nadir = front.reference_box(values, [True, False])
        assert ideal.tolist() == [0.9, 2.0]
        assert nadir.tolist() == [0.5, 10.0]

    @given(sets())
    def test_normalized_points_fill_the_unit_box_in_the_same_order(
        self, case: tuple[Floats, list[bool]]
    ) -> None:
        values, maximize = case
        scaled = front.normalize(values, *front.reference_box(values, maximize), maximize)
        assert (scaled.min(axis=0) == 0.0).all()
        flat = np.ptp(values, axis=0) == 0.0
        assert (scaled.max(axis=0) == np.where(flat, 0.0, 1.0)).all()
        order = front.dominated(scaled, scaled, scaled, [False] * len(maximize))
        assert (order == front.dominated(values, values, values, maximize)).all()

    def test_an_objective_without_width_still_counts_worse_values_as_worse(self) -> None:
        scaled = front.normalize([[0.7, 3.0]], [0.9, 2.0], [0.9, 2.0], [True, False])
        assert scaled.tolist() == [[pytest.approx(0.2), 1.0]]

    def test_refuses_an_empty_box(self) -> None:
        with pytest.raises(ValueError, match="at least one row without NaN, got none of 1"):
            front.reference_box([[np.nan, 1.0]], [True, False])
        with pytest.raises(ValueError, match=r"an ideal and a nadir of shape \(1,\)"):
            front.normalize([[1.0]], [1.0, 2.0], [1.0, 2.0], [False])
