"""Weights that several nodes read are in the file once."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import helper, numpy_helper
from torch import nn

from parefront.objectives.targets.onnx_equal_weights import merge_equal_weights
from parefront.objectives.targets.onnx_export import export_onnx
from parefront.objectives.targets.onnx_exporters import export_program, trace
from parefront.objectives.targets.onnx_runtime import OnnxRuntime

Exporter = Callable[..., bytes]


class Twice(nn.Module):
    """One block, used twice, over sequences: Linear layers that are exported as MatMul."""

    def __init__(self) -> None:
        super().__init__()
        block = nn.Sequential(nn.Linear(64, 128), nn.ReLU(), nn.Linear(128, 64))
        self.blocks = nn.ModuleList([block, block])

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for block in self.blocks:
            x = x + block(x)
        return x


class Folded(nn.Module):
    """A convolution and its batch normalisation, used twice, which the tracer makes one of."""

    def __init__(self) -> None:
        super().__init__()
        block = nn.Sequential(nn.Conv2d(16, 16, 3, padding=1, bias=False), nn.BatchNorm2d(16))
        self.blocks = nn.Sequential(block, nn.ReLU(), block, nn.ReLU())

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.blocks(x)  # type: ignore[no-any-return]


class Tied(nn.Module):
    """A language model whose output layer has the table of its embedding."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(200, 32)
        self.out = nn.Linear(32, 200, bias=False)
        self.out.weight = self.embed.weight

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        return self.out(self.embed(tokens))  # type: ignore[no-any-return]


CASES = {
    "MatMul": (Twice, torch.randn(2, 5, 64)),
    "folded": (Folded, torch.randn(2, 16, 6, 6)),
    "tied": (Tied, torch.arange(12).reshape(2, 6)),
}


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("exporter", [trace, export_program])
def test_a_weight_that_is_used_twice_is_stored_once(name: str, exporter: Exporter) -> None:
    build, example = CASES[name]
    module = build().eval()
    data = exporter(module, (example,), ["x"], ["output"], {})
    weights = 4 * sum(p.numel() for p in module.parameters())
    assert len(data) < weights + 8_000
    stored = [numpy_helper.to_array(each) for each in onnx.load_from_string(data).graph.initializer]
    assert sum(each.nbytes for each in stored) < weights + 1_000


@pytest.mark.parametrize("name", CASES)
def test_the_file_computes_what_the_module_computes(name: str, tmp_path: Path) -> None:
    build, example = CASES[name]
    module = build().eval()
    path = tmp_path / "model.onnx"
    export_onnx(module, (example,), ["x"], path)
    (found,) = OnnxRuntime().open(path, 1).run({"x": example.numpy()})
    with torch.no_grad():
        np.testing.assert_allclose(np.float32(found), module(example).numpy(), rtol=1e-4, atol=1e-5)


def graph_of(
    arrays: dict[str, np.ndarray[tuple[int, ...], np.dtype[np.float32]]],
) -> onnx.GraphProto:
    nodes = [helper.make_node("Add", ["x", name], [f"y{name}"]) for name in arrays]
    value = helper.make_tensor_value_info
    return helper.make_graph(
        nodes,
        "graph",
        [value("x", onnx.TensorProto.FLOAT, [1])],
        [value(f"y{name}", onnx.TensorProto.FLOAT, None) for name in arrays],
        [numpy_helper.from_array(array, name) for name, array in arrays.items()],
    )


def test_only_large_weights_of_equal_shape_and_bytes_are_merged() -> None:
    large = np.arange(256, dtype=np.float32)
    graph = graph_of(
        {
            "a": large,
            "same": large.copy(),
            "shaped": large.reshape(16, 16),
            "turned": np.ascontiguousarray(large.reshape(16, 16).T),
            "other": large + 1,
            "small": large[:255],
            "small_too": large[:255].copy(),
        }
    )
    merge_equal_weights(graph)
    kept = [each.name for each in graph.initializer]
    assert kept == ["a", "shaped", "other", "small", "small_too"]
    assert [node.op_type for node in graph.node] == ["Transpose", *["Add"] * 7]
    assert [node.input[1] for node in graph.node[1:3]] == ["a", "a"]
    assert graph.node[4].input[1] == graph.node[0].output[0] == "turned"


def test_nothing_to_merge_changes_nothing() -> None:
    graph = graph_of({"a": np.arange(256, dtype=np.float32), "b": np.ones(300, np.float32)})
    before = graph.SerializeToString(deterministic=True)
    merge_equal_weights(graph)
    assert graph.SerializeToString(deterministic=True) == before
