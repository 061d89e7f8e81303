"""Weights that share values, and the k-means that groups them."""

from __future__ import annotations

import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from parefront.spaces.ruled import baked, weights_of
from parefront.spaces.sharing.clusters import (
    ClusterChoices,
    ClusterConfig,
    Clusters,
    WeightClustering,
)
from parefront.spaces.sharing.kmeans import kmeans
from parefront.spaces.stage import TargetTraits
from tests.zoo import make

TRAITS = TargetTraits(format="onnx", channel_multiple=8)


class TestKMeans:
    @settings(deadline=None, max_examples=60)
    @given(st.lists(st.floats(-9, 9, width=32), min_size=1, max_size=40), st.integers(1, 6))
    def test_no_step_of_lloyd_makes_it_better(self, numbers: list[float], count: int) -> None:
        values = np.array(numbers, dtype=np.float32)
        centres = kmeans(values, count)
        assert 1 <= len(centres) <= count
        assert (np.diff(centres) > 0).all()
        nearest = np.abs(values[:, None] - centres).argmin(axis=1)
        error = np.square(values - centres[nearest]).sum()
        means = [values[nearest == k].mean() for k in range(len(centres)) if (nearest == k).any()]
        again = np.array(means)
        best = np.square(values[:, None] - again).min(axis=1).sum()
        assert best >= error * (1 - 1e-5) - 1e-9

    def test_groups_that_are_apart_are_found(self) -> None:
        values = np.concatenate([centre + np.array([-0.1, 0, 0.1]) for centre in (-4, 0, 5)])
        np.testing.assert_allclose(kmeans(values, 3), [-4, 0, 5])


class TestClusters:
    def test_a_shared_value_moves_by_the_sum_of_gradients(self) -> None:
        held = torch.tensor([[1.0, 1.1, 0.0], [-2.0, -2.1, 1.2]])
        rule = Clusters(held, 3)
        made = rule(held)
        torch.testing.assert_close(made, torch.tensor([[1.1, 1.1, 0.0], [-2.05, -2.05, 1.1]]))
        slopes = torch.tensor([[1.0, 2.0, 50.0], [4.0, 8.0, 16.0]])
        (made * slopes).sum().backward()
        assert rule.centres.grad is not None
        assert rule.centres.grad.tolist() == [12.0, 19.0]

    def test_a_layer_has_no_more_values_than_its_bits(self) -> None:
        model, context = make("cnn")
        stage = WeightClustering(ClusterChoices(), TRAITS)
        applied = stage.apply(model, ClusterConfig(bits=3), context)
        for each in weights_of(baked(applied.model))[0]:
            assert len(torch.unique(each.weight)) == applied.achieved["values"][each.name] == 8
