"""Free boxes and expected gains against the hypervolume itself and against drawing at random."""

from __future__ import annotations

import moocore
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays
from numpy.typing import NDArray

from parefront.search.samplers.screening.boxes import FreeRegion
from parefront.search.samplers.screening.gain import (
    NODES,
    Known,
    Predicted,
    expected_gains,
)
from parefront.search.samplers.screening.normal import probability_below, student_quantile
from parefront.search.samplers.screening.selection import nondominated

Floats = NDArray[np.float64]


def volume(points: Floats, reference: Floats) -> float:
    return float(moocore.hypervolume(points, ref=reference)) if len(points) else 0.0


@st.composite
def fronts(draw: st.DrawFn) -> Floats:
    shape = draw(array_shapes(min_dims=2, max_dims=2, min_side=1, max_side=12))
    shape = (shape[0], 1 + shape[1] % 4)
    # Few distinct values, so that ties occur often.
    points = draw(arrays(np.float64, shape, elements=st.integers(0, 5).map(float)))
    return points[nondominated(points)]


@given(fronts(), st.integers(0, 2**32 - 1))
def test_gains_of_known_points_are_differences_of_hypervolume(front: Floats, seed: int) -> None:
    references = [np.full(front.shape[1], 5.5), np.arange(front.shape[1]) + 2.5]
    points = np.random.default_rng(seed).uniform(-1.0, 7.0, (8, front.shape[1])).round(1)
    gains = expected_gains(FreeRegion(front), references, [Known(column) for column in points.T])
    for reference, got in zip(references, gains, strict=True):
        before = volume(front, reference)
        expected = [volume(np.vstack([front, point]), reference) - before for point in points]
        np.testing.assert_allclose(got, expected, atol=1e-9)


@given(fronts())
def test_the_boxes_do_not_overlap(front: Floats) -> None:
    reference = np.full(front.shape[1], 6.0)
    lower, upper = FreeRegion(front).boxes(reference)
    whole = float(np.prod(upper - np.maximum(lower, -1.0), axis=1).sum())
    assert whole == pytest.approx(7.0 ** front.shape[1] - volume(front, reference))


def test_without_a_front_the_gain_is_the_whole_box() -> None:
    region = FreeRegion(np.empty((0, 2)))
    gains = expected_gains(region, [np.ones(2)], [Known(np.array([0.5, 2.0])), Known(np.zeros(2))])
    np.testing.assert_allclose(gains, [[0.5, 0.0]])


@pytest.mark.parametrize("dear", [[0], [0, 2], [0, 1, 2]])
def test_expected_gains_are_those_of_random_draws(dear: list[int]) -> None:
    random = np.random.default_rng(0)
    directions = np.abs(random.normal(size=(20, 3)))
    front = 1.0 - directions / np.linalg.norm(directions, axis=1, keepdims=True)
    front = front[nondominated(front)]
    reference = np.full(3, 1.1)
    means, deviations = random.uniform(0.0, 0.8, (6, 3)), random.uniform(0.02, 0.3, (6, 3))
    objectives = [
        Predicted(means[:, i, None] + deviations[:, i, None] * NODES)
        if i in dear
        else Known(means[:, i])
        for i in range(3)
    ]
    gains = expected_gains(FreeRegion(front), [reference], objectives)[0]
    before = volume(front, reference)
    for row in range(6):
        drawn = np.repeat(means[row][None], 4000, axis=0)
        noise = random.normal(size=(4000, len(dear)))
        drawn[:, dear] += deviations[row, dear] * noise
        added = [volume(np.vstack([front, point]), reference) - before for point in drawn]
        error = 5.0 * np.std(added) / np.sqrt(4000) + 1e-3 * np.max(added)
        assert gains[row] == pytest.approx(np.mean(added), abs=error)


def test_the_expected_length_has_a_closed_form() -> None:
    # Expected improvement of a normal variable (Mockus 1975).
    mean, deviation = 0.3, 0.2
    edges = np.array([-0.2, 0.1, 0.3, 0.7])
    z = (edges - mean) / deviation
    density = np.exp(-0.5 * z**2) / np.sqrt(2.0 * np.pi)
    below = probability_below(0.0, -z, np.ones(4))
    expected = deviation * (z * below + density)
    got = Predicted(mean + deviation * NODES[None, :]).below(edges)[0]
    np.testing.assert_allclose(got, expected, atol=0.005 * deviation)


def test_probabilities() -> None:
    got = probability_below(1.0, np.array([1.0, -1.0, 3.0]), np.array([1.0, 1.0, 2.0]))
    np.testing.assert_allclose(got, [0.5, 0.97724987, 0.15865525], rtol=1e-7)


@pytest.mark.parametrize(("z", "expected"), [(1.0, 1.1105), (2.0, 2.6487), (3.0, 5.5071)])
def test_quantiles_of_student_with_five_degrees_of_freedom(z: float, expected: float) -> None:
    # From tables of the distribution at the probabilities 0.84134, 0.97725 and 0.99865.
    assert student_quantile(z, 5.0) == pytest.approx(expected, rel=0.015)
    assert student_quantile(-z, 5.0) == pytest.approx(-student_quantile(z, 5.0))
    assert student_quantile(z, 1e6) == pytest.approx(z, rel=1e-4)
