"""An agent on a machine of its own, as far as the network can tell, behind a bad wire."""

from __future__ import annotations

import os
import secrets
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from parefront.errors import MeasurementError
from parefront.objectives.targets.agent import remote
from parefront.objectives.targets.device import Effort
from tests.objectives.agent.models import ORT, X, linear, weights
from tests.objectives.agent.process import AgentProcess
from tests.waiting import until

WIRE = Path(__file__).with_name("lossy_wire.py")
_SIOCETHTOOL = 0x8946
_ETHTOOL_STXCSUM = 0x17


def ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True, capture_output=True)


def permitted() -> bool:
    """Whether network namespaces can be made here."""
    if shutil.which("ip") is None or os.geteuid() != 0:
        return False
    name = f"pf-{secrets.token_hex(3)}"
    done = subprocess.run(["ip", "netns", "add", name], capture_output=True, check=False)
    if done.returncode == 0:
        ip("netns", "del", name)
    return done.returncode == 0


pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not permitted(), reason="needs `ip netns add` (iproute2, as root)"),
]

CHECKSUMS = f"""
import fcntl, socket, struct, sys, array
command = array.array("B", struct.pack("II", {_ETHTOOL_STXCSUM}, 0))
request = struct.pack("16sP", sys.argv[1].encode(), command.buffer_info()[0])
fcntl.ioctl(socket.socket(), {_SIOCETHTOOL}, request)
"""


class Wire:
    """A wire between this machine and a network namespace."""

    def __init__(self, folder: Path) -> None:
        self._name = name = f"pf{secrets.token_hex(3)}"
        self._loss = folder / "loss"
        self.lose(0.0)
        net = f"198.18.{secrets.randbelow(256)}"
        self.address = f"{net}.2"
        self.namespace = ("ip", "netns", "exec", name)
        ip("netns", "add", name)
        ip("link", "add", f"{name}a", "type", "veth", "peer", "name", f"{name}b")
        ip("link", "add", f"{name}c", "type", "veth", "peer", "name", f"{name}d")
        ip("link", "set", f"{name}d", "netns", name)
        ip("addr", "add", f"{net}.1/24", "dev", f"{name}a")
        ip("-n", name, "addr", "add", f"{self.address}/24", "dev", f"{name}d")
        for end in "abc":
            ip("link", "set", f"{name}{end}", "up")
        ip("-n", name, "link", "set", f"{name}d", "up")
        ip("-n", name, "link", "set", "lo", "up")
        # Frames must carry their checksums: no network card computes them later.
        for before, end in (((), "a"), (self.namespace, "d")):
            subprocess.run([*before, sys.executable, "-c", CHECKSUMS, f"{name}{end}"], check=True)
        self._process = subprocess.Popen(
            [sys.executable, str(WIRE), f"{name}b", f"{name}c", str(self._loss)],
            stdout=subprocess.PIPE,
        )
        assert self._process.stdout is not None
        self._process.stdout.readline()

    def lose(self, share: float) -> None:
        """Loses a share of all packets from now on."""
        new = self._loss.with_suffix(".new")
        new.write_text(str(share))
        new.replace(self._loss)

    def lost(self) -> int:
        """How many packets were lost."""
        return int(self._loss.with_suffix(".lost").read_text())

    def close(self) -> None:
        self._process.kill()
        self._process.communicate()
        ip("link", "del", f"{self._name}a")
        ip("link", "del", f"{self._name}c")
        ip("netns", "del", self._name)


@pytest.fixture
def wire(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Wire]:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    wire = Wire(tmp_path)
    yield wire
    wire.close()


@pytest.fixture
def agent(wire: Wire, tmp_path: Path) -> Iterator[AgentProcess]:
    agent = AgentProcess(tmp_path / "agent", "--insecure", host=wire.address, before=wire.namespace)
    yield agent
    wire.lose(0.0)
    agent.stop()


def test_packets_are_lost(wire: Wire, agent: AgentProcess, tmp_path: Path) -> None:
    model = linear(tmp_path / "model.onnx", outputs=4000)
    base = linear(tmp_path / "base.onnx", outputs=40)
    wire.lose(0.1)
    device = agent.device(patience=120)
    (output,) = device.run(model, {"input": X}, **ORT, batch_size=7)
    np.testing.assert_allclose(output, X @ weights(4000), rtol=1e-4, atol=1e-4)  # type: ignore[arg-type]
    batch = {"input": X[:1]}
    timing = device.time(model, base, batch, **ORT, effort=Effort(20, 0.5, 0.1))
    assert timing.ratio > 1
    assert wire.lost() > 10
    wire.lose(0.0)
    agent.assert_well()


def test_the_wire_is_cut_and_mended(
    wire: Wire, agent: AgentProcess, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(remote, "_SILENCE", 3.0)
    model = linear(tmp_path / "model.onnx", outputs=4000)
    with ThreadPoolExecutor(1) as pool:
        asked = pool.submit(
            agent.device(patience=200).reference_ms,
            model, {"input": X[:1]}, **ORT, runs=300, sessions=15,
        )  # fmt: skip
        (first,) = until(agent.workers)
        wire.lose(1.0)
        assert not asked.done()
        # The agent measures to the end, for nobody.
        until(lambda: not first.is_running())
        until(lambda: not agent.workers(), 120)
        assert not asked.done()
        wire.lose(0.0)
        assert asked.result(timeout=200) > 0
    agent.assert_well()


def test_the_wire_stays_cut(
    wire: Wire, agent: AgentProcess, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(remote, "_SILENCE", 1.0)
    model = linear(tmp_path / "model.onnx")
    device = agent.device(patience=2)
    device.fingerprint("onnxruntime", 1)
    wire.lose(1.0)
    with pytest.raises(MeasurementError, match="did not answer for 2 s"):
        device.reference_ms(model, {"input": X[:1]}, **ORT)
