"""Runs model.pte with nothing but executorch, torch and numpy.

python run.py                          replays check.npz; exits with 0 when the outputs agree
python run.py inputs.npz outputs.npz   runs the inputs, arrays by name, and writes the outputs
"""

import json
import logging
import warnings
from typing import Any

import torch

from parefront.objectives.targets.run_replay import HERE, replay

warnings.simplefilter("ignore")  # deprecations inside executorch
logging.disable()  # and its remarks on parts that are not needed here

from executorch.runtime import Runtime  # noqa: E402

program = Runtime.get().load_program(HERE / "model.pte")
method = program.load_method("forward")
inputs = json.loads(program.load_method("signature").execute([])[0])
most = method.metadata.input_tensor_meta(0).sizes()[0]  # examples the file has room for


def run(batch: list[Any]) -> list[Any]:
    """Runs one batch, in pieces where it is larger than the file has room for."""
    pieces = zip(*(torch.split(torch.from_numpy(x), most) for x in batch), strict=True)
    runs = [method.execute(piece) for piece in pieces]
    return [torch.cat(outputs).numpy() for outputs in zip(*runs, strict=True)]


replay([entry["name"] for entry in inputs], inputs[0]["shape"][0], run)
