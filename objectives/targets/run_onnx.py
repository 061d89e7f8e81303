"""Runs model.onnx with nothing but onnxruntime and numpy.

python run.py                          replays check.npz; exits with 0 when the outputs agree
python run.py inputs.npz outputs.npz   runs the inputs, arrays by name, and writes the outputs
"""

import sys
from pathlib import Path

import numpy as np
import onnxruntime as ort

HERE = Path(__file__).resolve().parent
TOLERANCE = 0.02  # of the largest output; CPUs round int8 sums differently

session = ort.InferenceSession(HERE / "model.onnx", providers=["CPUExecutionProvider"])
names = [entry.name for entry in session.get_inputs()]
check = np.load(sys.argv[1] if len(sys.argv) > 1 else HERE / "check.npz")
size = session.get_inputs()[0].shape[0]  # a number where the batch is fixed
count = len(check[names[0]])
step = size if isinstance(size, int) else count
runs = []
for start in range(0, count, step):
    batch = {name: check[name][start : start + step] for name in names}
    short = step - len(batch[names[0]])  # fill up a short last batch, and cut it off again
    full = {n: np.concatenate([x, x[:1].repeat(short, axis=0)]) for n, x in batch.items()}
    runs.append([y[: step - short] for y in session.run(None, full)])
outputs = [np.concatenate(parts) for parts in zip(*runs, strict=True)]

if len(sys.argv) > 2:
    named = {f"output:{i}": y for i, y in enumerate(outputs)}
    np.savez(sys.argv[2], allow_pickle=False, **named)
else:
    worst = 0.0
    for i, y in enumerate(outputs):
        expected = check[f"output:{i}"].astype(float)
        scale = max(float(np.abs(expected).max()), 1e-12)
        worst = max(worst, float(np.abs(y - expected).max()) / scale)
    agrees = worst <= TOLERANCE
    print(f"outputs differ by {worst:.2g} at most: {'they agree' if agrees else 'they DISAGREE'}")
    sys.exit(not agrees)
