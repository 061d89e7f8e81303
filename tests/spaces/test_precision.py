"""16 bits, and where zero is: what the file holds, and what it answers."""

from __future__ import annotations

import functools
from typing import Any

import numpy as np
import onnx
import optuna
import pytest
from numpy.typing import NDArray
from onnx import TensorProto, numpy_helper
from pydantic import ValidationError

from parefront.errors import SpaceError
from parefront.spaces.quantization.calibration import entropy_bins, mse_bins
from parefront.spaces.quantization.onnx_int8 import OnnxInt8, OnnxInt8Choices, OnnxInt8Config
from parefront.spaces.space import Space
from parefront.spaces.stage import TargetTraits
from tests.exporting import SATURATES, export, run
from tests.zoo import make

TRAITS = TargetTraits(format="onnx", channel_multiple=4)
KINDS = ("cnn", "resnet", "mlp", "transformer")  # large enough for 16 bits to save


def config(**fields: Any) -> OnnxInt8Config:
    plain = {"method": "static", "calibration": "minmax", "per_channel": True}
    narrow = SATURATES and fields.get("activation_bits") != 16
    return OnnxInt8Config.model_validate(plain | {"reduce_range": narrow} | fields)


@functools.cache
def quantized(kind: str, config: OnnxInt8Config) -> tuple[onnx.ModelProto, int, float]:
    """A quantised file, the bytes it had before, and the mean error of its outputs."""
    module, context = make(kind)
    file = export(module, context)
    result = OnnxInt8(OnnxInt8Choices(), TRAITS).apply(file, config, context).model
    inputs = next(context.calibration.batches(64))[0]
    (before,), (after,) = run(file, context, inputs), run(result, context, inputs)
    return result, file.ByteSize(), float(np.abs(np.asarray(after) - np.asarray(before)).mean())


def rounded(model: onnx.ModelProto) -> list[tuple[NDArray[Any], NDArray[Any], NDArray[Any]]]:
    """The integers, scales and zero points of each stored weight."""
    held = {each.name: numpy_helper.to_array(each) for each in model.graph.initializer}
    return [
        (held[node.input[0]], held[node.input[1]], held[node.input[2]])
        for node in model.graph.node
        if node.op_type == "DequantizeLinear"
        and node.input[0] in held
        and held[node.input[0]].ndim > 1
    ]


def zero_points(model: onnx.ModelProto) -> list[NDArray[Any]]:
    held = {each.name: numpy_helper.to_array(each) for each in model.graph.initializer}
    return [held[n.input[2]] for n in model.graph.node if n.op_type == "QuantizeLinear"]


@pytest.mark.parametrize("weight_bits", [8, 16])
@pytest.mark.parametrize("kind", KINDS)
def test_16_bits_are_stored_smaller_and_answer_nearer(kind: str, weight_bits: int) -> None:
    _, _, usual = quantized(kind, config())
    wide = config(activation_bits=16, weight_bits=weight_bits)
    model, before, error = quantized(kind, wide)
    onnx.checker.check_model(model, full_check=True)
    assert model.ByteSize() < 0.9 * before
    # Weights of 8 bits keep their own share of the error, about half of it where 8 bits multiply
    # without saturating: independent shares add as squares, so what is left is up to 1 / sqrt(2).
    assert 0 < error < usual / (4 if weight_bits == 16 else 1.25)
    assert {node.domain for node in model.graph.node} == {""}
    assert [entry.version for entry in model.opset_import] == [21]
    assert {points.dtype for points in zero_points(model)} == {np.dtype(np.uint16)}
    kinds = {integers.dtype for integers, _, _ in rounded(model)}
    table = {np.dtype(np.uint16)} if kind == "transformer" else set()  # embeddings are activations
    assert kinds == {np.dtype(np.int8 if weight_bits == 8 else np.int16)} | table
    if weight_bits == 16:
        assert error < quantized(kind, config(activation_bits=16))[2] / 4


@pytest.mark.parametrize("calibration", ["average", "entropy", "percentile", "mse"])
def test_every_calibration_has_16_bits(calibration: str) -> None:
    wide = config(activation_bits=16, calibration=calibration, correct_bias=True, equalize=True)
    assert np.isfinite(quantized("cnn", wide)[2])


def test_with_more_levels_than_bins_nothing_is_worth_clipping() -> None:
    counts = np.random.default_rng(0).integers(1, 100, 2048)
    assert entropy_bins(counts, 2**16) == 2048
    assert mse_bins(counts, 2**16) == 2048


@pytest.mark.parametrize("bits", [8, 16])
def test_symmetric_activations_have_zero_in_the_middle(bits: int) -> None:
    model, _, _ = quantized("mlp", config(symmetric_activations=True, activation_bits=bits))
    assert {int(points) for points in zero_points(model)} == {2 ** (bits - 1)}
    usual, _, _ = quantized("mlp", config(activation_bits=bits))
    assert {int(points) for points in zero_points(usual)} != {2 ** (bits - 1)}


def test_asymmetric_weights_use_the_whole_range() -> None:
    model, _, _ = quantized(
        "mlp", config(per_channel=False, symmetric_weights=False, reduce_range=False)
    )
    module, _ = make("mlp")
    weights = sorted(float(p.detach().min()) for p in module.parameters() if p.ndim > 1)
    found = []
    for integers, scale, zero in rounded(model):
        assert (integers.min(), integers.max()) == (-128, 127)
        found.append(float((integers.astype(int).min() - int(zero)) * scale))
    np.testing.assert_allclose(sorted(found), weights, rtol=0.02)
    usual, _, _ = quantized("mlp", config(per_channel=False))
    assert all(int(zero) == 0 for _, _, zero in rounded(usual))


def test_biases_stay_within_their_32_bits() -> None:
    model, _, _ = quantized("cnn", config(activation_bits=16, weight_bits=16))
    biases = [
        numpy_helper.to_array(each).astype(np.int64)
        for each in model.graph.initializer
        if each.data_type == TensorProto.INT32 and each.dims
    ]
    assert biases
    assert all(np.abs(each).max() < 2**31 - 1 for each in biases)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"weight_bits": 16}, "weight_bits 16 beside activation_bits 8"),
        ({"symmetric_weights": False}, "expected symmetric_weights true beside per_channel"),
        (
            {
                "symmetric_weights": False,
                "per_channel": False,
                "activation_bits": 16,
                "weight_bits": 16,
            },
            "expected symmetric_weights true beside per_channel or 16-bit weights",
        ),
        (
            {"method": "dynamic", "calibration": None, "activation_bits": 16},
            "expected 8 bits for dynamic quantisation, got 16",
        ),
        (
            {"method": "dynamic", "calibration": None, "symmetric_activations": True},
            "expected no symmetric_activations for dynamic quantisation, got True",
        ),
        ({"activation_bits": 12}, "Input should be 8 or 16"),
    ],
)
def test_impossible_configs_are_refused(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        config(**fields)


@pytest.mark.parametrize(
    ("choices", "message"),
    [
        ({"weight_bits": 16}, "expected 16 among activation_bits"),
        ({"per_channel": True, "symmetric_weights": False}, "expected false among per_channel"),
    ],
)
def test_choices_that_are_never_drawn_are_refused(choices: dict[str, Any], message: str) -> None:
    with pytest.raises(SpaceError, match=message):
        Space.of({"quantize": choices}, TRAITS)


def test_the_defaults_draw_nothing_new() -> None:
    stage = OnnxInt8(OnnxInt8Choices(), TRAITS)
    for seed in range(10):
        trial = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=seed)).ask()
        drawn = stage.draw(trial, {})
        assert (drawn.activation_bits, drawn.weight_bits) == (8, 8)
        assert trial.params.keys() <= {
            "quantize.method", "quantize.calibration", "quantize.per_channel",
        }  # fmt: skip
