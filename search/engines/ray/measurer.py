"""The actor on the node of a device: makes the measurements that workers elsewhere ask for."""

from __future__ import annotations

import os
import threading
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from typing import Any

import ray
from filelock import Timeout
from ray.exceptions import RayError

from parefront.errors import AgentError, MeasurementError, ParefrontError
from parefront.objectives.targets.agent.protocol import VERSION
from parefront.objectives.targets.agent.refusal import Refusal
from parefront.objectives.targets.agent.store import Store
from parefront.objectives.targets.stored_feeds import StoredFeeds
from parefront.objectives.targets.target import Target
from parefront.search.engines.ray.cores import own_cores, pin, split

QUOTA = 4 << 30
"""Bytes of the files that are kept for a device."""


@dataclass(frozen=True)
class Ask:
    """A measurement that is asked for.

    Attributes:
        method: Method of the device.
        artifacts: Names of the files of its artifacts, in order: hash and format.
        feeds: Name of the file with its inputs; none for the fingerprint.
        names: Names of the inputs in that file.
        options: Its other arguments.
    """

    method: str
    options: Mapping[str, Any]
    artifacts: tuple[str, ...] = ()
    feeds: str | None = None
    names: tuple[str, ...] = ()

    @property
    def files(self) -> tuple[str, ...]:
        """Names of all files it needs."""
        return tuple(dict.fromkeys((*self.artifacts, *([self.feeds] if self.feeds else ()))))


@dataclass(frozen=True)
class Answer:
    """What became of it.

    Attributes:
        value: What the device gave back.
        error: What it raised instead.
        missing: Files that have to be sent before it can be made.
    """

    value: Any = None
    error: ParefrontError | None = None
    missing: Sequence[str] = field(default_factory=list)


class Measurer:
    """Measures with the device of a target, one measurement at a time.

    Ray makes the calls of `measure` one after another; `missing` is answered meanwhile, so that
    whoever waits knows that the device is there. The process keeps to the cores that no trial
    trains on.
    """

    def __init__(self, target: Target, quota: int = QUOTA) -> None:
        """Nothing that could fail, for then Ray would not tell why.

        Args:
            target: The target.
            quota: Bytes of the files that are kept for it.
        """
        if target.device is None:
            pin(split(own_cores(), target.threads).measuring)
        self._target = target
        self._quota = quota
        self._opening = threading.Lock()
        self._opened: Store | None = None

    def node(self) -> tuple[str, str]:
        """Ray's id of the node this runs on, and the version of parefront there."""
        return str(ray.get_runtime_context().get_node_id()), VERSION

    @ray.method(concurrency_group="files")
    def missing(self, files: Sequence[str]) -> Answer:
        """Those of the files that are not here."""
        try:
            return Answer(missing=self._store().missing(files) if files else [])
        except ParefrontError as error:
            return Answer(error=error)

    def measure(self, ask: Ask, sent: Mapping[str, Sequence[Any]]) -> Answer:
        """Makes a measurement.

        Args:
            ask: The measurement.
            sent: The bytes of files that were missing, each as a list of one reference, so that
                Ray does not bring them here before they are needed.
        """
        try:
            if not ask.files:
                return Answer(getattr(self._target.open(), ask.method)(**ask.options))
            store = self._store()
            for name, (reference,) in sent.items():
                if name not in store:
                    _receive(store, name, reference)
            missing = store.missing(ask.files)
            if missing:
                return Answer(missing=missing)
            with ExitStack() as held:
                held.enter_context(store.hold(ask.files))
                return Answer(self._measured(store, ask))
        except ParefrontError as error:
            return Answer(error=error)
        except Exception as error:  # noqa: BLE001 - whoever asked must hear of it, whatever it is
            return Answer(error=MeasurementError(f"{type(error).__name__}: {error}"))

    def _measured(self, store: Store, ask: Ask) -> Any:  # noqa: ANN401 (as the method says)
        feeds = StoredFeeds(store.path(ask.feeds or ""), ask.names)
        paths = [store.path(name) for name in ask.artifacts]
        return getattr(self._target.open(), ask.method)(*paths, feeds, **ask.options)

    def _store(self) -> Store:
        with self._opening:
            if self._opened is None:
                self._opened = _open_store(self._quota)
            return self._opened


def _open_store(quota: int) -> Store:
    """A folder for files that no other process uses; one left by a process that died is used on.

    Raises:
        AgentError: If the folder cannot be used.
    """
    cache = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    for number in count():
        try:
            return Store(Path(cache) / f"parefront-devices/{number}", quota=quota, longest=quota)
        except AgentError as error:
            if not isinstance(error.__cause__, Timeout):
                raise
    raise AssertionError("unreachable")


def _receive(store: Store, name: str, reference: Any) -> None:  # noqa: ANN401 (Ray's reference)
    try:
        content = ray.get(reference)
        with store.upload(name, len(content)) as upload:
            upload.write(content)
            upload.finish()
    except Refusal as error:
        why = error.reason.partition(";")[0]  # the rest is about the options of an agent
        raise MeasurementError(f"the file cannot be kept for the device: {why}") from error
    except RayError as error:  # whoever sent it is gone, and nobody waits
        raise MeasurementError(f"a file did not arrive: {error}") from error
