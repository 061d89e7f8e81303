"""What every request passes before anything of it is read."""

from __future__ import annotations

import hmac
from typing import TYPE_CHECKING

from parefront.objectives.targets.agent.protocol import (
    HEALTH,
    LONGEST_REQUEST,
    VERSION,
    VERSION_HEADER,
)
from parefront.objectives.targets.agent.refusal import Refusal

if TYPE_CHECKING:
    from collections.abc import Callable

    from starlette.responses import Response
    from starlette.types import ASGIApp, Receive, Scope, Send


class Gate:
    """Lets requests with the token through, and open ones; the rest is refused unread."""

    def __init__(self, app: ASGIApp, token: str, answer: Callable[[Refusal], Response]) -> None:
        """Stands before an application.

        Args:
            app: The application.
            token: The token.
            answer: Turns a refusal into a response.
        """
        self._app = app
        self._expected = f"Bearer {token}".encode()
        self._answer = answer

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Passes a request on, or refuses it."""
        if scope["type"] != "http":
            return
        try:
            self._check(scope)
        except Refusal as refusal:
            await self._answer(refusal)(scope, receive, send)
            return
        await self._app(scope, receive, send)

    def _check(self, scope: Scope) -> None:
        headers: dict[bytes, bytes] = dict(scope["headers"])
        if scope["path"] == HEALTH:
            if headers.get(b"content-length", b"0") != b"0" or b"transfer-encoding" in headers:
                raise Refusal(413, "expected no body")
            return
        given = headers.get(b"authorization", b"")
        if not hmac.compare_digest(given, self._expected):
            raise Refusal(401, "expected the agent's token in the header Authorization")
        version = headers.get(VERSION_HEADER.lower().encode())
        if version is not None and version != VERSION.encode():
            raise Refusal(
                409,
                f"the agent has parefront {VERSION}, and was asked by version "
                f"{version.decode('latin-1')}; install the same on both",
            )
        if scope["method"] in {"GET", "HEAD"}:
            return
        length = headers.get(b"content-length", b"")
        if not length.isdigit() or b"transfer-encoding" in headers:
            raise Refusal(411, "expected a header Content-Length with the number of bytes")
        if scope["method"] != "PUT" and int(length) > LONGEST_REQUEST:
            raise Refusal(413, f"expected at most {LONGEST_REQUEST} bytes, got {int(length)}")
