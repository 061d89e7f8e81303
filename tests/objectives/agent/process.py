"""A real agent in a process of its own."""

from __future__ import annotations

import os
import secrets
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import httpx
import psutil

from parefront.objectives.targets.agent.remote import RemoteDevice
from tests.waiting import until
from tests.workers import workers_of


class AgentProcess:
    """An agent that can be killed, stopped and started again at the same address."""

    def __init__(
        self,
        home: Path,
        *options: str,
        before: Sequence[str] = (),
        folder: Path | None = None,
        host: str = "127.0.0.1",
    ) -> None:
        home.mkdir(parents=True, exist_ok=True)
        self.home = home
        self.folder = folder or home / "files"
        self.token = secrets.token_urlsafe(32)
        self.token_file = home / "token"
        self.token_file.write_text(self.token)
        self.token_file.chmod(0o600)
        self._options = options
        self._before = before
        self._host = host
        self.port = 0
        self.url = ""
        self.start()

    def start(self) -> None:
        with (self.home / "log").open("ab") as log:
            self.process = subprocess.Popen(
                [
                    *self._before, sys.executable, "-m", "parefront", "agent",
                    "--token-file", str(self.token_file), "--folder", str(self.folder),
                    "--host", self._host, "--port", str(self.port), *self._options,
                ],
                # A lock of its own: other measurements on this machine do not hold it up.
                env=os.environ | {"TMPDIR": str(self.home), "OMP_NUM_THREADS": "1"},
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
            )  # fmt: skip
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        assert line.startswith("parefront agent at http"), (line, self.log())
        self.url = line.split()[-1]
        self.port = int(self.url.rsplit(":", 1)[1])

    def device(self, **options: Any) -> RemoteDevice:
        return RemoteDevice(self.url, self.token, **options)

    def request(self, method: str, path: str, **options: Any) -> httpx.Response:
        """A request with the token, by a client that knows nothing of parefront."""
        headers = {"Authorization": f"Bearer {self.token}"} | options.pop("headers", {})
        with httpx.Client(trust_env=False, timeout=60) as client:
            return client.request(method, self.url + path, headers=headers, **options)

    def workers(self) -> list[psutil.Process]:
        """Its measuring processes."""
        return workers_of(psutil.Process(self.process.pid))

    def files(self) -> set[str]:
        """What it keeps; half-written files too."""
        return {path.name for path in self.folder.iterdir()} - {".lock"}

    def log(self) -> str:
        return (self.home / "log").read_text()

    def signal(self, number: signal.Signals) -> None:
        self.process.send_signal(number)

    def kill(self) -> None:
        self.process.kill()
        self._reap()

    def stop(self) -> int:
        """Asks it to end; returns its exit code."""
        self.process.send_signal(signal.SIGCONT)
        self.process.terminate()
        return self._reap()

    def _reap(self) -> int:
        code = self.process.wait(60)
        if self.process.stdout is not None:
            self.process.stdout.close()
        return code

    def assert_well(self) -> None:
        """It is the same process as before, answers, measures nothing and left nothing behind."""
        assert self.process.poll() is None, self.log()
        assert self.request("GET", "/v1/health").json()["status"] == "ok"
        until(lambda: not self.workers())
        until(lambda: not [name for name in self.files() if ".part" in name])
        assert "Traceback" not in self.log()
