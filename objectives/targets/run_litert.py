"""Runs model.tflite with nothing but ai-edge-litert and numpy.

python run.py                          replays check.npz; exits with 0 when the outputs agree
python run.py inputs.npz outputs.npz   runs the inputs, arrays by name, and writes the outputs
"""

from typing import Any

from ai_edge_litert.interpreter import Interpreter

from parefront.objectives.targets.run_replay import HERE, replay

runner = Interpreter(str(HERE / "model.tflite")).get_signature_runner()
inputs = runner.get_input_details()


def run(batch: list[Any]) -> list[Any]:
    """Runs one batch."""
    outputs = runner(**dict(zip(inputs, batch, strict=True)))
    return [outputs[f"output_{i}"] for i in range(len(outputs))]


replay(list(inputs), int(next(iter(inputs.values()))["shape"][0]), run)
