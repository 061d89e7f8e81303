"""Programs that run an artifact without parefront, each in one file."""

from __future__ import annotations

import ast
from pathlib import Path

_REPLAY = "run_replay.py"
_IMPORT = "from parefront.objectives.targets.run_replay import HERE, replay\n"


def script_of(name: str) -> str:
    """Source of a `run_*.py` of this folder with what it shares with the others put in.

    Args:
        name: File name of the program.
    """
    folder = Path(__file__).parent
    shared = (folder / _REPLAY).read_text()
    first = ast.parse(shared).body[0]  # the docstring, which is about the shared part alone
    body = "".join(shared.splitlines(keepends=True)[first.end_lineno :])
    return (folder / name).read_text().replace(_IMPORT, body.strip("\n") + "\n\n")
