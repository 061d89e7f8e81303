"""Running an agent: the command `parefront agent`."""

from __future__ import annotations

import logging
import socket
import ssl
import sys
from pathlib import Path

import uvicorn

from parefront.errors import AgentError, CertificateError
from parefront.objectives.targets.agent.app import create_app
from parefront.objectives.targets.agent.settings import Settings
from parefront.objectives.targets.agent.store import Store
from parefront.objectives.targets.agent.token import read_token

_KEEP_ALIVE = {
    "SO_KEEPALIVE": 1,
    "TCP_KEEPIDLE": 15,
    "TCP_KEEPINTVL": 5,
    "TCP_KEEPCNT": 6,
    "TCP_USER_TIMEOUT": 45_000,
}
"""A client that vanished without a word is noticed within 45 seconds."""


def serve(settings: Settings, token_file: Path) -> None:
    """Listens until a signal to end comes.

    Args:
        settings: How the agent is run.
        token_file: File with the token.

    Raises:
        TokenError: If the token cannot be read, or can be read by others.
        CertificateError: If the certificate or its key cannot be used.
        AgentError: If the folder or the address cannot be used.
    """
    token = read_token(token_file)
    _check_certificate(settings)
    logging.basicConfig(stream=sys.stderr, format="%(asctime)s %(levelname)s %(message)s")
    logging.getLogger("parefront.agent").setLevel(logging.INFO)
    store = Store(settings.folder, quota=settings.disk, longest=settings.longest)
    try:
        listening = _listen(settings)
        server = uvicorn.Server(
            uvicorn.Config(
                create_app(settings, token, store),
                http="h11",
                ws="none",
                lifespan="off",
                loop="asyncio",
                log_config=None,
                access_log=False,
                server_header=False,
                limit_concurrency=256,
                timeout_keep_alive=30,
                timeout_graceful_shutdown=1,
                ssl_certfile=settings.certificate,
                ssl_keyfile=settings.key,
            )
        )
        scheme = "https" if settings.certificate else "http"
        host, port = listening.getsockname()[:2]
        shown = f"[{host}]" if ":" in host else host
        sys.stdout.write(f"parefront agent at {scheme}://{shown}:{port}\n")
        sys.stdout.flush()
        server.run(sockets=[listening])
    finally:
        store.close()


def _check_certificate(settings: Settings) -> None:
    if settings.certificate is None:
        return
    try:
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        context.load_cert_chain(settings.certificate, settings.key, password=lambda: "")
    except (OSError, ssl.SSLError) as error:
        raise CertificateError(
            f"cannot use the certificate {settings.certificate} with the key "
            f"{settings.key or settings.certificate}: {error}"
        ) from error


def _listen(settings: Settings) -> socket.socket:
    try:
        family, _, _, _, address = socket.getaddrinfo(
            settings.host, settings.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        listening = socket.create_server((str(address[0]), int(address[1])), family=family)
    except OSError as error:
        raise AgentError(
            f"cannot listen at {settings.host}, port {settings.port}: {error.strerror or error}"
        ) from error
    for name, value in _KEEP_ALIVE.items():  # connections inherit them
        level = socket.SOL_SOCKET if name.startswith("SO_") else socket.IPPROTO_TCP
        if hasattr(socket, name):
            listening.setsockopt(level, getattr(socket, name), value)
    return listening
