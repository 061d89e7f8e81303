"""ONNX files, good and hostile, made without torch."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from onnx import NodeProto, TensorProto, helper, numpy_helper

WIDTH = 16
X = np.random.default_rng(0).normal(size=(23, WIDTH)).astype(np.float32)
ORT: dict[str, Any] = {"runtime": "onnxruntime", "threads": 1}


def weights(outputs: int, seed: int = 0) -> Any:
    return np.random.default_rng(seed).normal(size=(WIDTH, outputs)).astype(np.float32)


def linear(path: Path, outputs: int = 8, seed: int = 0) -> Path:
    """A file that multiplies by `weights`."""
    weight = numpy_helper.from_array(weights(outputs, seed), "weight")
    return _save(path, [helper.make_node("MatMul", ["input", "weight"], ["output"])], [weight])


def endless(path: Path) -> Path:
    """A file that adds to its input for ever."""
    body = helper.make_graph(
        [
            helper.make_node("Identity", ["go_on"], ["going"]),
            helper.make_node("Add", ["value", "one"], ["next"]),
        ],
        "body",
        [
            helper.make_tensor_value_info("step", TensorProto.INT64, []),
            helper.make_tensor_value_info("go_on", TensorProto.BOOL, []),
            helper.make_tensor_value_info("value", TensorProto.FLOAT, ["batch", WIDTH]),
        ],
        [
            helper.make_tensor_value_info("going", TensorProto.BOOL, []),
            helper.make_tensor_value_info("next", TensorProto.FLOAT, ["batch", WIDTH]),
        ],
        [helper.make_tensor("one", TensorProto.FLOAT, [], [1.0])],
    )
    steps = helper.make_tensor("steps", TensorProto.INT64, [], [10**15])
    return _save(path, [helper.make_node("Loop", ["steps", "", "input"], ["output"], body=body)],
                 [steps])  # fmt: skip


def greedy(path: Path, numbers: int, *, at_load: bool) -> Path:
    """A file that fills this many float32 numbers, when it is loaded or when it is run."""
    one = numpy_helper.from_array(np.ones(1, np.float32), "one")
    shape = numpy_helper.from_array(np.array([numbers], np.int64), "shape")
    zero = numpy_helper.from_array(np.array(0, np.int64), "zero")
    nodes = [
        helper.make_node("Identity", ["shape"], ["size"]),
        helper.make_node("Expand", ["one", "size"], ["huge"]),
        helper.make_node("ReduceSum", ["huge"], ["sum"], keepdims=0),
        helper.make_node("Add", ["input", "sum"], ["output"]),
    ]
    if not at_load:  # a shape that folding cannot see
        nodes[:1] = [
            helper.make_node("Shape", ["input"], ["sizes"]),
            helper.make_node("ReduceSum", ["sizes"], ["some"], keepdims=1),
            helper.make_node("Mul", ["some", "zero"], ["nothing"]),
            helper.make_node("Add", ["shape", "nothing"], ["size"]),
        ]
    return _save(path, nodes, [one, shape, zero])


def spy(path: Path, secret: str) -> Path:
    """A file whose weights are said to lie in another file."""
    tensor = TensorProto(name="weight", data_type=TensorProto.UINT8, dims=[8])
    tensor.data_location = TensorProto.EXTERNAL
    for key, value in (("location", secret), ("offset", "0"), ("length", "8")):
        tensor.external_data.add(key=key, value=value)
    nodes = [
        helper.make_node("Cast", ["weight"], ["numbers"], to=TensorProto.FLOAT),
        helper.make_node("ReduceSum", ["numbers"], ["sum"], keepdims=0),
        helper.make_node("Add", ["input", "sum"], ["output"]),
    ]
    return _save(path, nodes, [tensor])


def _save(path: Path, nodes: Sequence[NodeProto], tensors: Sequence[TensorProto]) -> Path:
    graph = helper.make_graph(
        nodes,
        "graph",
        [helper.make_tensor_value_info("input", TensorProto.FLOAT, ["batch", WIDTH])],
        [helper.make_tensor_value_info("output", TensorProto.FLOAT, ["batch", None])],
        tensors,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)
    path.write_bytes(model.SerializeToString())
    return path
