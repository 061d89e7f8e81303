"""Runs model.pt2 with nothing but torch and numpy.

python run.py                          replays check.npz; exits with 0 when the outputs agree
python run.py inputs.npz outputs.npz   runs the inputs, arrays by name, and writes the outputs
"""

import json
import warnings
from typing import Any

import torch
from torch.export.pt2_archive._package import AOTICompiledModel

from parefront.objectives.targets.run_replay import HERE, replay

warnings.simplefilter("ignore")  # deprecations inside torch
# The file is machine code for the kind of CPU it was built on: run it only if you trust it.
# torch._inductor.aoti_load_package would do, but tries a C++ compiler to look at the CPU first.
loader = torch._C._aoti.AOTIModelPackageLoader(str(HERE / "model.pt2"), "model", False, 1, -1)
program = AOTICompiledModel(loader)
inputs = json.loads(program.get_metadata()["signature"])


@torch.inference_mode()
def run(batch: list[Any]) -> list[Any]:
    """Runs one batch."""
    outputs = program(*map(torch.from_numpy, batch))
    return [y.numpy() for y in ([outputs] if isinstance(outputs, torch.Tensor) else outputs)]


replay([entry["name"] for entry in inputs], inputs[0]["shape"][0], run)
