"""Locks of launches that reach their storage through a proxy, and whether it is one of ours.

The proxy holds the lock of the storage behind it for whoever asked, for as long as they say every
few seconds that they are there; so it holds also against those who use the storage directly.
"""

from __future__ import annotations

import json
import threading
import time
import uuid
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from importlib.metadata import version
from typing import Any

import grpc
import optuna

from parefront.errors import StorageError, StorageVersionError
from parefront.search.locks import Lock, lock_of
from parefront.search.patience import Patience, failed
from parefront.search.storage import address_of, shown

SERVICE = "parefront.Storage"
"""Name of the gRPC service that stands beside Optuna's."""
RENEW = 15.0
"""A lock is asked for again this often while it is held, in seconds."""
EXPIRE = 60.0
"""A lock that was not asked for again for so long is free."""
_TIMEOUT = 30.0
"""Seconds within which the proxy answers."""


@dataclass
class _Lease:
    lock: Lock
    token: str
    renewed: float


class Leases:
    """Locks that a proxy holds for others.

    Args:
        url: The storage behind the proxy.
        expire: Seconds after which a lock is free that nobody asks for again.
    """

    def __init__(self, url: str, expire: float = EXPIRE) -> None:
        self._url = url
        self._expire = expire
        self._held: dict[tuple[str, str], _Lease] = {}
        self._guard = threading.Lock()

    def take(self, study: str, what: str, token: str) -> bool:
        """Takes a lock for the one with a token, or keeps it for them; whether it is theirs."""
        with self._guard:
            held = self._held.get((study, what))
            if held is not None:
                if held.token == token:
                    held.renewed = time.monotonic()
                return held.token == token
            lock = lock_of(self._url, study, what)
            if not lock.take():
                lock.release()
                return False
            self._held[study, what] = _Lease(lock, token, time.monotonic())
            return True

    def give(self, study: str, what: str, token: str) -> None:
        """Gives a lock back that is the one's with a token."""
        with self._guard:
            held = self._held.get((study, what))
            if held is not None and held.token == token:
                del self._held[study, what]
                held.lock.release()

    def sweep(self, *, every: bool = False) -> None:
        """Gives back the locks that nobody asked for again, or every one."""
        with self._guard:
            oldest = time.monotonic() - self._expire
            for name, held in list(self._held.items()):
                if every or held.renewed < oldest:
                    del self._held[name]
                    held.lock.release()


class LeasedLock:
    """A lock that the proxy of a storage keeps.

    Args:
        url: The proxy.
        study: Name of the study.
        what: What the lock guards.
        patience: How long to wait for a proxy that does not answer.
        renew: Seconds between saying that it is still wanted.
    """

    def __init__(
        self, url: str, study: str, what: str, patience: Patience, renew: float = RENEW
    ) -> None:
        self._url = url
        self._name = {"study": study, "what": what}
        self._patience = patience
        self._renew = renew
        self._token = ""
        self._channel: grpc.Channel | None = None
        self._done = threading.Event()
        self._renewing: threading.Thread | None = None

    def take(self) -> bool:
        """Takes it if it is free; whether it was."""
        if self._channel is None:
            self._channel = grpc.insecure_channel(address_of(self._url))
            self._token, self._done = uuid.uuid4().hex, threading.Event()
        channel = self._channel
        if not self._patience(lambda: self._ask(channel, "Take")):
            return False
        self._renewing = threading.Thread(
            target=self._keep, args=(channel, self._done), name="lock", daemon=True
        )
        self._renewing.start()
        return True

    def release(self) -> None:
        """Gives it back."""
        self._done.set()
        if self._renewing is not None:
            self._renewing.join()
            self._renewing = None
        if self._channel is not None:
            with suppress(grpc.RpcError):  # it is given back a little later all the same
                self._ask(self._channel, "Give")
            self._channel.close()
            self._channel = None

    def _ask(self, channel: grpc.Channel, method: str) -> bool:
        ask: Any = channel.unary_unary(f"/{SERVICE}/{method}")
        words = json.dumps({**self._name, "token": self._token}).encode()
        return bool(json.loads(ask(words, timeout=_TIMEOUT)))

    def _keep(self, channel: grpc.Channel, done: threading.Event) -> None:
        while not done.wait(self._renew):
            # A proxy that was begun again takes the lock again.
            with suppress(grpc.RpcError):
                self._ask(channel, "Take")


def about() -> dict[str, str]:
    """What a proxy and those who use it have to have in common."""
    return {"parefront": version("parefront"), "optuna": optuna.__version__}


def check_server(url: str) -> None:
    """Checks that a proxy is there, and speaks as this process does.

    Raises:
        StorageError: If nothing answers, or something else than parefront's proxy.
        StorageVersionError: If another version of Optuna answers.
    """
    with grpc.insecure_channel(address_of(url)) as channel:
        ask: Any = channel.unary_unary(f"/{SERVICE}/About")
        try:
            theirs = json.loads(ask(b"", timeout=_TIMEOUT))
        except grpc.RpcError as error:
            code = error.code()
            if code == grpc.StatusCode.UNIMPLEMENTED:
                raise StorageError(
                    f"what answers at {shown(url)} is not parefront's proxy of a storage; begin "
                    "one with 'parefront serve-storage'"
                ) from error
            if code == grpc.StatusCode.UNAVAILABLE:
                raise StorageError(
                    f"nothing answers at {shown(url)}; 'parefront serve-storage' begins what would "
                    f"({error.details()})"
                ) from error
            raise failed(error) from error
    ours = about()
    if _minor(theirs["optuna"]) != _minor(ours["optuna"]):
        raise StorageVersionError(
            f"{shown(url)} is served with Optuna {theirs['optuna']}, here is Optuna "
            f"{ours['optuna']}; install the same on both sides"
        )


def _minor(release: str) -> list[str]:
    return release.split(".")[:2]


def handler(leases: Leases, allowed: Callable[[str], bool]) -> grpc.GenericRpcHandler:
    """The service beside Optuna's: `Take` and `Give` of locks, and `About`.

    Args:
        leases: The locks.
        allowed: Whether a name may be that of a study; it becomes the name of a file.
    """

    def words(request: bytes, context: grpc.ServicerContext) -> tuple[str, str, str]:
        try:
            asked = json.loads(request)
            study, what, token = (asked[key] for key in ("study", "what", "token"))
            fits = allowed(study) and what in ("", "after") and isinstance(token, str)
        except (ValueError, KeyError, TypeError):
            fits = False
        if not fits:
            context.abort(grpc.StatusCode.INVALID_ARGUMENT, "expected a study, what and a token")
        return study, what, token

    def take(request: bytes, context: grpc.ServicerContext) -> bytes:
        return json.dumps(leases.take(*words(request, context))).encode()

    def give(request: bytes, context: grpc.ServicerContext) -> bytes:
        leases.give(*words(request, context))
        return b"true"

    told = json.dumps(about()).encode()

    def tell(request: bytes, context: grpc.ServicerContext) -> bytes:  # noqa: ARG001
        return told

    methods = {"Take": take, "Give": give, "About": tell}
    return grpc.method_handlers_generic_handler(
        SERVICE,
        {name: grpc.unary_unary_rpc_method_handler(each) for name, each in methods.items()},
    )
