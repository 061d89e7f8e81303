"""Settings of every test run."""

import os
import signal

import pytest
import torch

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
