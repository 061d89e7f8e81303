"""Runs model.ep with nothing but torch and numpy.

python run.py                          replays check.npz; exits with 0 when the outputs agree
python run.py inputs.npz outputs.npz   runs the inputs, arrays by name, and writes the outputs
"""

import json
from typing import Any

import torch

from parefront.objectives.targets.run_replay import HERE, replay

extra = {"signature.json": ""}
with (HERE / "model.ep").open("rb") as file:
    # Runs what the file says: make sure that it is the one from the bundle.
    program = torch.export.load(file, extra_files=extra).module(check_guards=False)
inputs = json.loads(extra["signature.json"])


@torch.inference_mode()
def run(batch: list[Any]) -> list[Any]:
    """Runs one batch."""
    outputs = program(*map(torch.from_numpy, batch))
    return [y.numpy() for y in ([outputs] if isinstance(outputs, torch.Tensor) else outputs)]


replay([entry["name"] for entry in inputs], inputs[0]["shape"][0], run)
