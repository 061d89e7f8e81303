"""Parameters and multiply-accumulate operations, against torch's own counts and by hand."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from onnxruntime.quantization import QuantType, quantize_dynamic
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from parefront.errors import MeasurementError
from parefront.objectives.macs import COUNTED, count_macs
from parefront.objectives.onnx_graph import fixed_batch, read_graph
from parefront.objectives.parameters import count_parameters
from parefront.objectives.targets.axes import Axes
from parefront.objectives.targets.onnx_exporters import export_program, trace
from parefront.objectives.targets.onnx_runtime import OnnxRuntime
from parefront.spaces.inspection import count_parameters as torch_parameters
from parefront.spaces.lowrank.config import FactorizationChoices, FactorizationConfig
from parefront.spaces.lowrank.svd import Factorization
from parefront.spaces.quantization.graph import quiet_quantiser
from parefront.spaces.quantization.onnx_int8 import OnnxInt8, OnnxInt8Choices, OnnxInt8Config
from parefront.spaces.stage import StageContext, TargetTraits
from tests.zoo import MODELS, make

FLOAT = TensorProto.FLOAT
TRAITS = TargetTraits(format="onnx", channel_multiple=8)
RNG = np.random.default_rng(0)


AXES: Axes = {"input": {0: "batch"}, "output": {0: "batch"}}


def zoo(kind: str) -> tuple[nn.Module, StageContext]:
    """A model of the zoo without two equal weights, which an exporter would store once."""
    module, context = make(kind)
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for tensor in (*module.parameters(), *module.buffers()):
            if tensor.is_floating_point():
                tensor.copy_(torch.rand(tensor.shape, generator=generator) / 4 + 0.01)
    return module, context


def folded_parameters(module: nn.Module) -> int:
    """Torch's count after batch normalisation has become the bias of the convolution before it."""
    norms = [m for m in module.modules() if isinstance(m, nn.BatchNorm1d | nn.BatchNorm2d)]
    convolutions = [m for m in module.modules() if isinstance(m, nn.Conv1d | nn.Conv2d)]
    new = sum(conv.out_channels for conv in convolutions if conv.bias is None)
    return torch_parameters(module) - sum(torch_parameters(norm) for norm in norms) + new


def torch_macs(module: nn.Module, example: tuple[torch.Tensor, ...]) -> float:
    """Half the floating-point operations that torch counts for one example."""
    fast = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        # The fused kernel for attention is not counted.
        with (
            torch.no_grad(),
            sdpa_kernel(SDPBackend.MATH),
            FlopCounterMode(display=False) as counter,
        ):
            module(*(x[:1] for x in example))
    finally:
        torch.backends.mha.set_fastpath_enabled(fast)
    return float(counter.get_total_flops()) / 2


def counts(path: Path, shape: Sequence[int], name: str = "input") -> tuple[int, float]:
    return count_parameters(read_graph(path)), count_macs(read_graph(path), {name: tuple(shape)})


def exported(module: nn.Module, context: StageContext, path: Path, how: Any = trace) -> Path:
    axes = {name: {0: "batch"} for name in (*context.input_names, "output")}
    path.write_bytes(how(module, context.example, context.input_names, ["output"], axes))
    return path


@pytest.mark.parametrize("how", [trace, export_program])
# Torch does not count what recurrent layers multiply.
@pytest.mark.parametrize("kind", [kind for kind in MODELS if kind not in ("lstm", "gru")])
def test_counts_are_those_of_torch(kind: str, how: Any, tmp_path: Path) -> None:
    module, context = zoo(kind)
    path = exported(module, context, tmp_path / "m.onnx", how)
    graph = read_graph(path)
    shapes = {
        name: tuple(value.shape)
        for name, value in zip(context.input_names, context.example, strict=True)
    }
    assert count_parameters(graph) == folded_parameters(module)
    assert count_macs(graph, shapes) == torch_macs(module, context.example)


@pytest.mark.parametrize("method", ["static", "dynamic"])
@pytest.mark.parametrize("per_channel", [True, False])
@pytest.mark.parametrize("kind", ["cnn", "depthwise", "transformer"])
def test_quantisation_changes_neither_count(
    kind: str, per_channel: bool, method: Any, tmp_path: Path
) -> None:
    module, context = zoo(kind)
    path = exported(module, context, tmp_path / "m.onnx")
    config = OnnxInt8Config(
        method=method,
        calibration="minmax" if method == "static" else None,
        per_channel=per_channel,
    )
    stage = OnnxInt8(OnnxInt8Choices(), TRAITS)
    onnx.save(stage.apply(onnx.load(path), config, context).model, tmp_path / "q.onnx")
    shape = context.example[0].shape
    expected = folded_parameters(module), torch_macs(module, context.example)
    assert counts(tmp_path / "q.onnx", shape) == expected


@pytest.mark.parametrize("kind", ["mlp", "resnet"])
def test_low_rank_factors_count_as_they_are(kind: str, tmp_path: Path) -> None:
    module, context = zoo(kind)
    config = FactorizationConfig(ratio=0.5, layers="all", multiple=8)
    thin = Factorization(FactorizationChoices(), TRAITS).apply(module, config, context).model
    found = counts(exported(thin, context, tmp_path / "thin.onnx"), context.example[0].shape)
    assert found[0] < folded_parameters(module)
    assert found[1] < torch_macs(module, context.example)
    assert found[1] == torch_macs(thin, context.example)
    if kind == "mlp":
        assert found[0] == torch_parameters(thin)


def test_factors_of_a_linear_layer_by_hand(tmp_path: Path) -> None:
    class Thin(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.second = nn.Linear(50, 7, bias=False), nn.Linear(7, 30)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.second(self.first(x))  # type: ignore[no-any-return]

    example = (torch.randn(2, 50),)
    path = tmp_path / "m.onnx"
    path.write_bytes(trace(Thin().eval(), example, ["input"], ["output"], AXES))
    assert counts(path, (2, 50)) == (50 * 7 + 7 * 30 + 30, 50 * 7 + 7 * 30)


def test_a_recurrent_layer(tmp_path: Path) -> None:
    class Words(nn.Module):
        def __init__(self, layer: type[nn.RNNBase]) -> None:
            super().__init__()
            self.layer = layer(5, 8, num_layers=2, bidirectional=True, batch_first=True)  # type: ignore[call-arg,arg-type]
            self.head = nn.Linear(16, 3)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.head(self.layer(x)[0][:, -1])  # type: ignore[no-any-return]

    steps = 11
    for layer, gates in ((nn.LSTM, 4), (nn.GRU, 3), (nn.RNN, 1)):
        module = Words(layer).eval()
        path = tmp_path / f"{layer.__name__}.onnx"
        path.write_bytes(trace(module, (torch.randn(2, steps, 5),), ["input"], ["output"], AXES))
        own = gates * 8
        macs = steps * 2 * (own * (5 + 8) + own * (16 + 8)) + 16 * 3
        assert counts(path, (2, steps, 5)) == (torch_parameters(module), macs)
        if layer is nn.LSTM:
            quantised = tmp_path / "quantised.onnx"
            with quiet_quantiser():
                quantize_dynamic(path, quantised, weight_type=QuantType.QInt8)
            operators = {node.op_type for node in onnx.load(quantised).graph.node}
            assert {"DynamicQuantizeLSTM", "MatMulInteger"} <= operators
            assert counts(quantised, (2, steps, 5)) == (torch_parameters(module), macs)


def test_attention_over_a_length_that_the_file_leaves_open(tmp_path: Path) -> None:
    module, context = zoo("transformer")
    path = exported(module, context, tmp_path / "m.onnx", export_program)
    model = onnx.load(path)
    assert model.graph.input[0].type.tensor_type.shape.dim[0].dim_param  # the batch is open
    per_token = 2 * (4 * 64 * 64 + 2 * 64 * 128)
    attention = 2 * 2 * 24 * 24 * 64
    assert counts(path, (2, 24))[1] == 24 * per_token + attention + 640


def saved(
    path: Path,
    nodes: Sequence[onnx.NodeProto],
    shape: Sequence[int | str],
    weights: dict[str, Any],
    kind: int = FLOAT,
    domains: Sequence[str] = (),
    **more: Any,
) -> Path:
    """A file with the input `x` and the output `y`."""
    graph = helper.make_graph(
        list(nodes),
        "graph",
        [helper.make_tensor_value_info("x", kind, shape)],
        [helper.make_tensor_value_info("y", FLOAT, None)],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in weights.items()],
    )
    opsets = [helper.make_opsetid("", 18), *(helper.make_opsetid(name, 1) for name in domains)]
    onnx.save(helper.make_model(graph, opset_imports=opsets, ir_version=8, **more), path)
    return path


def f32(*shape: int) -> Any:
    return RNG.normal(size=shape).astype(np.float32)


def i8(*shape: int) -> Any:
    return RNG.integers(-9, 9, shape).astype(np.int8)


node = helper.make_node
one, zero = np.float32(1), np.int8(0)

BY_HAND: dict[str, tuple[list[onnx.NodeProto], list[int | str], dict[str, Any], int, int]] = {
    "grouped convolution with stride": (
        [node("Conv", ["x", "w", "b"], ["y"], group=2, strides=[2, 2])],
        ["n", 4, 9, 9], {"w": f32(6, 2, 3, 3), "b": f32(6)},
        6 * 2 * 9 + 6, 6 * 4 * 4 * 2 * 9,
    ),
    "transposed convolution": (
        [node("ConvTranspose", ["x", "w"], ["y"], strides=[2])],
        ["n", 4, 10], {"w": f32(4, 3, 5)},
        4 * 3 * 5, 4 * 10 * 3 * 5,
    ),
    "a Gemm that transposes": (
        [node("Transpose", ["x"], ["xt"]), node("Gemm", ["xt", "w", "c"], ["y"], transA=1)],
        ["n", 6], {"w": f32(6, 5), "c": f32(5)},
        35, 30,
    ),
    "a product of three dimensions": (
        [node("MatMul", ["x", "w"], ["y"])], ["n", 3, 7, 6], {"w": f32(6, 5)}, 30, 3 * 7 * 6 * 5,
    ),
    "a product with a vector": (
        [node("MatMul", ["x", "w"], ["y"])], ["n", 3, 6], {"w": f32(6)}, 6, 3 * 6,
    ),
    "Einsum": (
        [node("Einsum", ["x", "w"], ["y"], equation="nij,jk->nik")],
        ["n", 4, 6], {"w": f32(6, 5)},
        30, 4 * 6 * 5,
    ),
    "a QLinearMatMul": (
        [node("QuantizeLinear", ["x", "s", "z"], ["q"]),
         node("QLinearMatMul", ["q", "s", "z", "w", "ws", "wz", "s", "z"], ["p"]),
         node("DequantizeLinear", ["p", "s", "z"], ["y"])],
        ["n", 6], {"s": one, "z": zero, "w": i8(6, 5), "ws": f32(5), "wz": i8(5)},
        30, 30,
    ),
    "a QLinearConv with its 32-bit bias": (
        [node("QuantizeLinear", ["x", "s", "z"], ["q"]),
         node("QLinearConv", ["q", "s", "z", "w", "ws", "wz", "s", "z", "b"], ["p"]),
         node("DequantizeLinear", ["p", "s", "z"], ["y"])],
        ["n", 2, 8],
        {"s": one, "z": zero, "w": i8(5, 2, 3), "ws": f32(5), "wz": i8(5),
         "b": np.arange(5, dtype=np.int32)},
        35, 5 * 6 * 2 * 3,
    ),
    "a codebook": (
        [node("Cast", ["codes"], ["index"], to=TensorProto.INT64),
         node("Gather", ["book", "index"], ["flat"]),
         node("Reshape", ["flat", "shape"], ["w"]),
         node("MatMul", ["x", "w"], ["y"])],
        ["n", 40],
        {"codes": RNG.integers(0, 16, 1200).astype(np.uint8), "book": f32(16),
         "shape": np.array([40, 30])},
        1200, 1200,
    ),
    "sparse weights": (
        [node("ScatterND", ["empty", "where", "values"], ["w"]),
         node("MatMul", ["x", "w"], ["y"])],
        ["n", 40],
        {"empty": np.zeros((40, 30), np.float32), "where": np.array([[1, 2], [3, 4]]),
         "values": f32(2)},
        1200, 1200,
    ),
    "a weight that is read twice, once transposed": (
        [node("MatMul", ["x", "w"], ["h"]), node("Transpose", ["w"], ["wt"]),
         node("MatMul", ["h", "wt"], ["y"])],
        ["n", 6], {"w": f32(6, 5)},
        30, 60,
    ),
    "a product of weights, made when the file is loaded": (
        [node("MatMul", ["a", "b"], ["w"]), node("MatMul", ["x", "w"], ["y"])],
        ["n", 6], {"a": f32(6, 2), "b": f32(2, 5)},
        30, 30,
    ),
    "settings are no parameters": (
        [node("MatMul", ["x", "w"], ["h"]), node("Mul", ["h", "half"], ["i"]),
         node("Clip", ["i", "low", "high"], ["j"]), node("Add", ["j", "bias"], ["y"])],
        ["n", 6],
        {"w": f32(6, 1), "half": f32(1), "low": np.float32(0), "high": np.float32(6),
         "bias": f32(1)},
        7, 6,
    ),
    "batch normalisation that stayed": (
        [node("MatMul", ["x", "w"], ["h"]),
         node("BatchNormalization", ["h", "g", "b", "m", "v"], ["y"])],
        ["n", 6], {"w": f32(6, 5), "g": f32(5), "b": f32(5), "m": f32(5), "v": f32(5) ** 2},
        40, 30,
    ),
    "a first state": (
        [node("Transpose", ["x"], ["t"], perm=[1, 0, 2]),
         node("RNN", ["t", "w", "r", "", "", "h"], ["y"], hidden_size=4)],
        ["n", 7, 3], {"w": f32(1, 4, 3), "r": f32(1, 4, 4), "h": f32(1, 1, 4)},
        28, 7 * 28,
    ),
    "an enlarged image": (
        [node("Resize", ["x", "", "scales"], ["big"]), node("Conv", ["big", "w"], ["y"])],
        ["n", 1, 4, 4], {"scales": np.array([1, 1, 2, 2], np.float32), "w": f32(2, 1, 1, 1)},
        2, 2 * 64,
    ),
    "shapes that are divided": (
        [node("Shape", ["x"], ["s"], start=2), node("Div", ["s", "two"], ["half"]),
         node("Concat", ["lead", "two", "half"], ["to"], axis=0),
         node("Reshape", ["x", "to"], ["r"]), node("MatMul", ["r", "w"], ["y"])],
        ["n", 5, 8], {"two": np.array([2]), "lead": np.array([0, 5]), "w": f32(4, 3)},
        12, 5 * 2 * 4 * 3,
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", BY_HAND)
def test_counts_by_hand(case: str, tmp_path: Path) -> None:
    nodes, shape, weights, parameters, macs = BY_HAND[case]
    path = saved(tmp_path / "m.onnx", nodes, shape, weights)
    sizes = [1 if isinstance(n, str) else n for n in shape]
    OnnxRuntime().open(path, 1).run({"x": np.ones(sizes, np.float32)})  # the case makes sense
    assert counts(path, sizes, "x") == (parameters, macs)


def test_packed_weights_of_onnx_runtime(tmp_path: Path) -> None:
    path = saved(
        tmp_path / "m.onnx",
        [node("MatMulNBits", ["x", "w", "s", "", "", "b"], ["y"], domain="com.microsoft",
              K=64, N=10, bits=4, block_size=32)],
        ["n", 3, 64],
        {"w": np.zeros((10, 2, 16), np.uint8), "s": f32(20), "b": f32(10)},
        domains=["com.microsoft"],
    )  # fmt: skip
    assert counts(path, (2, 3, 64), "x") == (650, 3 * 640)


def test_a_fixed_batch_is_divided(tmp_path: Path) -> None:
    path = saved(tmp_path / "m.onnx", [node("MatMul", ["x", "w"], ["y"])], [4, 6], {"w": f32(6, 5)})
    assert fixed_batch(path) == 4
    assert counts(path, (32, 6), "x") == (30, 30)


def test_other_open_sizes_come_from_the_batch(tmp_path: Path) -> None:
    path = saved(
        tmp_path / "m.onnx", [node("MatMul", ["x", "w"], ["y"])], ["n", "t", 6], {"w": f32(6, 5)}
    )
    assert fixed_batch(path) is None
    assert counts(path, (32, 17, 6), "x") == (30, 17 * 30)
    with pytest.raises(MeasurementError, match="input 'x' with 3 dimensions, got one with 2"):
        counts(path, (32, 6), "x")
    with pytest.raises(MeasurementError, match="input 'x' with 3 dimensions, got none"):
        counts(path, (32, 17, 6), "input")


def test_functions_of_the_file_are_resolved(tmp_path: Path) -> None:
    dense = helper.make_function(
        "own", "Dense", ["a", "b"], ["c"], [node("MatMul", ["a", "b"], ["c"])],
        [helper.make_opsetid("", 18)],
    )  # fmt: skip
    path = saved(
        tmp_path / "m.onnx", [node("Dense", ["x", "w"], ["y"], domain="own")], ["n", 6],
        {"w": f32(6, 5)}, domains=["own"], functions=[dense],
    )  # fmt: skip
    assert counts(path, (2, 6), "x") == (30, 30)


def loop(body: list[onnx.NodeProto], path: Path) -> Path:
    graph = helper.make_graph(
        [node("Identity", ["go"], ["going"]), *body],
        "body",
        [helper.make_tensor_value_info("step", TensorProto.INT64, []),
         helper.make_tensor_value_info("go", TensorProto.BOOL, []),
         helper.make_tensor_value_info("v", FLOAT, ["n", 6])],
        [helper.make_tensor_value_info("going", TensorProto.BOOL, []),
         helper.make_tensor_value_info("next", FLOAT, ["n", 6])],
    )  # fmt: skip
    return saved(
        path, [node("Loop", ["steps", "", "x"], ["y"], body=graph)], ["n", 6],
        {"w": f32(6, 6), "steps": np.array(3)},
    )  # fmt: skip


def test_what_is_multiplied_in_a_loop_is_not_guessed(tmp_path: Path) -> None:
    path = loop([node("MatMul", ["v", "w"], ["next"])], tmp_path / "m.onnx")
    assert count_parameters(read_graph(path)) == 36
    with pytest.raises(MeasurementError, match="cannot count the multiplications of MatMul inside"):
        counts(path, (2, 6), "x")
    assert counts(loop([node("Relu", ["v"], ["next"])], path), (2, 6), "x") == (0, 0)


@pytest.mark.parametrize(
    ("nodes", "weights", "message"),
    [
        ([node("Gelu", ["x"], ["y"], domain="com.microsoft")], {}, r"com\.microsoft\.Gelu does"),
        ([node("Einsum", ["x"], ["y"], equation="ij->ji")], {}, "products of the Einsum 'ij->ji'"),
        ([node("NonZero", ["x"], ["i"]), node("Cast", ["i"], ["f"], to=FLOAT),
          node("MatMul", ["f", "f"], ["y"])], {}, "shape of the tensor 'y' does not follow"),
        ([node("MatMul", ["x", "w"], ["y"])], {"w": f32(7, 5)}, "'y' does not follow"),
        ([node("Foo", ["x"], ["y"], domain="ai.onnx.ml")], {}, r"ai\.onnx\.ml\.Foo does"),
    ],
    ids=["domain", "einsum", "values", "contradiction", "another domain"],
)  # fmt: skip
def test_what_cannot_be_counted_is_said(
    nodes: list[onnx.NodeProto], weights: dict[str, Any], message: str, tmp_path: Path
) -> None:
    path = saved(tmp_path / "m.onnx", nodes, ["n", 6], weights, domains=["com.microsoft"])
    with pytest.raises(MeasurementError, match=message):
        counts(path, (2, 6), "x")


def test_a_file_without_operator_sets_is_said(tmp_path: Path) -> None:
    path = saved(tmp_path / "m.onnx", [node("Relu", ["x"], ["y"])], ["n", 6], {})
    model = onnx.load(path)
    model.ClearField("opset_import")
    onnx.save(model, path)
    with pytest.raises(MeasurementError, match="shapes cannot be inferred: .*No opset import"):
        counts(path, (2, 6), "x")


@pytest.mark.parametrize("content", [None, b"", b"garbage" * 100])
@pytest.mark.parametrize("read", [read_graph, fixed_batch])
def test_what_is_no_model_is_said(
    read: Callable[[Path], Any], content: bytes | None, tmp_path: Path
) -> None:
    if content is not None:
        (tmp_path / "m.onnx").write_bytes(content)
    with pytest.raises(MeasurementError, match=r"cannot read m\.onnx as an ONNX file"):
        read(tmp_path / "m.onnx")


def test_large_weights_are_counted_without_their_values(tmp_path: Path) -> None:
    path = saved(
        tmp_path / "m.onnx", [node("MatMul", ["x", "w"], ["y"])], ["n", 2000], {"w": f32(2000, 500)}
    )
    graph = read_graph(path)
    assert graph.model.ByteSize() < 1000
    assert count_parameters(graph) == math.prod((2000, 500))


def test_every_operator_that_multiplies_has_been_tried() -> None:
    tried = {each.op_type for nodes, *_ in BY_HAND.values() for each in nodes}
    elsewhere = {"ConvInteger", "MatMulInteger", "LSTM", "GRU"}  # in quantised and torch models
    assert set(COUNTED) <= tried | elsewhere
