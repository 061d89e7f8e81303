"""The command line in processes of its own, on a tiny study."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

TASK = Path(__file__).parents[1] / "tiny.py"
FILE = f"""
[study]
name = "tiny"
task = "{TASK}:task"
trials = 8
[target]
protocol = "fixed"
[space]
prune = {{ ratio = [0.1, 0.6] }}
recover = {{ epochs = 1 }}
quantize = {{ method = "static", calibration = "minmax" }}
"""
ENVIRONMENT = os.environ | {"OMP_NUM_THREADS": "1", "COLUMNS": "200"}
del ENVIRONMENT["PAREFRONT_ENGINE"]  # the engine that users have


def command(*words: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "parefront", *words],
        cwd=cwd,
        env=ENVIRONMENT,
        capture_output=True,
        text=True,
        check=False,
        timeout=240,
    )


def in_folder(folder: Path, text: str = FILE) -> Path:
    (folder / "study.toml").write_text(text)
    return folder
