"""The Ray cluster of a launch: started here for it, or joined; and whether it is still there."""

from __future__ import annotations

import logging
import os
import re
import secrets
import signal
import socket
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import cache
from typing import Any

import ray
from ray._private import ray_constants, services

from parefront.errors import EngineError
from parefront.search.engines.ray.scratch import Scratch

GRACE = 30.0
"""Seconds that the head of a cluster may be away, as while it is restarted. Ray itself ends a
process whose head is away for 60 s, without a word to it."""
_EVERY = 1.0
_LOOK = 5.0
"""Seconds after which the nodes are looked at again."""
_LEAVING = 10.0
"""Seconds that leaving a cluster may take, which stands still where it is gone."""
_LOOPBACK = "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"

SETTINGS = {
    "RAY_USAGE_STATS_ENABLED": "0",  # nothing is sent anywhere
    "RAY_CHDIR_TO_TRIAL_DIR": "0",
    "RAY_AIR_NEW_OUTPUT": "0",
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
    "TUNE_DISABLE_SIGINT_HANDLER": "1",  # a launch is ended by its own
    "TUNE_GLOBAL_CHECKPOINT_S": "inf",  # the storage of the study is the only truth
    "TUNE_MAX_PENDING_TRIALS_PG": "1000",  # as many as the searcher lets out
    "TUNE_PRINT_ALL_TRIAL_ERRORS": "0",
    "TUNE_RESULT_BUFFER_LENGTH": "1",
    "TUNE_STATE_REFRESH_PERIOD": "inf",  # it asks the head, and stands still where that is away
    "TUNE_WARN_INSUFFICENT_RESOURCE_THRESHOLD_S": "1e9",  # so it is spelled
}
"""Environment in which a launch uses Ray."""


class Cluster:
    """A Ray cluster, from `open` to `close`.

    Args:
        address: `"auto"` or `host:port` of a cluster to join; `None` to start one here, which
            only this machine can reach and only who has its token can use.
        cpus: Cores of a cluster that is started here.
        resources: Further resources of a cluster that is started here.
    """

    def __init__(
        self, address: str | None, cpus: int, resources: Mapping[str, float] | None = None
    ) -> None:
        self.address = address
        self._cpus = cpus
        self._resources = dict(resources or {})
        self._before: dict[str, str | None] = {}
        self._scratch: Scratch | None = None
        self._watch: Watch | None = None
        self._reachable: bool | None = None

    def open(self) -> None:
        """Starts or joins it.

        Raises:
            EngineError: If there is no cluster, or it cannot be started.
        """
        if ray.is_initialized():
            raise EngineError(
                "this process uses Ray already; call ray.shutdown() first, or launch with the "
                "command line"
            )
        self._set(SETTINGS)
        try:
            with kept(signal.SIGTERM):
                if self.address is None:
                    self._start()
                else:
                    _reach(self.address)
                    ray.init(address=self.address, log_to_driver=False, logging_level=logging.ERROR)
        except (ray.exceptions.RayError, RuntimeError, ValueError, OSError) as error:
            self.close()
            raise EngineError(self._failed(error), again=self.address is not None) from error
        logging.getLogger("ray").setLevel(logging.ERROR)
        context = ray.get_runtime_context()
        self._watch = Watch(str(context.gcs_address), context.get_node_id())
        self._watch.start()
        if self.address is None and not str(context.gcs_address).startswith("127."):
            self.close()
            raise EngineError(
                f"Ray {ray.__version__} listens to other machines although it should not; start it "
                'yourself with ray start, and name it by [engine] address = "auto"'
            )

    def close(self) -> None:
        """Leaves it, and ends it if it was started here."""
        if self._watch is not None:
            self._watch.over.set()
        leaving = threading.Thread(target=ray.shutdown, name="ray-shutdown", daemon=True)
        leaving.start()
        leaving.join(_LEAVING)
        if self._scratch is not None:
            self._scratch.close()
        for name, value in self._before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value
        self._before.clear()
        if self._reachable is not None:
            ray_constants.ENABLE_RAY_CLUSTER, self._reachable = self._reachable, None

    def lost(self) -> EngineError | None:
        """An error that says so, if the cluster is gone."""
        gone = self._watch.gone if self._watch is not None else None
        if gone is None:
            return None
        return EngineError(f"Ray lost its cluster: {gone}; launch again to go on", again=True)

    def room(self, needs: Mapping[str, float]) -> int:
        """How many trials the nodes there are now have room for at once.

        Args:
            needs: Resources of one.
        """
        found = 0
        for node in self._watch.nodes if self._watch is not None else []:
            has = node["Resources"]
            if node["Alive"]:
                found += int(
                    min((has.get(name, 0.0) + 1e-9) // need for name, need in needs.items())
                )
        return found

    def _start(self) -> None:
        # Ray's way to keep every port on loopback: a cluster of other machines is not wanted.
        self._set({_LOOPBACK: "0"})
        self._reachable = ray_constants.ENABLE_RAY_CLUSTER
        ray_constants.ENABLE_RAY_CLUSTER = False
        if not {"RAY_AUTH_MODE", "RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"} & os.environ.keys():
            # Ray asks for a token by itself, but would write one into the user's home folder.
            self._set({"RAY_AUTH_TOKEN": _token()})
        self._scratch = Scratch()
        ray.init(
            address="local",
            num_cpus=self._cpus,
            resources=self._resources,
            include_dashboard=False,
            _temp_dir=str(self._scratch.path),
            log_to_driver=False,
            logging_level=logging.ERROR,
        )

    def _failed(self, error: Exception) -> str:
        reason = re.sub(r"\s+", " ", str(error)).strip()
        if self.address is None:
            return f"Ray cannot be started here: {reason}"
        return (
            f"cannot join the Ray cluster '{self.address}': {reason}; start one with ray start "
            "--head, check the address and the token, or leave the address out to start Ray here"
        )

    def _set(self, settings: Mapping[str, str]) -> None:
        for name, value in settings.items():
            self._before.setdefault(name, os.environ.get(name))
            os.environ[name] = value


@cache
def _token() -> str:
    """The token of clusters of this process; Ray reads it only once."""
    return secrets.token_hex(32)


def _reach(address: str) -> None:
    """Looks whether somebody listens there, since Ray would try for minutes.

    Raises:
        OSError: If nobody does, or there is no cluster on this machine.
    """
    if address == "auto":  # what Ray takes that for, which may be a head that is gone
        address = str(services.get_ray_address_from_environment("auto", None))
    host, _, port = address.rpartition(":")
    if host and port.isdigit():
        socket.create_connection((host.strip("[]"), int(port)), timeout=_LEAVING).close()


@contextmanager
def kept(number: signal.Signals) -> Iterator[None]:
    """Puts back the handler of a signal that Ray takes."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.getsignal(number)
    try:
        yield
    finally:
        signal.signal(number, before)


class Watch(threading.Thread):
    """Looks whether a cluster is there: its head answers, and this machine is one of its nodes.

    Who asks Ray itself stands still while the head is away, so only this thread does.

    Attributes:
        nodes: The nodes there were lately.
        gone: Why the cluster is not there, once it is not.
        over: Ends the watch.
    """

    def __init__(self, head: str, node: str) -> None:
        super().__init__(name="ray-watch", daemon=True)
        host, _, port = head.rpartition(":")
        self._head = (host.strip("[]"), int(port))
        self._node = node
        self.nodes = _nodes()
        self.gone: str | None = None
        self.over = threading.Event()

    def run(self) -> None:
        """Looks until it is over or gone."""
        answered = looked = time.monotonic()
        while self.gone is None and not self.over.wait(_EVERY):
            try:
                socket.create_connection(self._head, timeout=_EVERY).close()
            except OSError as error:
                if time.monotonic() - answered > GRACE:
                    self.gone = f"its head has not answered for {GRACE:g} s ({error})"
                elif not self._has_node():
                    self.gone = "its head and the node of this launch are gone"
                continue
            answered = time.monotonic()
            if answered - looked < _LOOK:
                continue
            looked = answered
            try:
                self.nodes = _nodes()
            except Exception:  # noqa: BLE001, S112 - of a head that went away meanwhile
                continue
            if not any(node["Alive"] for node in self._mine()):
                self.gone = "the node of this launch left it"

    def _mine(self) -> list[dict[str, Any]]:
        return [node for node in self.nodes if node["NodeID"] == self._node]

    def _has_node(self) -> bool:
        """Whether what Ray runs on this machine is still there."""
        for node in self._mine():
            with socket.socket(socket.AF_UNIX) as there:
                try:
                    there.connect(node["RayletSocketName"])
                except OSError:
                    return False
        return True


def _nodes() -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = ray.nodes()  # type: ignore[no-untyped-call]
    return found
