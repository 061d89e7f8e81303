"""Equalisation against closed forms, and against what the models computed before."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper
from torch import nn

from parefront.spaces.quantization.equalization import equalize
from parefront.spaces.quantization.graph import prepared
from parefront.spaces.quantization.onnx_int8 import OnnxInt8, OnnxInt8Choices, OnnxInt8Config
from parefront.spaces.stage import StageContext, TargetTraits
from tests.exporting import SATURATES, export, run
from tests.zoo import MODELS, Memory, make

Array = NDArray[Any]
STAGE = OnnxInt8(OnnxInt8Choices(), TargetTraits(format="onnx", channel_multiple=8))


def of_module(module: nn.Module, inputs: torch.Tensor) -> tuple[onnx.ModelProto, StageContext]:
    """A module as ONNX, ready to be quantised, and a context with inputs for it."""
    source = Memory((inputs,), torch.zeros(len(inputs)))
    _, context = make("mlp")
    context = replace(context, example=(inputs[:2],), train=source, calibration=source)
    return prepared(export(module, context)), context


def outputs(model: onnx.ModelProto, context: StageContext) -> Array:
    inputs = next(context.calibration.batches(len(context.calibration)))[0]
    return np.asarray(run(model, context, inputs)[0])


def weights(model: onnx.ModelProto) -> dict[str, Array]:
    return {each.name: numpy_helper.to_array(each) for each in model.graph.initializer}


def wild(module: nn.Module, seed: int = 0) -> nn.Module:
    """The module with channels of ranges between 1/30 and 30, as if never normalised."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for layer in module.modules():
            if isinstance(layer, nn.Linear | nn.Conv2d):
                factors = 30 ** (2 * torch.rand(len(layer.weight), generator=generator) - 1)
                layer.weight *= factors.reshape(-1, *[1] * (layer.weight.ndim - 1))
                if layer.bias is not None:
                    layer.bias *= factors
    return module.eval()


@pytest.fixture(autouse=True)
def seeded() -> Any:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        yield


def chain(first: Array, second: Array, bias: Array) -> onnx.ModelProto:
    """Gemm, Relu, Gemm with weights of shape (outputs, inputs)."""
    nodes = [
        helper.make_node("Gemm", ["input", "a", "b"], ["x"], "first", transB=1),
        helper.make_node("Relu", ["x"], ["y"], "relu"),
        helper.make_node("Gemm", ["y", "c"], ["output"], "second", transB=1),
    ]
    entries = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n", size])
        for name, size in (("input", first.shape[1]), ("output", len(second)))
    ]
    tensors = [
        numpy_helper.from_array(value.astype(np.float32), name)
        for name, value in (("a", first), ("b", bias), ("c", second))
    ]
    graph = helper.make_graph(nodes, "graph", entries[:1], entries[1:], tensors)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=8)


# Closed forms


def test_both_ranges_become_their_geometric_mean() -> None:
    first = np.array([[8.0, -4.0], [0.5, 0.25], [-1.0, 1.0]])
    second = np.array([[2.0, -8.0, 1.0], [1.0, 4.0, -1.0]])
    bias = np.array([4.0, -0.5, 1.0])
    model = chain(first, second, bias)
    assert equalize(model) == 1
    found = weights(model)
    # s = sqrt(r1 / r2): r1 = 8, 1/2, 1 and r2 = 2, 8, 1.
    factors = np.array([2.0, 0.25, 1.0])
    np.testing.assert_allclose(found["a"], first / factors[:, None], rtol=1e-6)
    np.testing.assert_allclose(found["b"], bias / factors, rtol=1e-6)
    np.testing.assert_allclose(found["c"], second * factors, rtol=1e-6)
    np.testing.assert_allclose(np.abs(found["a"]).max(axis=1), [4.0, 2.0, 1.0], rtol=1e-6)
    np.testing.assert_allclose(np.abs(found["c"]).max(axis=0), [4.0, 2.0, 1.0], rtol=1e-6)


@settings(deadline=None, max_examples=30)
@given(st.integers(0, 2**31), st.integers(1, 6), st.integers(1, 6))
def test_any_chain_has_equal_ranges_and_the_same_outputs(seed: int, wide: int, out: int) -> None:
    rng = np.random.default_rng(seed)
    spread = 10 ** rng.uniform(-1, 1, wide)
    model = chain(
        rng.normal(size=(wide, 4)) * spread[:, None], rng.normal(size=(out, wide)), np.zeros(wide)
    )
    _, context = make("mlp")
    inputs = (torch.from_numpy(rng.normal(size=(8, 4)).astype(np.float32)),)
    before = np.float64(run(model, context, inputs)[0])
    equalize(model)
    found = weights(model)
    np.testing.assert_allclose(
        np.abs(found["a"]).max(axis=1), np.abs(found["c"]).max(axis=0), rtol=1e-4
    )
    after = np.float64(run(model, context, inputs)[0])
    np.testing.assert_allclose(after, before, rtol=1e-5, atol=1e-5 * np.abs(before).max())


def test_a_channel_that_nothing_uses_stays() -> None:
    first = np.array([[8.0, 0.0], [0.0, 0.0], [3.0, 1.0]])
    second = np.array([[2.0, 5.0, 0.0]])
    bias = np.array([1.0, 7.0, 1.0])
    model = chain(first, second, bias)
    assert equalize(model) == 1
    found = weights(model)
    np.testing.assert_allclose(found["a"], first / [[2.0], [1.0], [1.0]], rtol=1e-6)
    np.testing.assert_allclose(found["b"], [0.5, 7.0, 1.0], rtol=1e-6)
    np.testing.assert_allclose(found["c"], [[4.0, 5.0, 0.0]], rtol=1e-6)


def test_what_is_not_a_number_stays() -> None:
    model = chain(np.array([[4.0], [np.nan]]), np.array([[1.0, 1.0]]), np.array([1.0, 1.0]))
    assert equalize(model) == 1
    found = weights(model)
    np.testing.assert_allclose(found["a"], [[2.0], [np.nan]], rtol=1e-6)
    np.testing.assert_allclose(found["c"], [[2.0, 1.0]], rtol=1e-6)


def test_a_bias_never_becomes_more_than_twice_the_largest() -> None:
    """A nearly dead channel with a bias would else take the range of the activations."""
    model = chain(np.array([[1.0], [1e-4]]), np.array([[1.0, 1.0]]), np.array([0.3, 0.2]))
    equalize(model)
    np.testing.assert_allclose(weights(model)["b"], [0.3, 0.6], rtol=1e-6)


def test_a_depthwise_layer_in_a_chain_has_the_ranges_of_both_neighbours() -> None:
    layers = nn.Sequential(
        nn.Conv2d(3, 6, 1, bias=False),
        nn.ReLU(),
        nn.Conv2d(6, 6, 3, groups=6, bias=False),
        nn.LeakyReLU(0.1),
        nn.Conv2d(6, 4, 1, bias=False),
    )
    model, context = of_module(wild(layers), torch.randn(8, 3, 8, 8))
    before = outputs(model, context)
    kernels = [np.abs(w) for w in weights(model).values() if w.ndim == 4]
    ranges = [
        kernels[0].max(axis=(1, 2, 3)),
        kernels[1].max(axis=(1, 2, 3)),
        kernels[2].max(axis=(0, 2, 3)),
    ]
    assert equalize(model) == 2
    kernels = [np.abs(w) for w in weights(model).values() if w.ndim == 4]
    # Scaling leaves the product of the three as it is, so each is its third root.
    expected = np.cbrt(ranges[0] * ranges[1] * ranges[2])
    for found in (
        kernels[0].max(axis=(1, 2, 3)),
        kernels[1].max(axis=(1, 2, 3)),
        kernels[2].max(axis=(0, 2, 3)),
    ):
        np.testing.assert_allclose(found, expected, rtol=1e-3)
    np.testing.assert_allclose(
        outputs(model, context), before, rtol=1e-5, atol=1e-5 * np.abs(before).max()
    )


# What is left of the outputs, and which layers take part


class Branches(nn.Module):
    """A tensor that two layers read."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.left, self.right = nn.Linear(8, 8), nn.Linear(8, 4), nn.Linear(8, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = torch.relu(self.stem(x))
        return torch.cat([self.left(y), self.right(y)], dim=1)


class Inside(nn.Module):
    """A tensor between two layers that is an output too."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(8, 8), nn.Linear(8, 4)

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        y = torch.relu(self.first(x))
        return self.second(y), y


class Twice(nn.Module):
    """Layers that share a weight."""

    def __init__(self) -> None:
        super().__init__()
        self.layer, self.head = nn.Linear(8, 8), nn.Linear(8, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = torch.relu(self.layer(torch.relu(self.layer(x))))
        return self.head(torch.tanh(y))  # type: ignore[no-any-return]


def conv(*layers: nn.Module) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(3, 8, 3), *layers)


IMAGES, ROWS, WORDS = (2, 3, 12, 12), (2, 8), (2, 5, 8)
PAIRS: Mapping[str, tuple[nn.Module, tuple[int, ...], int]] = {
    "relu": (nn.Sequential(nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 4)), ROWS, 1),
    "nothing": (conv(nn.Conv2d(8, 4, 3)), IMAGES, 1),
    "batch norm": (conv(nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 4, 3)), IMAGES, 1),
    "max pool": (conv(nn.ReLU(), nn.MaxPool2d(3, 2, 1), nn.Conv2d(8, 4, 3)), IMAGES, 1),
    "average pool": (conv(nn.AvgPool2d(3, 2, 1), nn.Conv2d(8, 4, 3)), IMAGES, 1),
    "global pool": (
        conv(nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 4)),
        IMAGES,
        1,
    ),
    "flatten": (conv(nn.ReLU(), nn.Flatten(), nn.LeakyReLU(), nn.Linear(800, 4)), IMAGES, 1),
    "groups": (
        conv(nn.Conv2d(8, 12, 3, groups=4), nn.ReLU(), nn.Conv2d(12, 6, 1, groups=2)),
        IMAGES,
        2,
    ),
    "words": (
        nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 6, bias=False), nn.Linear(6, 4)),
        WORDS,
        2,
    ),
    "relu6": (conv(nn.ReLU6(), nn.Conv2d(8, 4, 3)), IMAGES, 0),
    "sigmoid": (conv(nn.Sigmoid(), nn.Conv2d(8, 4, 3)), IMAGES, 0),
    "gelu": (nn.Sequential(nn.Linear(8, 8), nn.GELU(), nn.Linear(8, 4)), ROWS, 0),
    "pool of words": (nn.Sequential(nn.Linear(8, 8), nn.MaxPool1d(2), nn.Linear(4, 4)), WORDS, 0),
    "channels that are not the last axis": (
        nn.Sequential(nn.Conv1d(5, 8, 1), nn.Linear(8, 4)),
        WORDS,
        0,
    ),
    "words flattened": (
        nn.Sequential(nn.Linear(8, 8), nn.Flatten(), nn.Linear(40, 4)),
        WORDS,
        0,
    ),
    "branches": (Branches(), ROWS, 0),
    "inside": (Inside(), ROWS, 0),
    "twice": (Twice(), ROWS, 0),
    "one layer": (nn.Linear(8, 4), ROWS, 0),
}


@pytest.mark.parametrize("name", PAIRS)
def test_outputs_stay_whatever_is_between(name: str) -> None:
    module, shape, pairs = PAIRS[name]
    model, context = of_module(wild(module), torch.randn(8, *shape[1:]))
    file, before = model.SerializeToString(), outputs(model, context)
    assert equalize(model) == pairs
    assert (model.SerializeToString() == file) == (pairs == 0)
    onnx.checker.check_model(model, full_check=True)
    np.testing.assert_allclose(
        outputs(model, context), before, rtol=1e-5, atol=1e-5 * np.abs(before).max()
    )


@pytest.mark.parametrize("kind", MODELS)
def test_the_zoo_computes_what_it_did(kind: str) -> None:
    module, context = make(kind)
    model = prepared(export(wild(module), context))
    before = outputs(model, context)
    # Blocks of the ResNet, convolutions up to the first ReLU6, feed-forward halves.
    known = {"cnn": 3, "resnet": 2, "depthwise": 1, "mlp": 2, "transformer": 2}
    pairs = equalize(model)
    assert pairs == known.get(kind, pairs)
    np.testing.assert_allclose(
        outputs(model, context), before, rtol=1e-5, atol=1e-5 * np.abs(before).max()
    )


def test_a_bias_that_layers_share_is_copied() -> None:
    module, context = make("resnet")
    model = prepared(export(module, context))
    before, shared = outputs(model, context), len(model.graph.initializer)
    with torch.no_grad():
        for name, values in weights(model).items():
            if values.shape == (32,):
                tensor = next(t for t in model.graph.initializer if t.name == name)
                tensor.CopyFrom(numpy_helper.from_array(values + np.float32(0.01), name))
    before = outputs(model, context)
    assert equalize(model) == 2
    assert len(model.graph.initializer) == shared + 2
    np.testing.assert_allclose(outputs(model, context), before, rtol=1e-5, atol=1e-5)


# With the quantiser


@pytest.mark.parametrize("method", ["static", "dynamic"])
def test_one_scale_a_tensor_loses_less(method: str) -> None:
    first, second, last = nn.Linear(32, 64), nn.Linear(64, 64), nn.Linear(64, 8)
    layers = nn.Sequential(first, nn.ReLU(), second, nn.ReLU(), last)
    with torch.no_grad():
        factors = 10 ** (2 * torch.rand(64) - 1)
        first.weight.mul_(factors[:, None])
        first.bias.mul_(factors)
        second.weight.div_(factors)
    model, context = of_module(layers, torch.randn(64, 32))
    expected = outputs(model, context)
    errors = {}
    for on in (False, True):
        config = OnnxInt8Config.model_validate(
            {
                "method": method,
                "per_channel": False,
                "equalize": on,
                "reduce_range": SATURATES,
            }
            | ({"calibration": "minmax"} if method == "static" else {})
        )
        applied = STAGE.apply(model, config, context)
        errors[on] = float(np.abs(outputs(applied.model, context) - expected).mean())
        assert applied.achieved.get("equalized_pairs") == (2 if on else None)
    assert errors[True] < errors[False] / 3


def test_a_model_without_pairs_is_quantised_as_before() -> None:
    _, context = make("mlp")
    model = export(nn.Sequential(nn.Linear(64, 16), nn.Sigmoid(), nn.Linear(16, 4)), context)
    plain = OnnxInt8Config(method="static", calibration="minmax", per_channel=False)
    wanted = plain.model_copy(update={"equalize": True})
    before, after = (STAGE.apply(model, config, context) for config in (plain, wanted))
    assert after.model.SerializeToString() == before.model.SerializeToString()
    assert after.achieved == {**before.achieved, "equalized_pairs": 0}
