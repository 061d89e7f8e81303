from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray
from onnx import TensorProto, helper
from torch import nn

from parefront.errors import StageError
from parefront.spaces.quantization.calibration import (
    BINS,
    CANDIDATE_STEP,
    CLIPPED,
    PERCENTILE,
    Calibration,
    Counts,
    Feeds,
    activation_ranges,
    entropy_bins,
    mse_bins,
    percentile_bins,
)
from parefront.spaces.quantization.graph import prepared
from tests.exporting import export
from tests.zoo import make

Values = NDArray[np.float32]


def observed(values: Values, method: Calibration, *, batch: int = 100) -> tuple[float, float]:
    """The range of a model's input, which is all there is to see."""
    node = helper.make_node("Identity", ["x"], ["y"])
    kinds = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n"]) for name in "xy"]
    graph = helper.make_graph([node], "graph", kinds[:1], kinds[1:])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)

    def batches() -> Iterator[Feeds]:
        for start in range(0, len(values), batch):
            yield {"x": values[start : start + batch]}

    return activation_ranges(model, ["y"], batches, method)["y"]


def naive_divergence(counts: Counts, end: int, levels: int) -> float:
    """The divergence as the paper puts it, bin by bin."""
    reference = [float(count) for count in counts[:end]]
    last = max(i for i in range(end) if counts[i] > 0)
    reference[last] += float(sum(counts[end:]))
    merged = [0.0] * end
    for level in range(levels):
        members = [i for i in range(end) if i * levels // end == level and counts[i] > 0]
        for i in members:
            merged[i] = float(sum(counts[members])) / len(members)
    return sum(
        p / sum(reference) * math.log((p / sum(reference)) / (q / sum(merged)))
        for p, q in zip(reference, merged, strict=True)
        if p > 0
    )


@pytest.mark.parametrize("batch", [7, 1000])
def test_minmax_finds_the_extremes(batch: int) -> None:
    values = np.random.default_rng(0).normal(size=1000).astype(np.float32)
    assert observed(values, "minmax", batch=batch) == (values.min(), values.max())


@pytest.mark.parametrize("method", ["minmax", "entropy", "percentile", "mse"])
def test_a_range_includes_zero(method: Calibration) -> None:
    values = np.linspace(3, 5, 5000, dtype=np.float32)
    low, high = observed(values, method)
    assert low == 0
    assert 4.9 < high <= 5
    low, high = observed(-values, method)
    assert high == 0
    assert -5 <= low < -4.9


@pytest.mark.parametrize("method", ["entropy", "percentile"])
@pytest.mark.parametrize("sign", [1, -1])
def test_a_far_outlier_is_clipped_on_its_side_only(method: Calibration, sign: int) -> None:
    values = np.random.default_rng(0).uniform(-1, 2, size=50_000).astype(np.float32)
    values[123] = 10
    low, high = observed(sign * values, method)
    near, far = (low, high) if sign > 0 else (-high, -low)
    assert near == values.min()
    assert 1.9 < far < 2.2


@pytest.mark.parametrize("method", ["minmax", "entropy", "percentile", "mse"])
def test_the_range_does_not_depend_on_batches(method: Calibration) -> None:
    values = np.random.default_rng(0).standard_t(3, size=3000).astype(np.float32)
    assert observed(values, method, batch=7) == observed(values, method, batch=3000)


@pytest.mark.parametrize("method", ["entropy", "percentile", "mse"])
def test_zeros_do_not_count(method: Calibration) -> None:
    values = np.random.default_rng(0).exponential(size=20_000).astype(np.float32)
    with_zeros = np.concatenate([values, np.zeros(500_000, np.float32)])
    assert observed(with_zeros, method, batch=10**6) == observed(values, method, batch=10**6)


@pytest.mark.parametrize("method", ["minmax", "average", "entropy", "percentile", "mse"])
def test_dead_tensors_have_an_empty_range(method: Calibration) -> None:
    assert observed(np.zeros(10, np.float32), method) == (0, 0)
    # Too small to be scaled into bins in single precision.
    tiny = np.array([1e-44, 0, 1e-45], np.float32)
    assert observed(tiny, method) == (0, tiny[0])


@pytest.mark.parametrize("method", ["minmax", "average", "entropy", "percentile", "mse"])
@pytest.mark.parametrize("wild", [np.nan, np.inf])
def test_values_that_are_not_finite_show_in_the_range(method: Calibration, wild: float) -> None:
    values = np.linspace(-1, 1, 500, dtype=np.float32)
    values[77] = wild
    assert not np.isfinite(observed(values, method)).all()


def test_the_percentile_is_numpy_s_up_to_a_bin() -> None:
    values = np.random.default_rng(0).exponential(size=100_000).astype(np.float32)
    _, high = observed(values, "percentile", batch=1000)
    assert high == pytest.approx(
        np.percentile(values, PERCENTILE), abs=2 * float(values.max()) / BINS
    )
    assert high < 0.95 * values.max()


def test_the_average_is_that_of_the_batches_extremes() -> None:
    values = np.array([1, -2, 3, -4, 100, 0, 7, -6], np.float32)
    assert observed(values, "average", batch=2) == (-3.0, (1 + 3 + 100 + 7) / 4)


@given(
    counts=arrays(np.int64, BINS // 8, elements=st.integers(0, 50)),
    levels=st.sampled_from([16, 128]),
)
def test_the_squared_error_is_the_least_of_all_limits(counts: Counts, levels: int) -> None:
    counts[-1] = 1
    middles = [index + 0.5 for index in range(len(counts))]

    def error(end: int) -> float:
        return math.fsum(
            count * ((end / levels) ** 2 / 12 if index < end else (middle - end) ** 2)
            for index, (count, middle) in enumerate(zip(counts.tolist(), middles, strict=True))
        )

    ends = range(CANDIDATE_STEP, len(counts) + 1, CANDIDATE_STEP)
    assert error(mse_bins(counts, levels)) == pytest.approx(min(map(error, ends)), abs=1e-9)


def test_the_squared_error_of_rounding_is_really_least_there() -> None:
    # A second implementation: rounds the values themselves, to every limit of a grid.
    values = np.random.default_rng(0).standard_t(4, size=50_000).astype(np.float32)
    _, high = observed(values, "mse", batch=1000)

    def error(limit: Any) -> float:
        step = limit / 128
        rounded = np.clip(np.rint(values / step), -128, 127) * step
        return float(np.square(rounded - values).sum())

    best = min(error(limit) for limit in np.linspace(0.05, 1, 200) * np.abs(values).max())
    assert error(high) <= 1.02 * best


@given(
    counts=arrays(np.int64, 256, elements=st.integers(0, 50)),
    levels=st.sampled_from([16, 32]),
)
def test_the_entropy_limit_is_the_best_of_those_that_clip_little(
    counts: Counts, levels: int
) -> None:
    counts[-1] = 1  # the histogram ends at the largest value
    found = entropy_bins(counts, levels)
    allowed = [
        end
        for end in range(256, levels - 1, -CANDIDATE_STEP)
        if counts[end:].sum() <= CLIPPED * counts.sum()
    ]
    assert found in allowed
    best = min(naive_divergence(counts, end, levels) for end in allowed)
    assert naive_divergence(counts, found, levels) == pytest.approx(best, abs=1e-9)


def test_what_is_not_worth_a_level_is_clipped() -> None:
    counts = np.zeros(BINS, np.int64)
    counts[:300] = np.random.default_rng(0).poisson(1000, 300)
    counts[-1] = 2
    assert 300 <= entropy_bins(counts, 128) < 300 + CANDIDATE_STEP
    assert percentile_bins(counts, 128) == 300


def test_one_sign_has_all_levels_and_two_have_half_of_them() -> None:
    values = np.random.default_rng(0).standard_t(5, size=100_000).astype(np.float32)
    top = float(np.abs(values).max())
    counts, _ = np.histogram(np.abs(values), BINS, (0, top))
    half, all_of_them = (entropy_bins(counts, levels) * top / BINS for levels in (128, 256))
    assert half != pytest.approx(all_of_them, rel=5e-2)
    assert max(np.abs(observed(values, "entropy"))) == pytest.approx(half, rel=1e-2)
    assert observed(np.abs(values), "entropy")[1] == pytest.approx(all_of_them, rel=1e-2)


def test_a_uniform_histogram_is_kept_whole() -> None:
    assert entropy_bins(np.full(BINS, 5), 128) == BINS


def test_a_spike_is_not_bought_with_the_tail() -> None:
    # A constant background under a ReLU: three fifths of the values are the same.
    generator = np.random.default_rng(0)
    values = np.abs(generator.normal(size=100_000)).astype(np.float32)
    values[:60_000] = 0.31
    _, high = observed(values, "entropy", batch=10_000)
    assert high >= np.quantile(values, 1 - CLIPPED)


@pytest.mark.parametrize("kind", ["cnn", "mlp"])
def test_activations_are_those_of_the_module(kind: str) -> None:
    module, context = make(kind)
    model = prepared(export(module, context))
    seen: list[tuple[float, float]] = []

    def see(_: nn.Module, __: object, output: torch.Tensor) -> None:
        seen.append((min(0.0, output.min().item()), max(0.0, output.max().item())))

    for layer in module.modules():
        if isinstance(layer, nn.Linear):
            layer.register_forward_hook(see)
    inputs = next(context.calibration.batches(64))[0]
    module(*inputs)
    tensors = [node.output[0] for node in model.graph.node if node.op_type == "Gemm"]
    batches: Callable[[], Iterator[Feeds]] = lambda: iter([{"input": inputs[0].numpy()}])  # noqa: E731
    ranges = activation_ranges(model, tensors, batches, "minmax")
    np.testing.assert_allclose(list(ranges.values()), seen, rtol=1e-4)


def test_examples_the_model_refuses_are_an_error() -> None:
    module, context = make("mlp")
    model = prepared(export(module, context))
    wrong = {"input": np.zeros((2, 3), np.float32)}
    with pytest.raises(StageError, match="could not run the exported model on the calibration"):
        activation_ranges(model, [model.graph.output[0].name], lambda: [wrong], "minmax")
