"""Whatever a tensor holds, it comes back bit by bit, from fewer bytes where it can."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator

from benchmarks import packing
from parefront.spaces.packing.codebook import Codebook, RowCodebooks
from parefront.spaces.packing.coding import Coding, Packed, Writer
from parefront.spaces.packing.digits import digits_in, write_digits
from parefront.spaces.packing.fixed_point import FixedPoint
from parefront.spaces.packing.halves import BFloat16, Float16
from parefront.spaces.packing.packer import CODINGS, LEAST, pack, smallest
from parefront.spaces.packing.scaled import Scaled
from parefront.spaces.packing.sparse import Sparse
from parefront.spaces.quantization.level_sets import LEVEL_SETS, LevelSet

Values = NDArray[Any]


def model_of(packed: Packed, name: str, kind: int, rank: int) -> onnx.ModelProto:
    graph = helper.make_graph(
        [*packed.nodes, helper.make_node("Identity", [name], ["out"])],
        "unpacks",
        [],
        [helper.make_tensor_value_info("out", kind, [None] * rank)],
        list(packed.initializers),
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)


def floats(*values: object) -> Values:
    return np.array(values, dtype=np.float32)


def unpacked(packed: Packed, name: str, kind: int, rank: int) -> tuple[Values, Values]:
    """By ONNX's own Python and by ONNX Runtime."""
    model = model_of(packed, name, kind, rank)
    onnx.checker.check_model(model, full_check=True)
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), providers=["CPUExecutionProvider"]
    )
    reference: Values = ReferenceEvaluator(model).run(None, {})[0]  # type: ignore[index]
    runtime: Values = session.run(None, {})[0]
    return reference, runtime


def assert_comes_back(packed: Packed, array: Values) -> None:
    kind = helper.np_dtype_to_tensor_dtype(array.dtype)
    for found in unpacked(packed, "w", kind, array.ndim):
        assert found.dtype == array.dtype
        assert found.shape == array.shape
        assert found.tobytes() == array.tobytes()


@st.composite
def weights(draw: st.DrawFn) -> Values:
    """Weights as techniques leave them: few values, many zeros, steps of channels, or anything."""
    shape = draw(st.sampled_from([(300,), (16, 20), (20, 16), (8, 4, 3, 3), (3, 7, 2, 9)]))
    random = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    array = random.normal(size=shape).astype(np.float32)
    if draw(st.booleans()):
        table = np.sort(random.normal(size=draw(st.integers(1, 40)))).astype(np.float32)
        array = table[random.integers(len(table), size=shape)]
    if draw(st.booleans()):
        most = draw(st.integers(1, 9))
        array = random.integers(-most, most + 1, size=shape).astype(np.float32)
    if draw(st.booleans()) and len(shape) > 1:
        axis = draw(st.sampled_from([0, 1]))
        steps = np.exp(random.normal(size=shape[axis])).astype(np.float32)
        array = array * steps.reshape([-1 if i == axis else 1 for i in range(len(shape))])
    if draw(st.booleans()):
        array = np.where(random.random(shape) < draw(st.floats(0, 1)), np.float32(0), array)
    if draw(st.booleans()):
        array = array.astype(np.float16).astype(np.float32)
    if draw(st.booleans()):
        array = (array * 20).clip(-128, 127).astype(np.int8)
    array.flat[0] = draw(st.sampled_from([0, 1, 100]))
    return array


@settings(deadline=None, max_examples=150)
@given(weights())
def test_the_smallest_comes_back(array: Values) -> None:
    packed = smallest("w", array)
    assert packed.size <= numpy_helper.from_array(array, "w").ByteSize()
    assert_comes_back(packed, array)


@pytest.mark.parametrize("coding", CODINGS, ids=lambda coding: coding.name)
@settings(deadline=None, max_examples=60)
@given(array=weights())
def test_each_coding_that_fits_gives_it_back(coding: Coding, array: Values) -> None:
    packed = coding.pack("w", array, lambda name, part: smallest(name, part, ()))
    if packed is not None:
        assert_comes_back(packed, array)


RANDOM = np.random.default_rng(0)
WHOLE = RANDOM.integers(-3, 4, size=(32, 40))
MOSTLY_ZERO = np.where(RANDOM.random((64, 64)) < 0.9, 0, RANDOM.normal(size=(64, 64)))


@pytest.mark.parametrize(
    ("coding", "fits", "does_not"),
    [
        (Float16(), floats([0.5, -2.0], [65504.0, 0.0]), floats(0.1)),
        (FixedPoint(), floats([0.75, -0.5], [127 / 256, 0.0]), floats(0.1, 1000.0)),
        (BFloat16(), floats([0.5, 0.0], [2.0**100, -0.0]), floats(1.001)),
        (Codebook(), floats(*[0.1, 0.2] * 8), np.arange(16, dtype=np.float32)),
        (RowCodebooks(), floats([0.1, 0.2] * 4, [0.3, 0.4] * 4), floats(*[0.1] * 16)),
        (
            Scaled(),
            (WHOLE * np.float32(0.1)).astype(np.float32),
            RANDOM.normal(size=(9, 9)).astype(np.float32),
        ),
        (Sparse(), MOSTLY_ZERO.astype(np.float32), np.ones((8, 8), np.float32)),
    ],
    ids=lambda each: getattr(each, "name", ""),
)
def test_a_coding_knows_what_fits(coding: Coding, fits: Values, does_not: Values) -> None:
    def within(name: str, part: Values) -> Packed:
        return smallest(name, part, ())

    packed = coding.pack("w", fits, within)
    assert packed is not None
    assert_comes_back(packed, fits)
    assert coding.pack("w", does_not, within) is None


@pytest.mark.parametrize("special", [np.nan, np.inf, -0.0, 1e-45])
def test_special_numbers_come_back(special: float) -> None:
    array = MOSTLY_ZERO.astype(np.float32)
    array[3, 4] = special
    assert_comes_back(smallest("w", array), array)


def test_a_byte_holds_five_of_three_and_eight_of_two() -> None:
    assert [digits_in(base, 8) for base in (2, 3, 4, 7, 16, 17, 256, 257)] == [
        8, 5, 4, 2, 2, 1, 1, 0,
    ]  # fmt: skip
    assert digits_in(32, 32) == 6


@settings(deadline=None)
@given(st.integers(2, 300), st.integers(1, 200), st.integers(0, 2**32 - 1))
def test_digits_are_the_numbers(base: int, count: int, seed: int) -> None:
    numbers = np.random.default_rng(seed).integers(base, size=count)
    numbers[-1] = base - 1
    writer = Writer("w")
    name = write_digits(writer, numbers, base)
    for found in unpacked(writer.packed("digits"), name, TensorProto.INT32, 1):
        assert found.tolist() == numbers.tolist()


BYTES = {
    "binary": 1 / 8,
    "ternary": 1 / 5,
    "uniform": 1 / 2,
    "power_of_two": 1 / 2,
    "additive": 1 / 2,
}
"""Bytes a weight of 4 bits: 15 values are two in a byte, 3 are five, 2 are eight."""


@pytest.mark.parametrize("name", BYTES)
def test_levels_of_each_channel_take_their_bits(name: LevelSet) -> None:
    levels = np.array(LEVEL_SETS[name](4), dtype=np.float32)
    steps = np.exp(RANDOM.normal(size=(512, 1))).astype(np.float32)
    array = levels[RANDOM.integers(len(levels), size=(512, 512))] * steps
    packed = smallest("w", array)
    assert packed.coding == "steps of each channel, codebook"
    stored = array.size * BYTES[name] + steps.nbytes
    assert stored <= packed.size <= stored + 700


def test_both_directions_of_a_recurrent_layer_have_steps_of_their_own() -> None:
    levels = np.array([-1, 0, 1], dtype=np.float32)
    steps = np.exp(RANDOM.normal(size=(2, 128, 1))).astype(np.float32)
    array = levels[RANDOM.integers(3, size=(2, 128, 64))] * steps
    packed = smallest("w", array)
    assert packed.coding == "steps of each channel, codebook"
    assert packed.size <= array.size / 5 + steps.nbytes + 700
    assert_comes_back(packed, array)


def test_levels_that_are_mostly_zero_take_the_bits_of_their_places() -> None:
    steps = np.exp(RANDOM.normal(size=(512, 1))).astype(np.float32)
    signs = RANDOM.choice([-1.0, 1.0], size=(512, 512))
    array = np.where(RANDOM.random((512, 512)) < 0.9, 0, signs * steps).astype(np.float32)
    packed = smallest("w", array)
    assert packed.coding == "steps of each channel, sparse, codebook"
    # Less than a byte for each tenth: a sign, its distance, and bridges between them.
    assert packed.size < 0.1 * array.size
    assert packed.size < 0.55 * array.size / 5
    assert_comes_back(packed, array)


def test_nine_tenths_of_zeros_cost_next_to_nothing() -> None:
    array = np.where(RANDOM.random((512, 512)) < 0.9, 0, RANDOM.normal(size=(512, 512)))
    halves = array.astype(np.float16).astype(np.float32)
    packed = smallest("w", halves)
    assert packed.coding == "sparse, float16"
    # 16 bits and some 5 for the distance to each tenth, against 32 bits for all.
    assert 12 < array.size * 4 / packed.size < 32 / (0.1 * (16 + 4.8))


def linear(array: Values) -> onnx.ModelProto:
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["x", "w"], ["y"])],
        "linear",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", array.shape[0]])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", array.shape[1]])],
        [numpy_helper.from_array(array, "w")],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)


def test_a_packed_model_computes_the_same_and_the_given_one_stays() -> None:
    array = np.sign(RANDOM.normal(size=(256, 256))).astype(np.float32)
    model = linear(array)
    before = model.SerializeToString(deterministic=True)
    packed, counts = pack(model)
    assert model.SerializeToString(deterministic=True) == before
    assert sum(counts.values()) == 1
    assert packed.ByteSize() < model.ByteSize() / 20
    onnx.checker.check_model(packed, full_check=True)
    x = RANDOM.normal(size=(3, 256)).astype(np.float32)
    results = [
        onnxruntime.InferenceSession(
            each.SerializeToString(), providers=["CPUExecutionProvider"]
        ).run(None, {"x": x})[0]
        for each in (model, packed)
    ]
    assert np.array_equal(*results)


@pytest.mark.parametrize("kind", packing.weights(RANDOM))
def test_the_runtime_unpacks_once_when_it_loads(tmp_path: Any, kind: str) -> None:
    packed, counts = pack(linear(packing.weights(np.random.default_rng(0))[kind]()))
    assert counts
    assert len(packed.graph.node) > 1
    options = onnxruntime.SessionOptions()
    options.optimized_model_filepath = str(tmp_path / "optimised.onnx")
    onnxruntime.InferenceSession(
        packed.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    nodes = [node.op_type for node in onnx.load(tmp_path / "optimised.onnx").graph.node]
    assert nodes == ["MatMul"]


@pytest.mark.parametrize("kind", ["binary", "ternary", "4 bits, additive", "16 values", "float16"])
def test_openvino_computes_the_same(tmp_path: Any, kind: str) -> None:
    openvino = pytest.importorskip("openvino", reason="needs OpenVINO")
    layer = packing.weights(np.random.default_rng(0))[kind]()
    model = linear(layer)
    packed, counts = pack(model)
    assert counts
    x = RANDOM.normal(size=(3, len(layer))).astype(np.float32)
    results = []
    for each in (model, packed):
        path = tmp_path / "model.onnx"
        path.write_bytes(each.SerializeToString())
        hints = {"INFERENCE_PRECISION_HINT": "f32"}
        results.append(openvino.Core().compile_model(path, "CPU", hints)(x)[0])
    np.testing.assert_allclose(results[0], results[1], rtol=1e-5, atol=1e-5)


def test_zeros_of_both_signs_are_one_value() -> None:
    # As an exporter leaves them that folds a negative scale into pruned weights.
    sparse = np.where(RANDOM.random((128, 128)) < 0.9, 0, RANDOM.normal(size=(128, 128)))
    sparse = sparse.astype(np.float32) * np.where(np.arange(128) % 2, -1, 1).astype(np.float32)
    assert np.signbit(sparse[sparse == 0]).any()
    packed, counts = pack(linear(sparse))
    assert counts == {"sparse": 1}
    assert packed.ByteSize() < 0.2 * sparse.nbytes


def test_each_tensor_is_a_step_of_the_work() -> None:
    model = linear(np.zeros((64, 64), np.float32))
    ticks = []
    pack(model, tick=lambda: ticks.append(1))
    assert len(ticks) == len(model.graph.initializer)


def test_what_is_small_or_nothing_to_gain_stays() -> None:
    noise = RANDOM.normal(size=(64, 64)).astype(np.float32)
    packed, counts = pack(linear(noise))
    assert counts == {}
    assert len(packed.graph.node) == 1
    assert smallest("w", np.zeros(LEAST - 1, np.float32)).nodes == ()
    assert smallest("w", np.zeros(LEAST, np.int64)).nodes == ()


def test_an_input_that_has_a_default_stays() -> None:
    model = linear(np.zeros((64, 64), np.float32))
    model.graph.input.append(helper.make_tensor_value_info("w", TensorProto.FLOAT, [64, 64]))
    packed, counts = pack(model)
    assert counts == {}
    assert packed == model
