"""The commands that serve searches on other machines, until they are ended."""

from __future__ import annotations

import signal
from pathlib import Path
from typing import Annotated

import typer

from parefront.options import Storage, out


def agent(
    token_file: Annotated[Path, typer.Option(help="File with the token that a search needs too.")],
    new_token: Annotated[
        bool, typer.Option("--new-token", help="Write a new token to that file first.")
    ] = False,
    host: Annotated[str, typer.Option(help="Address to listen at.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="0 takes a free one.")] = 8765,
    folder: Annotated[
        Path | None, typer.Option(help="Where files are kept; ~/.cache/parefront-agent.")
    ] = None,
    certificate: Annotated[Path | None, typer.Option(help="Certificate for TLS, in PEM.")] = None,
    key: Annotated[Path | None, typer.Option(help="Private key of the certificate.")] = None,
    insecure: Annotated[
        bool, typer.Option("--insecure", help="Listen to other machines without TLS.")
    ] = False,
    allow_native: Annotated[
        bool, typer.Option("--allow-native", help="Take files that carry machine code.")
    ] = False,
    memory: Annotated[
        str | None, typer.Option(help="Memory of a measurement, such as 512M; half of all.")
    ] = None,
    disk: Annotated[str, typer.Option(help="Room for files.")] = "4G",
    longest: Annotated[str, typer.Option(help="Largest file.")] = "1G",
    time_limit: Annotated[
        float, typer.Option(min=1, help="Most seconds that a measuring process may be given.")
    ] = 600.0,
) -> None:
    """Let searches on other machines measure on this one."""
    from parefront.objectives.targets.agent.serve import serve
    from parefront.objectives.targets.agent.settings import settings_of
    from parefront.objectives.targets.agent.token import write_token

    settings = settings_of(
        host=host, port=port, folder=folder, certificate=certificate, key=key, insecure=insecure,
        allow_native=allow_native, memory=memory, disk=disk, longest=longest,
        time_limit=time_limit,
    )  # fmt: skip
    if new_token:
        write_token(token_file)
        out.print(f"wrote a new token to {token_file}", highlight=False, soft_wrap=True)
    serve(settings, token_file)


def serve_storage(
    host: Annotated[str, typer.Option(help="Address to listen at.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=1, max=65535, help="Port to listen at.")] = 13000,
    insecure: Annotated[
        bool,
        typer.Option("--insecure", help="Listen to other machines, where everybody may do all."),
    ] = False,
    storage: Storage = None,
) -> None:
    """Serve a storage to launches elsewhere, in place of connections to its database.

    They name it with --storage grpc://HOST:PORT. There are no passwords and no TLS: whoever reaches
    it can read and change every study. At 127.0.0.1 that is this machine alone; others reach it
    through a tunnel, such as ssh -L 13000:127.0.0.1:13000 HOST. Ctrl-C ends it.
    """
    import threading

    from parefront.search.serve_storage import refuse_open, served
    from parefront.search.storage import shown, url_of

    refuse_open(host, insecure=insecure)
    url, over = url_of(storage), threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: over.set())
    with served(url, host, port) as address:
        out.print(
            f"serving {shown(url)} at {address}, without passwords; Ctrl-C ends it",
            highlight=False, soft_wrap=True,
        )  # fmt: skip
        over.wait()
