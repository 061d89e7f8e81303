from __future__ import annotations

import functools
import hashlib
import logging
import os
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper
from torch import nn

from parefront.errors import SpaceError, StageError
from parefront.spaces.quantization.graph import prepared, quiet_quantiser
from parefront.spaces.quantization.onnx_int8 import OnnxInt8, OnnxInt8Choices, OnnxInt8Config
from parefront.spaces.stage import Applied, StageContext, TargetTraits
from tests.exporting import SATURATES, export, run
from tests.zoo import Memory, make

DYNAMIC = OnnxInt8Config(method="dynamic", per_channel=True, reduce_range=SATURATES)
STATIC = OnnxInt8Config(
    method="static", calibration="minmax", per_channel=True, reduce_range=SATURATES
)
CONFIGS = [
    DYNAMIC,
    OnnxInt8Config(method="dynamic", per_channel=False, reduce_range=SATURATES),
    STATIC,
    OnnxInt8Config(
        method="static", calibration="minmax", per_channel=False, reduce_range=SATURATES
    ),
    OnnxInt8Config(
        method="static", calibration="entropy", per_channel=True, reduce_range=SATURATES
    ),
    OnnxInt8Config(
        method="static", calibration="percentile", per_channel=False, reduce_range=SATURATES
    ),
]
Graph = onnx.GraphProto
Array = NDArray[Any]


@pytest.fixture(autouse=True)
def seeded() -> Iterator[None]:
    """Makes weights and inputs the same in every run."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        yield


# Models that are large enough for 8 bits to save, all of whose layers are quantised.
every_model = pytest.mark.parametrize("kind", ["cnn", "resnet", "depthwise", "mlp", "transformer"])
every_config = pytest.mark.parametrize(
    "config", CONFIGS, ids=lambda c: f"{c.method}-{c.calibration}-{c.per_channel}"
)


def stage(**choices: Any) -> OnnxInt8:
    return OnnxInt8(
        OnnxInt8Choices.model_validate(choices),
        TargetTraits(format="onnx", channel_multiple=4, saturates=SATURATES),
    )


@functools.cache
def exported(kind: str) -> tuple[bytes, StageContext]:
    module, context = make(kind)
    return export(module, context).SerializeToString(), context


@functools.cache
def quantized(kind: str, config: OnnxInt8Config) -> Applied[onnx.ModelProto]:
    file, context = exported(kind)
    return stage().apply(onnx.load_from_string(file), config, context)


def of_module(module: nn.Module, inputs: torch.Tensor) -> tuple[onnx.ModelProto, StageContext]:
    """A module as ONNX, and a context with inputs for it."""
    source = Memory((inputs,), torch.zeros(len(inputs)))
    _, context = make("mlp")
    context = replace(context, example=(inputs[:2],), train=source, calibration=source)
    return export(module, context), context


def outputs(model: onnx.ModelProto, context: StageContext) -> Array:
    inputs = next(context.calibration.batches(len(context.calibration)))[0]
    return np.asarray(run(model, context, inputs)[0])


def relative_error(found: Array, expected: Array) -> float:
    """Mean deviation, relative to how much the outputs of different examples deviate."""
    assert found.shape == expected.shape
    assert np.isfinite(found).all()
    return float(np.abs(found - expected).mean() / np.abs(expected - expected.mean(axis=0)).mean())


def weights(graph: Graph) -> dict[str, Array]:
    return {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.initializer}


def error_after(model: onnx.ModelProto, config: OnnxInt8Config, context: StageContext) -> float:
    result = stage().apply(model, config, context).model
    return relative_error(outputs(result, context), outputs(model, context))


# What is in the file


@every_config
@every_model
def test_the_file_runs_is_smaller_and_answers_almost_the_same(
    kind: str, config: OnnxInt8Config
) -> None:
    file, context = exported(kind)
    result = quantized(kind, config).model
    onnx.checker.check_model(result, full_check=True)
    assert len(result.SerializeToString()) < 0.9 * len(file)
    error = relative_error(outputs(result, context), outputs(onnx.load_from_string(file), context))
    assert 0 < error < 0.15


@every_config
def test_weights_take_a_quarter(config: OnnxInt8Config) -> None:
    layers = nn.Sequential(nn.Linear(64, 512), nn.ReLU(), nn.Linear(512, 512), nn.Linear(512, 10))
    model, context = of_module(layers, torch.randn(16, 64))
    result = stage().apply(model, config, context).model
    assert 0.25 < len(result.SerializeToString()) / len(model.SerializeToString()) < 0.27


@pytest.mark.parametrize("config", [c for c in CONFIGS if c.method == "static"], ids=str)
@every_model
def test_static_files_hold_int8_weights_uint8_activations_and_int32_biases(
    kind: str, config: OnnxInt8Config
) -> None:
    graph = quantized(kind, config).model.graph
    held = weights(graph)
    producers = {name: node for node in graph.node for name in node.output}

    def stored(name: str) -> np.dtype[Any]:
        """Type of the integers behind a dequantised tensor."""
        assert producers[name].op_type == "DequantizeLinear"
        return held[producers[name].input[2]].dtype

    multiplying = [n for n in graph.node if n.op_type in {"Conv", "Gemm"}]
    assert multiplying
    for node in multiplying:
        assert stored(node.input[0]) == np.uint8
        assert stored(node.input[1]) == np.int8
        if len(node.input) > 2:
            assert stored(node.input[2]) == np.int32
    for node in graph.node:
        if node.op_type == "MatMul":
            assert stored(node.input[0]) == np.uint8
        if node.op_type == "QuantizeLinear":
            assert held[node.input[2]].dtype == np.uint8
    # Nothing is stored twice or left as it was.
    assert not [
        name for name, value in held.items() if value.ndim > 1 and value.dtype == np.float32
    ]
    assert {node.domain for node in graph.node} <= {""}


@every_model
def test_dynamic_files_hold_8_bit_weights(kind: str) -> None:
    graph = quantized(kind, DYNAMIC).model.graph
    held = weights(graph)
    used = Counter(node.op_type for node in graph.node)
    assert used["ConvInteger"] + used["MatMulInteger"] >= 3
    assert not used["Conv"]
    assert not used["Gemm"]
    for node in graph.node:
        if node.op_type == "ConvInteger":
            assert held[node.input[1]].dtype == np.uint8
        if node.op_type == "MatMulInteger":
            assert held[node.input[1]].dtype == np.int8
    assert not [n for n, value in held.items() if value.ndim > 1 and value.dtype == np.float32]


@every_model
def test_the_outputs_of_the_last_layer_are_not_rounded(kind: str) -> None:
    graph = quantized(kind, STATIC).model.graph
    (last,) = [node for node in graph.node if graph.output[0].name in node.output]
    assert last.op_type == "Gemm"


def test_an_output_that_is_used_again_stays_on_8_bits() -> None:
    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.second = nn.Linear(64, 32), nn.Linear(32, 8)

        def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
            y = self.first(x)
            return y, self.second(y)

    model, context = of_module(Twice(), torch.randn(64, 64))
    applied = stage().apply(model, STATIC, context)
    assert applied.achieved == {"quantized_nodes": {"Gemm": 2}, "float_nodes": {}}
    inputs = next(context.calibration.batches(64))[0]
    for found, expected in zip(
        run(applied.model, context, inputs), run(model, context, inputs), strict=True
    ):
        assert relative_error(np.asarray(found), np.asarray(expected)) < 0.05


def test_what_was_done_is_counted_by_operator() -> None:
    assert quantized("cnn", STATIC).achieved == {
        "quantized_nodes": {"Conv": 2, "Gemm": 2},
        "float_nodes": {},
    }
    assert quantized("cnn", DYNAMIC).achieved == {
        "quantized_nodes": {"ConvInteger": 2, "MatMulInteger": 2},
        "float_nodes": {},
    }
    # The products of queries, keys and values have no constant side; dynamic leaves them.
    assert quantized("transformer", DYNAMIC).achieved == {
        "quantized_nodes": {"MatMulInteger": 9},
        "float_nodes": {"MatMul": 4},
    }
    assert quantized("transformer", STATIC).achieved == {
        "quantized_nodes": {"Gemm": 3, "MatMul": 10},
        "float_nodes": {},
    }


# A second implementation of the quantisation of weights


def symmetric(weight: Array, axis: int | None) -> tuple[Array, Array]:
    """Integers and scales that represent a weight, with one scale or one for each of an axis."""
    other = tuple(i for i in range(weight.ndim) if i != axis)
    largest = np.abs(weight).max(axis=None if axis is None else other, keepdims=True)
    scale = (largest / 127).astype(np.float32)
    return np.clip(np.rint(weight / scale), -127, 127).astype(np.int8), scale.ravel()


@pytest.mark.parametrize("per_channel", [True, False])
@every_model
def test_static_weights_are_those_of_a_second_implementation(kind: str, per_channel: bool) -> None:
    file, _ = exported(kind)
    before = weights(prepared(onnx.load_from_string(file)).graph)
    config = STATIC.model_copy(update={"per_channel": per_channel, "reduce_range": False})
    graph = quantized(kind, config).model.graph
    after = weights(graph)
    producers = {name: node for node in graph.node for name in node.output}
    compared = 0
    for node in graph.node:
        source = (
            producers.get(node.input[1]) if node.op_type in {"Conv", "Gemm", "MatMul"} else None
        )
        if source is None or source.input[0] not in after:
            continue  # an activation
        integers, scale, zero_point = (after[name] for name in source.input)
        axis = 1 if node.op_type == "MatMul" else 0  # Gemm has its weights transposed
        if node.op_type == "Gemm":
            assert [a.i for a in node.attribute if a.name == "transB"] == [1]
        expected, scales = symmetric(
            before[source.input[0].removesuffix("_quantized")], axis if per_channel else None
        )
        np.testing.assert_array_equal(integers, expected)
        np.testing.assert_allclose(scale.ravel(), scales, rtol=1e-6)
        assert not zero_point.any()
        assert zero_point.size == scale.size == (expected.shape[axis] if per_channel else 1)
        compared += 1
    assert compared == sum(
        count
        for operator, count in quantized(kind, config).achieved["quantized_nodes"].items()
        if operator != "MatMul"
    ) + (6 if kind == "transformer" else 0)


@pytest.mark.parametrize("per_channel", [True, False])
def test_dynamic_weights_are_those_of_a_second_implementation(per_channel: bool) -> None:
    file, _ = exported("mlp")
    before = weights(onnx.load_from_string(file).graph)
    config = DYNAMIC.model_copy(update={"per_channel": per_channel, "reduce_range": False})
    after = weights(quantized("mlp", config).model.graph)
    matrices = {name: value for name, value in before.items() if value.ndim == 2}
    assert len(matrices) == 3
    for name, weight in matrices.items():
        expected, scales = symmetric(weight.T, 1 if per_channel else None)
        np.testing.assert_array_equal(after[f"{name}_Transposed_quantized"], expected)
        np.testing.assert_allclose(after[f"{name}_Transposed_scale"].ravel(), scales, rtol=1e-6)


def test_dynamic_kernels_are_affine_within_half_a_step() -> None:
    file, _ = exported("cnn")
    before = weights(prepared(onnx.load_from_string(file)).graph)
    after = weights(quantized("cnn", DYNAMIC).model.graph)
    kernels = {name: value for name, value in before.items() if value.ndim == 4}
    assert len(kernels) == 2
    for name, kernel in kernels.items():
        scale, zero = after[f"{name}_scale"], after[f"{name}_zero_point"].astype(np.float32)
        assert scale == pytest.approx((kernel.max() - kernel.min()) / 255)
        restored = (after[f"{name}_quantized"].astype(np.float32) - zero) * scale
        assert np.abs(restored - kernel).max() <= 0.501 * scale


# What models may look like


class Masked(nn.Module):
    """Attention that hides later positions, by adding a mask or by filling it in."""

    def __init__(self, hidden: float, *, fill: bool) -> None:
        super().__init__()
        self.queries, self.keys = nn.Linear(16, 16), nn.Linear(16, 16)
        self.values, self.head = nn.Linear(16, 16), nn.Linear(16, 4)
        self.hidden, self.fill = hidden, fill
        self.register_buffer("later", torch.ones(8, 8).triu(1).bool())

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        later: Any = self.later
        scores = self.queries(x) @ self.keys(x).transpose(1, 2)
        if self.fill:
            scores = scores.masked_fill(later, self.hidden)
        else:
            scores = scores + later.float() * self.hidden
        return self.head((scores.softmax(dim=-1) @ self.values(x))[:, -2])  # type: ignore[no-any-return]


@pytest.mark.parametrize(("hidden", "fill"), [(-1e9, False), (-1e9, True), (float("-inf"), True)])
def test_masks_do_not_spoil_the_ranges(hidden: float, fill: bool) -> None:
    model, context = of_module(Masked(hidden, fill=fill), torch.randn(64, 8, 16))
    assert error_after(model, STATIC, context) < 0.1


def test_a_dead_channel_with_a_large_bias_keeps_its_bias() -> None:
    # Its weights have no range, and a bias is stored in steps of the scales of inputs and weights.
    layer = nn.Linear(64, 4)
    with torch.no_grad():
        layer.weight[1] = 0
        layer.bias[1] = 30.0
    model, context = of_module(
        nn.Sequential(layer, nn.ReLU(), nn.Linear(4, 4)), torch.randn(64, 64)
    )
    for config in (STATIC, DYNAMIC):
        wide = config.model_copy(update={"reduce_range": False})
        assert error_after(model, wide, context) < 0.1


def test_weights_that_layers_share_are_stored_once() -> None:
    layer = nn.Linear(64, 64)
    model, context = of_module(
        nn.Sequential(layer, nn.ReLU(), layer, nn.ReLU(), layer, nn.ReLU(), nn.Linear(64, 4)),
        torch.randn(64, 64),
    )
    result = stage().apply(model, STATIC, context).model
    shapes = Counter(tensor.shape for tensor in weights(result.graph).values())
    assert shapes[64, 64] == 1
    assert relative_error(outputs(result, context), outputs(model, context)) < 0.1


def test_nodes_without_names_are_told_apart() -> None:
    layer = nn.Linear(64, 64)
    model, context = of_module(
        nn.Sequential(layer, nn.ReLU(), layer, nn.ReLU(), nn.Linear(64, 4)), torch.randn(64, 64)
    )
    expected = stage().apply(model, STATIC, context).model
    for node in model.graph.node:
        node.name = ""
    result = stage().apply(model, STATIC, context).model
    np.testing.assert_array_equal(outputs(result, context), outputs(expected, context))


@pytest.mark.parametrize("config", [STATIC, DYNAMIC], ids=["static", "dynamic"])
def test_convolutions_over_time_are_quantised(config: OnnxInt8Config) -> None:
    module = nn.Sequential(
        nn.Conv1d(4, 16, 3), nn.BatchNorm1d(16), nn.ReLU(), nn.Flatten(), nn.Linear(96, 5)
    )
    model, context = of_module(module, torch.randn(64, 4, 8))
    assert error_after(model, config, context) < 0.1


def test_transposed_convolutions_are_quantised() -> None:
    module = nn.Sequential(nn.ConvTranspose2d(4, 8, 2, 2), nn.ReLU(), nn.Conv2d(8, 1, 1))
    model, context = of_module(module, torch.randn(32, 4, 6, 6))
    assert error_after(model, STATIC, context) < 0.1
    achieved = stage().apply(model, STATIC, context).achieved
    assert achieved["quantized_nodes"] == {"Conv": 1, "ConvTranspose": 1}


class Last(nn.Module):
    """The last step of a recurrent network, through a head."""

    def __init__(self, recurrent: nn.Module, head: nn.Module) -> None:
        super().__init__()
        self.recurrent, self.head = recurrent, head

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.recurrent(x)[0][:, -1])  # type: ignore[no-any-return]


@pytest.mark.filterwarnings("ignore:Exporting a model to ONNX with a batch_size:UserWarning")
@pytest.mark.filterwarnings("ignore::torch.jit.TracerWarning")  # its checks of shapes
def test_only_dynamic_quantisation_has_lstms() -> None:
    module = Last(nn.LSTM(16, 32, batch_first=True), nn.Linear(32, 4))
    model, context = of_module(module, torch.randn(64, 8, 16))
    assert error_after(model, DYNAMIC, context) < 0.1
    dynamic = stage().apply(model, DYNAMIC, context).achieved
    assert dynamic["quantized_nodes"] == {"MatMulInteger": 1, "DynamicQuantizeLSTM": 1}
    static = stage().apply(model, STATIC, context).achieved
    assert static == {"quantized_nodes": {"Gemm": 1}, "float_nodes": {"LSTM": 1}}


def fixed(model: onnx.ModelProto, batch: int) -> onnx.ModelProto:
    """A copy that takes batches of one size only."""
    copy = onnx.load_from_string(model.SerializeToString())
    for entry in (*copy.graph.input, *copy.graph.output):
        entry.type.tensor_type.shape.dim[0].dim_value = batch
    return copy


def test_a_fixed_batch_is_filled_up_for_calibration() -> None:
    file, context = exported("cnn")
    model = onnx.load_from_string(file)
    inputs, _ = next(context.calibration.batches(10))
    few = replace(context, calibration=Memory(inputs, torch.zeros(10)))
    free = weights(stage().apply(model, STATIC, few).model.graph)
    tied = weights(stage().apply(fixed(model, 4), STATIC, few).model.graph)
    # The same examples give the same ranges, up to how a batch is summed.
    scales = [name for name in free if name.endswith("_scale")]
    assert len(scales) > 8
    for name in scales:
        np.testing.assert_allclose(tied[name], free[name], rtol=1e-4)


def test_inputs_are_fed_by_name() -> None:
    class Two(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.embed, self.mix = nn.Embedding(10, 8), nn.Linear(16, 4)

        def forward(self, token: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
            return self.mix(torch.cat([self.embed(token), x], dim=1))  # type: ignore[no-any-return]

    inputs = (torch.arange(64) % 10, torch.randn(64, 8))
    source = Memory(inputs, torch.zeros(64))
    _, context = make("mlp")
    context = replace(
        context,
        example=(inputs[0][:2], inputs[1][:2]),
        calibration=source,
        input_names=("token", "x"),
    )
    model = export(Two(), context)
    assert error_after(model, STATIC, context) < 0.05
    with pytest.raises(
        StageError, match="expected an exported model with the inputs a, b, got one with token, x"
    ):
        stage().apply(model, STATIC, replace(context, input_names=("a", "b")))


def test_only_the_calibration_examples_set_the_ranges() -> None:
    file, context = exported("mlp")
    model = onnx.load_from_string(file)
    inputs, targets = next(context.calibration.batches(64))
    wide = replace(context, calibration=Memory((inputs[0] * 3,), targets))

    def input_scale(context: StageContext) -> float:
        held = weights(stage().apply(model, STATIC, context).model.graph)
        return float(held["input_scale"])

    assert input_scale(wide) == pytest.approx(3 * input_scale(context))
    assert input_scale(replace(wide, calibration=context.calibration)) == input_scale(context)
    assert input_scale(context) == pytest.approx((inputs[0].max() - inputs[0].min()).item() / 255)


# Reproducibility and side effects


@pytest.mark.parametrize("config", [STATIC, DYNAMIC], ids=["static", "dynamic"])
@every_model
def test_equal_input_gives_equal_bytes_and_stays(kind: str, config: OnnxInt8Config) -> None:
    file, context = exported(kind)
    model = onnx.load_from_string(file)
    first = stage().apply(model, config, context).model.SerializeToString()
    assert model.SerializeToString() == file
    assert first == quantized(kind, config).model.SerializeToString()


PROGRAM = """
import hashlib, sys
import onnx, torch
torch.set_num_threads(1)
from tests.spaces.test_onnx_int8 import CONFIGS, stage
from tests.zoo import make
digest = hashlib.sha256()
for kind in ("cnn", "transformer"):
    model = onnx.load(f"{sys.argv[1]}/{kind}.onnx")
    for config in CONFIGS:
        result = stage().apply(model, config, make(kind)[1]).model
        digest.update(result.SerializeToString())
print(digest.hexdigest())
"""


@pytest.mark.slow
def test_processes_with_other_hash_seeds_write_equal_bytes(tmp_path: Path) -> None:
    for kind in ("cnn", "transformer"):
        (tmp_path / f"{kind}.onnx").write_bytes(exported(kind)[0])
    root = Path(__file__).parents[2]
    found = {
        subprocess.run(
            [sys.executable, "-c", PROGRAM, str(tmp_path)],
            env=os.environ | {"PYTHONHASHSEED": seed},
            cwd=root,
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for seed in ("1", "2")
    }
    expected = hashlib.sha256()
    for kind in ("cnn", "transformer"):
        for config in CONFIGS:
            expected.update(quantized(kind, config).model.SerializeToString())
    assert found == {f"{expected.hexdigest()}\n"}


@every_config
def test_nothing_is_printed_logged_or_left_behind(
    config: OnnxInt8Config,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    file, context = exported("transformer")
    model = onnx.load_from_string(file)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.setattr(logging.getLogger(), "handlers", [])
    filters = list(logging.getLogger().filters)
    stage().apply(model, config, context)
    assert logging.getLogger().handlers == []
    assert logging.getLogger().filters == filters
    assert list(tmp_path.iterdir()) == []
    assert capfd.readouterr() == ("", "")


def test_other_code_can_log_meanwhile(caplog: pytest.LogCaptureFixture) -> None:
    file, context = exported("mlp")
    context = replace(context, tick=lambda: logging.getLogger().warning("tick"))
    for config in (STATIC, DYNAMIC):
        stage().apply(onnx.load_from_string(file), config, context)
    with quiet_quantiser():
        logging.getLogger().warning("inside")
    assert set(caplog.messages) == {"tick", "inside"}


# Refusals


def test_static_quantisation_needs_examples() -> None:
    file, context = exported("mlp")
    empty = Memory((torch.zeros(0, 64),), torch.zeros(0))
    with pytest.raises(StageError, match="needs calibration examples, got none"):
        stage().apply(onnx.load_from_string(file), STATIC, replace(context, calibration=empty))


@pytest.mark.parametrize("config", [STATIC, DYNAMIC], ids=["static", "dynamic"])
def test_a_model_without_weights_is_refused(config: OnnxInt8Config) -> None:
    model, context = of_module(nn.Tanh(), torch.randn(4, 64))
    with pytest.raises(StageError, match="found nothing to quantise among the operators Tanh"):
        stage().apply(model, config, context)


def test_a_model_that_is_not_a_number_is_refused() -> None:
    layer = nn.Linear(64, 4)
    with torch.no_grad():
        layer.weight.fill_(float("nan"))
    model, context = of_module(layer, torch.randn(4, 64))
    with pytest.raises(StageError, match="static quantisation found nothing to quantise"):
        stage().apply(model, STATIC, context)


def test_a_file_the_runtime_refuses_is_refused() -> None:
    node = helper.make_node("NoSuchOperator", ["input"], ["output"])
    entries: Mapping[str, Any] = {
        name: helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n", 64])
        for name in ("input", "output")
    }
    graph = helper.make_graph([node], "graph", [entries["input"]], [entries["output"]])
    with pytest.raises(StageError, match="ONNX Runtime could not load the exported model: "):
        stage().apply(helper.make_model(graph), STATIC, make("mlp")[1])


def test_targets_without_onnx_are_refused() -> None:
    with pytest.raises(
        SpaceError, match="quantize needs a target that runs ONNX files, .* got the format 'pt2'"
    ):
        OnnxInt8(OnnxInt8Choices(), TargetTraits(format="pt2", channel_multiple=1))


def test_weights_have_7_bits_where_sums_would_saturate() -> None:
    def largest(model: onnx.ModelProto) -> int:
        integers = [numpy_helper.to_array(t) for t in model.graph.initializer]
        return max(int(np.abs(x.astype(int)).max()) for x in integers if x.dtype == np.int8)

    for config in (STATIC, DYNAMIC):
        narrow = quantized("mlp", config.model_copy(update={"reduce_range": True})).model
        wide = quantized("mlp", config.model_copy(update={"reduce_range": False})).model
        assert largest(narrow) == 64
        assert largest(wide) >= 127
