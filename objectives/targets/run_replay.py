"""The part of every bundle's run.py that reads inputs, and writes or compares outputs."""

import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

HERE = Path(__file__).resolve().parent
TOLERANCE = 0.02  # of the largest output; CPUs round int8 sums differently


def replay(
    names: Sequence[str], size: int | None, run: Callable[[list[Any]], Sequence[Any]]
) -> None:
    """Runs check.npz, or the file named on the command line, through `run`, and ends.

    `names` are the inputs in the order of `run`; `size` is the batch, where that is fixed.
    """
    check = np.load(sys.argv[1] if len(sys.argv) > 1 else HERE / "check.npz")
    count = len(check[names[0]])
    step = size or count
    runs = []
    for start in range(0, count, step):
        batch = [check[name][start : start + step] for name in names]
        short = step - len(batch[0])  # fill up a short last batch, and cut it off again
        full = [np.concatenate([x, x[:1].repeat(short, axis=0)]) for x in batch]
        runs.append([y[: step - short] for y in run(full)])
    outputs = [np.concatenate(parts) for parts in zip(*runs, strict=True)]

    if len(sys.argv) > 2:
        named = {f"output:{i}": y for i, y in enumerate(outputs)}
        np.savez(sys.argv[2], allow_pickle=False, **named)
        return
    worst = 0.0
    for i, y in enumerate(outputs):
        expected = check[f"output:{i}"].astype(float)
        scale = max(float(np.abs(expected).max()), 1e-12)
        worst = max(worst, float(np.abs(y - expected).max()) / scale)
    agrees = worst <= TOLERANCE
    print(f"outputs differ by {worst:.2g} at most: {'they agree' if agrees else 'they DISAGREE'}")
    sys.exit(not agrees)
