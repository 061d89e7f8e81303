"""What weights that unpack themselves cost when a file is loaded and run, and what they save.

Eight dense layers of 512 x 512, one example at a time on one thread, with weights as techniques
leave them. Each file is compared with the same weights stored plainly, in ONNX Runtime and, where
it is installed, OpenVINO. Outputs have to be the same.

    python -m benchmarks.packing [--quick]

Prints a JSON object for each kind of weights: `size_ratio` of the plain file to the packed one,
larger is better; `latency_ratio_RUNTIME` and `load_ratio_RUNTIME` of the packed one to the plain
one, lower is better. The last line has the worst `latency_ratio`, which is 1 where a runtime
unpacks once, and the worst `load_ratio`.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Callable, Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from parefront.spaces.packing.packer import pack
from parefront.spaces.quantization.level_sets import additive

Floats = NDArray[Any]
Run = Callable[[Floats], Floats]
_SIZE = 512
_LAYERS = 8


def weights(random: np.random.Generator) -> dict[str, Callable[[], Floats]]:
    """One layer of each kind of weights."""

    def plain() -> Floats:
        return np.float32(1 / _SIZE**0.5) * random.standard_normal((_SIZE, _SIZE), np.float32)

    def steps() -> Floats:
        spread = np.exp(np.float32(0.1) * random.standard_normal((1, _SIZE), np.float32))
        return np.asarray(np.float32(1 / _SIZE**0.5) * spread)

    def one_of(values: Floats) -> Floats:
        return np.take(values, random.integers(len(values), size=(_SIZE, _SIZE)))

    levels = np.array(additive(4), dtype=np.float32)

    def sparse(share: float) -> Floats:
        kept = random.random((_SIZE, _SIZE)) >= share
        return np.where(kept, plain().astype(np.float16), np.float16(0)).astype(np.float32)

    return {
        "binary": lambda: np.where(plain() < 0, -steps(), steps()).astype(np.float32),
        "ternary": lambda: (np.rint(plain() * 20).clip(-1, 1) + 0.0).astype(np.float32) * steps(),
        "4 bits, additive": lambda: (
            levels[random.integers(len(levels), size=(_SIZE, _SIZE))] * (steps() / 16)
        ),
        "16 values": lambda: np.linspace(-0.1, 0.1, 16, dtype=np.float32)[
            random.integers(16, size=(_SIZE, _SIZE))
        ],
        "256 values": lambda: np.linspace(-0.1, 0.1, 256, dtype=np.float32)[
            random.integers(256, size=(_SIZE, _SIZE))
        ],
        "80 % zeros": lambda: sparse(0.8),
        "90 % zeros": lambda: sparse(0.9),
        "95 % zeros": lambda: sparse(0.95),
        "float16": lambda: plain().astype(np.float16).astype(np.float32),
    }


def network(layer: Callable[[], Floats]) -> onnx.ModelProto:
    """The layers, one after another."""
    names = ["x", *(f"h{index}" for index in range(1, _LAYERS)), "y"]
    nodes = [
        helper.make_node("MatMul", [names[index], f"w{index}"], [names[index + 1]])
        for index in range(_LAYERS)
    ]
    ends = [helper.make_tensor_value_info(n, TensorProto.FLOAT, ["n", _SIZE]) for n in ("x", "y")]
    tensors = [numpy_helper.from_array(layer(), f"w{index}") for index in range(_LAYERS)]
    graph = helper.make_graph(nodes, "layers", ends[:1], ends[1:], tensors)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)


def in_onnxruntime(path: Path) -> Run:
    """Loads a file."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    return lambda x: np.asarray(session.run(None, {"x": x})[0])


def in_openvino(path: Path) -> Run:
    """Loads a file."""
    import openvino

    hints: dict[str, Any] = {"INFERENCE_PRECISION_HINT": "f32", "INFERENCE_NUM_THREADS": 1}
    compiled = openvino.Core().compile_model(path, "CPU", hints)
    return lambda x: np.asarray(compiled(x)[0])


RUNTIMES: Mapping[str, Callable[[Path], Run]] = {
    "onnxruntime": in_onnxruntime,
    "openvino": in_openvino,
}


def compare(
    load: Callable[[Path], Run], plain: Path, packed: Path, rounds: int
) -> tuple[float, float]:
    """Latency and load time of the packed file over the plain one's, taken in turn."""
    x = np.random.default_rng(1).normal(size=(1, _SIZE)).astype(np.float32)
    loads: dict[Path, list[float]] = {plain: [], packed: []}
    runs: dict[Path, Run] = {}
    for _ in range(5):
        for path, spent in loads.items():
            start = time.perf_counter()
            runs[path] = load(path)
            spent.append(time.perf_counter() - start)
    if not np.allclose(runs[plain](x), runs[packed](x), rtol=1e-5, atol=1e-6):
        raise SystemExit(f"{packed} does not compute what {plain} does")
    ratios = []
    for _ in range(rounds):
        times = []
        for path in loads:
            start = time.perf_counter()
            for _ in range(20):
                runs[path](x)
            times.append(time.perf_counter() - start)
        ratios.append(times[1] / times[0])
    medians = [statistics.median(spent) for spent in loads.values()]
    return statistics.median(ratios), medians[1] / medians[0]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="ten rounds instead of a hundred")
    rounds = 10 if parser.parse_args().quick else 100
    worst = {"latency_ratio": 0.0, "load_ratio": 0.0}
    with tempfile.TemporaryDirectory() as folder:
        plain, packed = Path(folder, "plain.onnx"), Path(folder, "packed.onnx")
        for kind, layer in weights(np.random.default_rng(0)).items():
            model = network(layer)
            small, codings = pack(model)
            onnx.save(model, plain)
            onnx.save(small, packed)
            row: dict[str, Any] = {
                "weights": kind,
                "coding": next(iter(codings), "none"),
                "size_ratio": round(plain.stat().st_size / packed.stat().st_size, 2),
            }
            for name, load in RUNTIMES.items():
                if find_spec(name) is None:
                    continue
                latency, loading = compare(load, plain, packed, rounds)
                row |= {
                    f"latency_ratio_{name}": round(latency, 3),
                    f"load_ratio_{name}": round(loading, 2),
                }
                worst["latency_ratio"] = max(worst["latency_ratio"], round(latency, 3))
                worst["load_ratio"] = max(worst["load_ratio"], round(loading, 2))
            print(json.dumps(row), flush=True)
    print(json.dumps(worst))


if __name__ == "__main__":
    main()
