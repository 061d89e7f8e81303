"""What a study takes from the cache, and what it makes anew."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import parefront as pf
from parefront.search import builder, stage_code
from parefront.search.entry import Entry
from tests.tiny import data, make

SPACE: dict[str, dict[str, Any]] = {
    "prune": {"ratio": [0.1, 0.6]},
    "recover": {"epochs": 1},
    "quantize": {"method": "static", "calibration": "minmax"},
}


def study(folder: Path, storage: str, task: pf.Task | None = None, **changes: Any) -> pf.Study:
    parts: dict[str, Any] = {
        "name": "tiny",
        "trials": 8,
        "target": {"protocol": "fixed"},
        "space": SPACE,
        "storage": f"sqlite:///{folder}/{storage}.db",
    }
    return pf.Study(task or make(), **(parts | changes))


def outcomes(found: pf.Study) -> list[Entry]:
    return found.opened().entries()


def test_a_warm_cache_trains_nothing_and_gives_the_same(
    tmp_path: Path, trainings: list[str]
) -> None:
    first = study(tmp_path, "a").optimize()
    assert len(trainings) >= 3
    trainings.clear()
    second = study(tmp_path, "b").optimize()
    assert trainings == []
    for column in ("candidate_id", "artifact_sha256", "accuracy", "size_bytes"):
        assert second.frame()[column].tolist() == first.frame()[column].tolist()
    # What a stage achieved is told from the cache too.
    assert second.frame()["achieved"].tolist() == first.frame()["achieved"].tolist()


def test_candidates_of_one_study_share_their_beginnings(
    tmp_path: Path, trainings: list[str]
) -> None:
    found = study(tmp_path, "a").optimize()
    with_recovery = [e for e in outcomes(found) if "recover" in e.record.candidate]
    beginnings = {
        str([(name, config) for name, config in e.record.candidate.items() if name != "quantize"])
        for e in with_recovery
    }
    assert len(trainings) == len(beginnings) < len(with_recovery)


def test_without_a_cache_everything_is_made_anew(tmp_path: Path, trainings: list[str]) -> None:
    file = pf.Study(
        make(), name="tiny", trials=4, target={"protocol": "fixed"}, space=SPACE, cache_mb=0,
        storage=f"sqlite:///{tmp_path}/a.db",
    )  # fmt: skip
    file.optimize()
    count = len(trainings)
    study(tmp_path, "b", trials=4, cache_mb=0).optimize()
    assert len(trainings) == 2 * count > 0
    assert not (tmp_path / "cache").exists()


def test_other_data_are_trained_on_anew(tmp_path: Path, trainings: list[str]) -> None:
    study(tmp_path, "a", trials=4).optimize()
    count = len(trainings)
    x, y = data(256, 0)
    x.view(-1)[0] += 1e-3
    study(tmp_path, "b", make(train=(x, y)), trials=4).optimize()
    assert len(trainings) == 2 * count


def test_another_seed_is_trained_anew(tmp_path: Path, trainings: list[str]) -> None:
    study(tmp_path, "a", trials=4).optimize()
    count = len(trainings)
    study(tmp_path, "b", trials=4, seed=1).optimize()
    assert len(trainings) == 2 * count


@pytest.mark.parametrize(
    ("module", "again"),
    [("parefront.spaces.distillation.recovery", True), ("parefront.spaces.lowrank.svd", False)],
)
def test_changed_code_of_a_stage_remakes_what_depends_on_it(
    module: str, again: bool, tmp_path: Path, trainings: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    study(tmp_path, "a", trials=4).optimize()
    count = len(trainings)
    real = stage_code._source
    monkeypatch.setattr(
        stage_code, "_source", lambda name: real(name) + (b"#" if name == module else b"")
    )
    monkeypatch.setattr(builder, "_code_digest", stage_code.code_digest)
    study(tmp_path, "b", trials=4).optimize()
    assert len(trainings) == (2 * count if again else count)
