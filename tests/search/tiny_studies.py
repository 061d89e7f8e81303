"""Whole studies of a tiny model, with every stage, that repeat exactly."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import parefront as pf
from tests.tiny import make

FIXED = {"protocol": "fixed"}
SPACE: dict[str, dict[str, Any]] = {
    "prune": {"ratio": [0.1, 0.6]},
    "factorize": {},
    "recover": {"epochs": 1},
    "quantize": {"method": "static", "calibration": "minmax"},
}


def study(folder: Path, **changes: Any) -> pf.Study:
    parts: dict[str, Any] = {
        "name": "tiny",
        "trials": 10,
        "target": FIXED,
        "space": SPACE,
        "storage": f"sqlite:///{folder}/studies.db",
    }
    return pf.Study(**({"task": make()} | parts | changes))
