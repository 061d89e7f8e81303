"""Runs model.onnx with nothing but openvino and numpy.

python run.py                          replays check.npz; exits with 0 when the outputs agree
python run.py inputs.npz outputs.npz   runs the inputs, arrays by name, and writes the outputs
"""

import openvino

from parefront.objectives.targets.run_replay import HERE, replay

core = openvino.Core()
# Left to itself OpenVINO computes in bf16 where the CPU can.
options = {"INFERENCE_PRECISION_HINT": "f32", "PERFORMANCE_HINT": "LATENCY"}
compiled = core.compile_model(core.read_model(HERE / "model.onnx"), "CPU", options)
first = compiled.inputs[0].get_partial_shape()[0]
replay(
    [port.get_any_name() for port in compiled.inputs],
    None if first.is_dynamic else first.get_length(),
    lambda batch: list(compiled(batch).values()),
)
