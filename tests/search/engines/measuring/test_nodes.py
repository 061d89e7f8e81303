"""A cluster whose node with the device comes late, is lost, and comes back."""

from __future__ import annotations

import os
import secrets
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from tests.objectives.agent.models import linear

pytest.importorskip("ray")

pytestmark = pytest.mark.slow

NODES = """
import sys, time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
import numpy as np, ray
from ray.cluster_utils import Cluster
from parefront.errors import DeviceAwayError
from parefront.objectives.targets.target import Target
from parefront.search.engines.ray.cores import own_cores
from parefront.search.engines.ray.devices import open_devices, training_cores

path, quick = Path(sys.argv[1]), {"runtime": "onnxruntime", "threads": 1}
x = {"input": np.zeros((1, 16), np.float32)}
cluster = Cluster(
    initialize_head=True, connect=True,
    head_node_args={"num_cpus": 1, "include_dashboard": False},
)

def join():
    return cluster.add_node(num_cpus=0, resources={"device:pi": 1})

def measure(device):
    return device.reference_ms(path, x, **quick, runs=20, sessions=1)

try:
    with ThreadPoolExecutor(1) as pool:
        opening = pool.submit(open_devices, {"pi": Target(patience=60)})
        time.sleep(2.0)
        first = join()  # while it is waited for
        device = opening.result()["pi"]
        assert device.node == first.node_id != ray.get_runtime_context().get_node_id()
        assert training_cores([device]) == own_cores()  # it takes none here
        assert measure(device) > 0
        cluster.remove_node(first, allow_graceful=False)
        for _ in range(60):  # the actor may outlive its node for a moment
            try:
                measure(replace(device, patience=2.0))
            except DeviceAwayError as error:
                print("away:", error)
                break
            time.sleep(0.5)
        asked = pool.submit(measure, device)
        time.sleep(2.0)
        join()
        assert asked.result() > 0
        print("back")
finally:
    ray.shutdown()
    cluster.shutdown()
"""


def test_the_node_of_a_device_comes_goes_and_comes_back(tmp_path: Path) -> None:
    model = linear(tmp_path / "model.onnx")
    # Ray keeps its sockets there, whose paths must be short.
    with tempfile.TemporaryDirectory(prefix="pf-", ignore_cleanup_errors=True) as folder:
        done = subprocess.run(
            [sys.executable, "-W", "ignore", "-c", NODES, str(model)],
            env=os.environ
            | {
                "TMPDIR": folder,
                "XDG_CACHE_HOME": folder,
                "RAY_AUTH_TOKEN": secrets.token_hex(32),
                "RAY_USAGE_STATS_ENABLED": "0",
            },
            capture_output=True,
            text=True,
            timeout=200,
        )
    assert "away: the device pi did not answer for 2 s" in done.stdout, done.stderr
    assert done.stdout.splitlines()[-1] == "back", done.stderr
