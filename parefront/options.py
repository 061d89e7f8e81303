"""What the commands have in common: where they write, and options."""

from __future__ import annotations

import os
import sys
from typing import Annotated

import typer
from rich.console import Console

WIDTH = int(os.environ.get("COLUMNS", "160"))
"""Columns of what is written to a file or a pipe."""
# Names, paths and reasons come from elsewhere, and may have brackets in them.
out = Console(width=None if sys.stdout.isatty() else WIDTH, markup=False)
err = Console(stderr=True, markup=False)

Storage = Annotated[
    str | None,
    typer.Option(
        help="Where studies are kept: sqlite:///FILE, postgresql://USER@HOST/DATABASE, "
        "grpc://HOST:PORT for one that serve-storage serves, or another URL of Optuna's; "
        "sqlite:///.parefront/studies.db by default."
    ),
]
