"""Whole searches that begin with what is known."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import optuna
import pytest

import parefront as pf
from parefront.search.records import Origin
from tests.tiny import make

SPACE: dict[str, dict[str, Any]] = {
    "prune": {"ratio": [0.1, 0.6], "importance": "l2", "scope": "uniform"},
    "recover": {"epochs": 1, "learning_rate": 0.004, "soft_weight": 0.0},
    "quantize": {"method": "static", "calibration": "minmax"},
}
OWN: dict[str, dict[str, Any]] = {"prune": {"ratio": 0.35}}


def study(folder: Path, name: str, **changes: Any) -> pf.Study:
    parts: dict[str, Any] = {
        "name": name,
        "trials": 8,
        "target": {"protocol": "fixed"},
        "space": SPACE,
        "storage": f"sqlite:///{folder}/studies.db",
    }
    return pf.Study(make(), **(parts | changes))


@pytest.mark.slow
def test_a_search_begins_with_what_is_known_and_keeps_to_it(tmp_path: Path) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    earlier = study(first, "earlier").optimize()
    shutil.copytree(first, second)
    known = {"warm_start": ["earlier"], "sensitivity": True, "start": [OWN]}

    whole = study(first, "new", trials=9, **known).optimize().frame()
    study(second, "new", trials=3, **known).optimize()
    optuna.delete_study(study_name="earlier", storage=f"sqlite:///{second}/studies.db")
    resumed = study(second, "new", trials=9, **known).optimize().frame()
    assert resumed["candidate_id"].tolist() == whole["candidate_id"].tolist()

    assert whole["origin"].tolist()[:2] == [Origin.BASELINE, Origin.WARM]
    assert whole["candidate"][1]["prune"]["ratio"] == 0.35
    warm = whole[whole["origin"] == Origin.WARM]
    front = earlier.front()
    compressed = front[front["candidate"].map(bool)]
    assert set(compressed["candidate_id"]) <= set(warm["candidate_id"])
    # Measured here, not taken over.
    assert (warm["artifact_sha256"].notna() & warm["accuracy"].notna()).all()
