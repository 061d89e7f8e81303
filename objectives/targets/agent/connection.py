"""A connection to an agent that outlasts interruptions."""

from __future__ import annotations

import contextlib
import ssl
import time
import weakref
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import unquote

import httpx

from parefront.errors import (
    AgentError,
    CertificateError,
    DeviceAwayError,
    MeasurementError,
    TokenError,
)
from parefront.objectives.targets.agent.protocol import ERROR_HEADER, VERSION, VERSION_HEADER

T = TypeVar("T")

_FIRST_PAUSE = 0.25
_LONGEST_PAUSE = 5.0
_CONNECT_SECONDS = 10.0
_SHORTEST_SILENCE = 15.0
_AGAIN = frozenset({408, 502, 503, 504})
"""Refusals that pass: a stalled upload, too many connections, a proxy whose agent restarts."""
_USAGE = frozenset({400, 405, 409, 411, 415})
"""Refusals that no other artifact would change."""

_NO_TLS = frozenset({"WRONG_VERSION_NUMBER", "RECORD_LAYER_FAILURE"})
"""What OpenSSL says, by its version, of an answer that is plain HTTP."""


class Interruption(Exception):  # noqa: N818 (the reason to ask again)
    """The agent did not answer, for now."""


class Connection:
    """Asks an agent, and asks again while it cannot be reached."""

    def __init__(
        self, url: str, token: str, *, patience: float, certificate: Path | None = None
    ) -> None:
        """Opens nothing yet.

        Args:
            url: Address of the agent, such as `http://raspberrypi:8765`.
            token: Its token.
            patience: Seconds without any progress after which it is given up.
            certificate: Certificates to trust, in PEM, instead of the system's.

        Raises:
            AgentError: If the address is none.
            TokenError: If the token cannot be sent.
            CertificateError: If the certificates cannot be read.
        """
        try:
            address = httpx.URL(url)
        except httpx.InvalidURL as error:
            raise AgentError(f"expected an address of an agent, got {url!r}: {error}") from error
        plain = address.path in {"", "/"} and not address.query and not address.userinfo
        if address.scheme not in {"http", "https"} or not address.host or not plain:
            raise AgentError(
                f"expected an address of an agent such as http://192.168.0.7:8765, got {url!r}"
            )
        if not (token and token.isascii() and token.isprintable() and " " not in token):
            raise TokenError("expected a token of visible ASCII characters; is it the right file?")
        self.url = url.rstrip("/")
        self._patience = patience
        timeout = httpx.Timeout(max(_SHORTEST_SILENCE, patience), connect=_CONNECT_SECONDS)
        self._client = httpx.Client(
            base_url=self.url,
            headers={"Authorization": f"Bearer {token}", VERSION_HEADER: VERSION},
            timeout=timeout,
            verify=_trusted(certificate) if address.scheme == "https" else False,
            trust_env=False,  # an agent is asked directly: no proxies, no .netrc
        )
        self.close = weakref.finalize(self, self._client.close)
        """Closes the connections; nothing can be asked any more."""

    def persist(self, ask: Callable[[Callable[[], None]], T]) -> T:
        """Asks until there is an answer.

        Args:
            ask: Sends requests with `send`; gets a function to call whenever there is progress,
                from which on the patience counts anew.

        Raises:
            DeviceAwayError: If there was no progress for as long as the patience lasts.
            CertificateError: If the agent's certificate cannot be trusted.
        """
        heard = time.monotonic()
        pause = _FIRST_PAUSE

        def progress() -> None:
            nonlocal heard, pause
            heard, pause = time.monotonic(), _FIRST_PAUSE

        while True:
            try:
                return ask(progress)
            except (httpx.TransportError, Interruption) as error:
                self._raise_if_hopeless(error)
                left = heard + self._patience - time.monotonic()
                if left <= 0:
                    raise DeviceAwayError(
                        f"the agent at {self.url} did not answer for {self._patience:g} s: "
                        f"{self._reason(error)}"
                    ) from error
                time.sleep(min(pause, left))
                pause = min(2 * pause, _LONGEST_PAUSE)

    @contextlib.contextmanager
    def send(
        self,
        method: str,
        path: str,
        *,
        absent: bool = False,
        silence: float | None = None,
        **more: Any,  # noqa: ANN401 (what httpx takes)
    ) -> Iterator[httpx.Response]:
        """Sends one request; its answer is not yet read.

        Args:
            method: Method of the request.
            path: Path of the request.
            absent: Whether an answer of 404 is an answer and no refusal.
            silence: Seconds without a byte of an answer after which it will not come.
            more: Parameters, body and so on.

        Raises:
            httpx.TransportError: If the connection fails.
            Interruption: If the agent says to try again.
            TokenError: If the token is another than the agent's.
            AgentError: If the request can never succeed.
            MeasurementError: If the agent refuses it.
        """
        if silence is not None:
            more["timeout"] = httpx.Timeout(silence, connect=_CONNECT_SECONDS)
        with self._client.stream(method, path, **more) as response:
            if response.is_error and not (absent and response.status_code == 404):
                self._refused(response)
            elif not response.is_success and not absent:
                raise AgentError(
                    f"expected an agent at {self.url}, got an answer with status "
                    f"{response.status_code}"
                )
            yield response

    def _refused(self, response: httpx.Response) -> None:
        status = response.status_code
        reason = unquote(response.headers.get(ERROR_HEADER, f"status {status}"))
        if status == 401:
            raise TokenError(
                f"the agent at {self.url} has another token; copy its token file to this machine"
            )
        if status in _AGAIN:
            raise Interruption(reason)
        if ERROR_HEADER not in response.headers and status < 500:
            raise AgentError(f"expected an agent at {self.url}, got an answer with {reason}")
        kind = AgentError if status in _USAGE else MeasurementError
        raise kind(f"the agent at {self.url} refused: {reason}")

    def _raise_if_hopeless(self, error: Exception) -> None:
        reasons: list[BaseException] = [error]
        while (reason := reasons[-1].__cause__ or reasons[-1].__context__) is not None:
            reasons.append(reason)
        for found in reasons:
            if isinstance(found, ssl.SSLCertVerificationError):
                raise CertificateError(
                    f"the certificate of {self.url} is not trusted: {found.verify_message}; if it "
                    "is self-signed, name the agent's certificate file"
                ) from error
            if isinstance(found, ssl.SSLError) and found.reason in _NO_TLS:
                raise CertificateError(
                    f"the agent at {self.url} does not speak TLS; use http:// or start it with "
                    "--certificate"
                ) from error

    def _reason(self, error: Exception) -> str:
        text = str(error) or type(error).__name__
        if isinstance(error, httpx.RemoteProtocolError) and self.url.startswith("http:"):
            return f"{text}; if it has a certificate, use https://"
        return text


def _trusted(certificate: Path | None) -> ssl.SSLContext:
    try:
        return ssl.create_default_context(cafile=certificate)
    except (OSError, ssl.SSLError) as error:
        raise CertificateError(f"cannot read the certificate {certificate}: {error}") from error


def answer_of(response: httpx.Response) -> Mapping[str, Any]:
    """Reads a JSON object.

    Raises:
        AgentError: If it is none.
    """
    try:
        found = response.json()
    except ValueError as error:
        raise AgentError(f"expected JSON from the agent at {response.url.host}") from error
    if not isinstance(found, dict):
        raise AgentError(f"expected a JSON object from the agent at {response.url.host}")
    return found
