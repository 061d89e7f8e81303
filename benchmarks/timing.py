"""How far a latency can be trusted, beside the mean of 50 runs.

Ten repeats of each of three files are spread over 20 minutes while a process keeps the other core
busy. A repeat is what a study does for a trial: rounds in fresh processes, against a baseline that
was calibrated once. Beside each, the mean of 50 runs of the same file in a fresh process on the
same core is taken, as is common.

Then pairs whose truth is known by construction: chains of equal layers, 38 against 40 of them, and
40 against 40. One is found faster when its whole interval is below 1, and called a tie when the
interval holds 1.

    python -m benchmarks.timing [--quick]

The last line is a JSON object. `cv_percent` is the largest coefficient of variation of the three
files, `cv_percent_mean_of_50` that of the means, `coverage_percent` how often a repeat's interval
holds the next repeat's value, `found_faster_percent` and `called_tie_percent` what came of the
pairs. Quick: the same without the waiting and with fewer repeats and pairs.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from parefront.objectives.targets.device import Effort, Timing
from parefront.objectives.targets.local import LocalDevice
from parefront.objectives.targets.runtime import Feeds

WIDTH, ROWS = 128, 8
MEAN_OF_50 = """
import sys, time
import numpy as np
from parefront.objectives.targets.catalog import runtime
from pathlib import Path
session = runtime("onnxruntime").open(Path(sys.argv[1]), 1)
feeds = {"x": np.ones((int(sys.argv[2]), int(sys.argv[3])), np.float32)}
session.run(feeds)
start = time.perf_counter()
for _ in range(50):
    session.run(feeds)
print((time.perf_counter() - start) / 50)
"""


def chain(path: Path, layers: int) -> Path:
    """A file whose cost is the number of its equal layers times that of one."""
    rng = np.random.default_rng(0)
    # The rows of the weight keep their sums small, so that no number runs away.
    weight = (rng.standard_normal((WIDTH, WIDTH)) / np.sqrt(WIDTH)).astype(np.float32)
    nodes, last = [], "x"
    for index in range(layers):
        nodes.append(helper.make_node("MatMul", [last, "w"], [f"m{index}"]))
        nodes.append(helper.make_node("Tanh", [f"m{index}"], [f"y{index}"]))
        last = f"y{index}"
    shape = [ROWS, WIDTH]
    graph = helper.make_graph(
        nodes,
        "chain",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info(last, TensorProto.FLOAT, shape)],
        [numpy_helper.from_array(weight, "w")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)])
    model.ir_version = 9
    onnx.checker.check_model(model)
    onnx.save(model, path)
    return path


@contextmanager
def busy(core: int) -> Iterator[None]:
    """A process that never rests on a core."""
    code = f"import os\nos.sched_setaffinity(0, [{core}])\nwhile True: pass"
    process = subprocess.Popen([sys.executable, "-c", code])
    try:
        yield
    finally:
        process.kill()
        process.wait()


def mean_of_50(path: Path, core: int) -> float:
    """Seconds of a run, the common way, in a fresh process on a core."""
    done = subprocess.run(
        [sys.executable, "-c", MEAN_OF_50, str(path), str(ROWS), str(WIDTH)],
        preexec_fn=lambda: os.sched_setaffinity(0, [core]),
        env=os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
        capture_output=True,
        text=True,
        check=True,
    )
    return float(done.stdout)


def cv_percent(values: Sequence[float]) -> float:
    return 100 * statistics.stdev(values) / statistics.mean(values)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="under a minute")
    quick = parser.parse_args().quick
    repeats, pairs, span = (4, 4, 0.0) if quick else (10, 100, 20 * 60.0)
    cores = sorted(os.sched_getaffinity(0))
    effort = Effort(seconds=2.0) if quick else Effort()
    feeds: Feeds = {"x": np.ones((ROWS, WIDTH), np.float32)}
    device = LocalDevice()

    def timed(candidate: Path, baseline: Path) -> Timing:
        return device.time(
            candidate, baseline, feeds, runtime="onnxruntime", threads=1, effort=effort
        )

    with tempfile.TemporaryDirectory() as folder, busy(cores[0]):
        place = Path(folder)
        files = {layers: chain(place / f"{layers}.onnx", layers) for layers in (4, 16, 38, 40)}
        twin = chain(place / "twin.onnx", 40)
        found: dict[int, list[Timing]] = {4: [], 16: [], 38: []}
        means: dict[int, list[float]] = {4: [], 16: [], 38: []}
        began = time.monotonic()
        for repeat in range(repeats):
            due = began + span * repeat / max(1, repeats - 1)
            time.sleep(max(0.0, due - time.monotonic()))
            for layers in found:
                found[layers].append(timed(files[layers], files[40]))
                means[layers].append(mean_of_50(files[layers], cores[-1]))
        minutes = (time.monotonic() - began) / 60
        faster = [timed(files[38], files[40]) for _ in range(pairs)]
        equal = [timed(twin, files[40]) for _ in range(pairs)]
    cvs = {layers: cv_percent([t.ratio for t in all_]) for layers, all_ in found.items()}
    mean_cvs = {layers: cv_percent(values) for layers, values in means.items()}
    held = [
        before.ratio_low <= after.ratio <= before.ratio_high
        for timings in found.values()
        for before, after in pairwise(timings)
    ]
    for layers, timings in found.items():
        rounds = statistics.mean(t.rounds for t in timings)
        width = statistics.mean((t.ratio_high - t.ratio_low) / 2 / t.ratio for t in timings)
        print(
            f"{layers:>3} layers  ratio {timings[0].ratio:.3f}  cv {cvs[layers]:.2f} %  "
            f"mean of 50: {mean_cvs[layers]:.2f} %  half-width {100 * width:.1f} %  "
            f"{rounds:.1f} rounds"
        )
    print(f"{repeats} repeats over {minutes:.1f} minutes; {pairs} pairs of each kind")
    ratios = [t.ratio for t in faster]
    print(f"38 layers against 40: ratio {statistics.mean(ratios):.3f}, by construction 0.95")
    print(
        json.dumps(
            {
                "cv_percent": round(max(cvs.values()), 2),
                "cv_percent_mean_of_50": round(max(mean_cvs.values()), 2),
                "coverage_percent": round(100 * statistics.mean(held), 1),
                "found_faster_percent": 100 * sum(t.ratio_high < 1 for t in faster) / pairs,
                "called_tie_percent": 100
                * sum(t.ratio_low <= 1 <= t.ratio_high for t in equal)
                / pairs,
            }
        )
    )


if __name__ == "__main__":
    main()
