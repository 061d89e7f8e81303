"""Weights of 16 bits against NumPy's and torch's own rounding."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
import torch
from onnx import numpy_helper

from parefront.errors import SpaceError, StageError
from parefront.spaces.packing.packer import pack
from parefront.spaces.quantization.half import HalfChoices, HalfConfig, HalfWeights
from parefront.spaces.stage import TargetTraits
from tests.exporting import export
from tests.zoo import make

STAGE = HalfWeights(HalfChoices(), TargetTraits(format="onnx", channel_multiple=8))


def floats(model: onnx.ModelProto) -> dict[str, torch.Tensor]:
    return {
        each.name: torch.from_numpy(numpy_helper.to_array(each).copy())
        for each in model.graph.initializer
        if each.data_type == onnx.TensorProto.FLOAT
    }


@pytest.mark.parametrize(("kind", "dtype"), [("float16", torch.half), ("bfloat16", torch.bfloat16)])
def test_it_rounds_as_torch_does_and_packs_to_half(kind: str, dtype: torch.dtype) -> None:
    module, context = make("mlp")
    model = export(module, context)
    applied = STAGE.apply(model, HalfConfig.model_validate({"format": kind}), context)
    before, after = floats(model), floats(applied.model)
    assert applied.achieved["tensors"] == sum(value.numel() >= 256 for value in before.values())
    for name, value in before.items():
        expected = value.to(dtype).float() if value.numel() >= 256 else value
        assert torch.equal(after[name], expected)
    packed, counts = pack(applied.model)
    # Of so few weights some have values that are stored in fewer bits still.
    assert sum(counts.values()) == applied.achieved["tensors"]
    assert kind in counts or kind == "bfloat16"
    large = sum(4 * value.numel() for value in before.values() if value.numel() >= 256)
    saved = model.ByteSize() - packed.ByteSize()
    assert saved > large / 2 - 120 * applied.achieved["tensors"]


def test_fixed_point_is_sixteen_bits_with_one_binary_point() -> None:
    module, context = make("mlp")
    model = export(module, context)
    applied = STAGE.apply(model, HalfConfig(format="fixed16"), context)
    before, after = floats(model), floats(applied.model)
    for name, value in before.items():
        if value.numel() < 256:
            continue
        step = 2.0 ** (int(torch.frexp(value.abs().max()).exponent) - 15)
        # torch's own fixed point: a scale of a power of two, rounded to the nearest even.
        expected = torch.fake_quantize_per_tensor_affine(value, step, 0, -(2**15), 2**15 - 1)
        assert torch.equal(after[name], expected + 0.0)
        assert (after[name] - value).abs().max() <= step / 2
    packed, counts = pack(applied.model)
    assert counts == {"fixed point": applied.achieved["tensors"]}
    large = sum(4 * value.numel() for value in before.values() if value.numel() >= 256)
    assert model.ByteSize() - packed.ByteSize() > large / 2 - 200 * sum(counts.values())


def test_what_a_format_cannot_hold_stays_as_it_is() -> None:
    module, context = make("mlp")
    model = export(module, context)
    tensor = next(each for each in model.graph.initializer if np.prod(each.dims) >= 256)
    array = numpy_helper.to_array(tensor).copy()
    array.flat[0] = 1e5
    tensor.CopyFrom(numpy_helper.from_array(array, tensor.name))
    applied = STAGE.apply(model, HalfConfig(format="float16"), context)
    assert applied.achieved["left"] == [tensor.name]
    assert torch.equal(floats(applied.model)[tensor.name], torch.from_numpy(array))
    assert STAGE.apply(model, HalfConfig(format="bfloat16"), context).achieved["left"] == []
    array[:] = -np.inf  # as a causal mask has it, which both hold
    array.flat[0] = np.nan
    tensor.CopyFrom(numpy_helper.from_array(array, tensor.name))
    for kind in ("float16", "bfloat16"):
        applied = STAGE.apply(model, HalfConfig.model_validate({"format": kind}), context)
        found = floats(applied.model)[tensor.name].numpy()
        np.testing.assert_array_equal(found, array)
    applied = STAGE.apply(model, HalfConfig(format="fixed16"), context)
    assert applied.achieved["left"] == [tensor.name]
    del model.graph.initializer[:]
    model.graph.initializer.append(numpy_helper.from_array(np.full(300, 1e5, np.float32), "w"))
    with pytest.raises(StageError, match="large enough to halve, but for w, which float16 cannot"):
        STAGE.apply(model, HalfConfig(format="float16"), context)


def test_other_formats_are_refused() -> None:
    with pytest.raises(SpaceError, match="half needs a target that runs ONNX files"):
        HalfWeights(HalfChoices(), TargetTraits(format="pte", channel_multiple=8))
