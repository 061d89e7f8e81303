"""How an agent is run."""

from __future__ import annotations

import ipaddress
import os
import socket
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from parefront.errors import AgentError, UsageError
from parefront.objectives.targets.agent.sizes import size_of
from parefront.objectives.targets.limits import half_of_memory


def default_folder() -> Path:
    """Where an agent keeps its files unless told otherwise."""
    cache = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(cache) / "parefront-agent"


@dataclass(frozen=True)
class Settings:
    """How an agent is run.

    Attributes:
        host: Address to listen at.
        port: Port to listen at; 0 takes a free one.
        folder: Where it keeps uploaded files.
        certificate: File with its certificate, in PEM.
        key: File with the certificate's private key, in PEM; `None` if it is in the same file.
        insecure: Whether it may listen to other machines without a certificate.
        allow_native: Whether it takes artifacts that are machine code.
        memory: Bytes of memory a measuring process may use.
        disk: Bytes of the files it keeps.
        longest: Bytes of one file.
        time_limit: Seconds a measuring process may be given.
    """

    host: str = "127.0.0.1"
    port: int = 8765
    folder: Path = field(default_factory=default_folder)
    certificate: Path | None = None
    key: Path | None = None
    insecure: bool = False
    allow_native: bool = False
    memory: int = field(default_factory=half_of_memory)
    disk: int = 4 << 30
    longest: int = 1 << 30
    time_limit: float = 600.0

    def __post_init__(self) -> None:
        """Refuses what would put the token, or code of others, in danger.

        Raises:
            AgentError: If it would.
        """
        if self.key is not None and self.certificate is None:
            raise AgentError("--key needs the --certificate it belongs to")
        if not (self.certificate or self.insecure or is_loopback(self.host)):
            raise AgentError(
                f"expected --certificate (and --key) to listen at {self.host}: without TLS, "
                "everyone on the network can read the token; give --insecure if you trust "
                "everyone on it"
            )


def settings_of(
    *,
    folder: Path | None,
    memory: str | None,
    disk: str,
    longest: str,
    **rest: Any,  # noqa: ANN401 (fields of `Settings`)
) -> Settings:
    """Settings as the command line has them, with sizes such as `512M`.

    Raises:
        UsageError: If a size is none.
        AgentError: As `Settings`.
    """
    return Settings(
        folder=(folder or default_folder()).absolute(),
        memory=half_of_memory() if memory is None else _size("memory", memory),
        disk=_size("disk", disk),
        longest=_size("longest", longest),
        **rest,
    )


def _size(option: str, text: str) -> int:
    try:
        return size_of(text)
    except ValueError as error:
        raise UsageError(f"--{option}: {error}") from error


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach an address."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        pass
    try:
        found = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
    except OSError as error:
        raise AgentError(f"cannot listen at {host}: {error.strerror}") from error
    return all(ipaddress.ip_address(entry[4][0]).is_loopback for entry in found)
