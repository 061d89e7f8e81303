"""A proxy in front of a storage, for more workers than a database takes connections."""

from __future__ import annotations

import re
import socket
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

# Optuna's `run_grpc_proxy_server` makes this server and never hands it over; the locks of launches
# belong on the same port.
from optuna.storages._grpc.server import make_server

from parefront.errors import UsageError
from parefront.search.leases import EXPIRE, Leases, handler
from parefront.search.storage import kind_of, open_storage, shown
from parefront.search.study_section import STUDY_NAME

THREADS = 32
"""Requests that are answered at once; each holds one connection to the database for as long."""
_LOOPBACK = ("127.0.0.1", "::1", "localhost")


def refuse_open(host: str, *, insecure: bool) -> None:
    """Checks that a storage is not given to everybody by mistake.

    Raises:
        UsageError: If it would be.
    """
    if host not in _LOOPBACK and not insecure:
        raise UsageError(
            f"--host {host}: whoever reaches the proxy can read and change every study, because "
            "Optuna's protocol has no passwords and no TLS; keep it at 127.0.0.1 and reach it "
            "through a tunnel (ssh -L 13000:127.0.0.1:13000 HOST), or give --insecure in a "
            "network where everybody may"
        )


@contextmanager
def served(url: str, host: str, port: int, *, expire: float = EXPIRE) -> Iterator[str]:
    """Serves a storage until it is left.

    Args:
        url: The storage.
        host: Address to listen at.
        port: Port to listen at.
        expire: Seconds after which a lock is free that nobody asks for again.

    Yields:
        The URL for those who use it.

    Raises:
        StorageError: If the storage cannot be opened.
        UsageError: If it cannot be served there.
    """
    if kind_of(url) == "grpc":
        raise UsageError(f"expected the URL of a database, got {shown(url)}, which is a proxy")
    name = f"[{host}]" if ":" in host else host
    _refuse_taken(host, port)
    storage = open_storage(url, pool=THREADS)
    leases, over = Leases(url, expire), threading.Event()

    def sweep() -> None:
        while not over.wait(expire / 10):
            leases.sweep()

    threads = ThreadPoolExecutor(THREADS, thread_name_prefix="storage")
    sweeping = threading.Thread(target=sweep, name="leases", daemon=True)
    try:
        server = make_server(storage, name, port, threads)
        pattern = re.compile(STUDY_NAME)
        server.add_generic_rpc_handlers(
            (handler(leases, lambda each: bool(pattern.fullmatch(each))),)
        )
        server.start()
        sweeping.start()
        try:
            yield f"grpc://{name}:{port}"
        finally:
            over.set()
            server.stop(grace=5).wait()
            sweeping.join()
            leases.sweep(every=True)
    except RuntimeError as error:  # what gRPC raises when it cannot listen
        raise UsageError(f"cannot listen at {name}:{port}: {error}") from error
    finally:
        threads.shutdown()


def _refuse_taken(host: str, port: int) -> None:
    """Checks that a port is free, which gRPC would share with another server.

    Raises:
        UsageError: If it is not.
    """
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        with socket.socket(family, kind, protocol) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(address)
            probe.listen()
    except OSError as error:
        raise UsageError(f"cannot listen at {host}:{port}: {error.strerror or error}") from error
