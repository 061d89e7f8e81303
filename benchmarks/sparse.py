"""What computing with sparse matrices gains over computing with their zeros.

The product of a matrix with so many zeros and a batch, on one thread: ONNX Runtime's MatMul, with
the weights stored plainly (the measure) and as a sparse initialiser; its SparseToDenseMatMul; and
the CSR products of torch (MKL) and scipy, which has to be installed. They are timed in turn, in
CPU time, and have to give the same.

    python -m benchmarks.sparse [--quick]

Prints a JSON object for each size, batch and share of zeros: the latency of each way over the
measure's, lower is better. The last line has the worst of each way from 90 % zeros on.
"""

from __future__ import annotations

import argparse
import json
import time
import warnings
from collections.abc import Callable
from importlib import import_module
from itertools import product
from typing import Any

import numpy as np
import onnxruntime as ort
import torch
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

Floats = NDArray[Any]
sparse: Any = import_module("scipy.sparse")  # which has no types
SHARES = (0.8, 0.9, 0.95, 0.98, 0.99)


def session(operator: str, inputs: dict[str, Any], **tensors: Any) -> tuple[Any, int]:  # noqa: ANN401
    """A file of one operator that is loaded, and its bytes."""
    domain, names = ("", "xw") if operator == "MatMul" else ("com.microsoft", "wx")
    node = helper.make_node(operator, list(names), ["y"], domain=domain)
    output = helper.make_tensor_value_info("y", TensorProto.FLOAT, [None, None])
    graph = helper.make_graph([node], "product", list(inputs.values()), [output], **tensors)
    domains = [helper.make_opsetid("", 18), helper.make_opsetid("com.microsoft", 1)]
    model = helper.make_model(graph, opset_imports=domains, ir_version=10).SerializeToString()
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    return ort.InferenceSession(model, options, providers=["CPUExecutionProvider"]), len(model)


def ways(w: Floats, x: Floats) -> tuple[dict[str, Callable[[], Floats]], float]:
    """How to compute `x @ w` of `(batch, n)` and `(n, n)`, and how much smaller the second file is.

    Files for SparseToDenseMatMul cannot hold its sparse weights, which are an input.
    """
    info, n = helper.make_tensor_value_info, len(w)
    at, csr = np.flatnonzero(w).astype(np.int64), sparse.csr_matrix(w.T)
    stored = helper.make_sparse_tensor(
        numpy_helper.from_array(w.ravel()[at], "w"), numpy_helper.from_array(at, "at"), [n, n]
    )
    rows = {"x": info("x", TensorProto.FLOAT, [None, n])}
    dense, large = session("MatMul", rows, initializer=[numpy_helper.from_array(w, "w")])
    loaded, small = session("MatMul", rows, sparse_initializer=[stored])
    held_info = helper.make_sparse_tensor_value_info("w", TensorProto.FLOAT, [n, n])
    both = {"w": held_info, "x": info("x", TensorProto.FLOAT, [n, None])}
    own, _ = session("SparseToDenseMatMul", both)
    parts = csr.data, *(part.astype(np.int64) for part in (csr.indices, csr.indptr))
    cpu = ort.OrtDevice.make("cpu", 0)
    held = ort.SparseTensor.sparse_csr_from_numpy(np.array([n, n]), *parts, cpu)
    columns, of = np.ascontiguousarray(x.T), ort.OrtValue
    feeds = {"w": of.ort_value_from_sparse_tensor(held), "x": of.ortvalue_from_numpy(columns)}
    tensor = torch.from_numpy(w.T.copy()).to_sparse_csr()
    return {
        "dense": lambda: np.asarray(dense.run(None, {"x": x})[0]),
        "sparse_initializer": lambda: np.asarray(loaded.run(None, {"x": x})[0]),
        "SparseToDenseMatMul": lambda: own.run_with_ort_values(None, feeds)[0].numpy().T,
        "torch_csr": lambda: np.asarray((tensor @ torch.from_numpy(columns)).numpy()).T,
        "scipy_csr": lambda: np.asarray(csr @ columns).T,
    }, large / small


def compare(size: int, batch: int, share: float, rounds: int) -> dict[str, float]:
    """Latency of each way over the dense one's, the median of rounds taken in turn."""
    random = np.random.default_rng(0)
    weight = random.standard_normal((size, size), np.float32)
    weight[random.random((size, size)) < share] = 0.0
    each, smaller = ways(weight, random.standard_normal((batch, size), np.float32))
    for name, run in each.items():
        if not np.allclose(run(), each["dense"](), rtol=1e-3, atol=1e-3):
            raise SystemExit(f"{name} does not compute what the dense product does")
    times: dict[str, list[float]] = {name: [] for name in each}
    for _ in range(rounds):
        for name, run in each.items():
            run()  # what ran before had the caches
            start = time.thread_time()
            for _ in range(3):
                run()
            times[name].append(time.thread_time() - start)
    dense = times.pop("dense")
    ratios = {n: round(float(np.median(np.divide(t, dense))), 3) for n, t in times.items()}
    return {"size": size, "batch": batch, "zeros": share, **ratios, "smaller": round(smaller, 2)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="one size, three rounds")
    quick = parser.parse_args().quick
    torch.set_num_threads(1)
    warnings.filterwarnings("ignore", "Sparse CSR tensor support is in beta")
    rows = []
    for size, batch, share in product((512,) if quick else (512, 2048), (1, 32), SHARES):
        rows.append(compare(size, batch, share, 3 if quick else 7))
        print(json.dumps(rows[-1]), flush=True)
    names = rows[0].keys() - {"size", "batch", "zeros", "smaller"}
    print(json.dumps({n: max(r[n] for r in rows if r["zeros"] >= 0.9) for n in sorted(names)}))


if __name__ == "__main__":
    main()
