"""Siblings: other ways to go on from what was trained, tried with it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import parefront as pf
from parefront.objectives.front import dominated
from parefront.search.proposer import Archive
from parefront.spaces.space import Candidate, Space
from parefront.spaces.stage import TargetTraits
from tests.tiny import make

SPACE = Space.of(
    {"prune": {}, "factorize": {}, "recover": {}, "quantize": {}},
    TargetTraits(format="onnx", channel_multiple=8),
)
ANCHORS = {stage.name: stage.anchors() for stage in SPACE.stages}


def candidate(*names: str) -> Candidate:
    return Candidate(tuple((name, ANCHORS[name][0]) for name in names))


def test_siblings_begin_alike_and_end_otherwise() -> None:
    mine = candidate("prune", "recover", "quantize")
    found = SPACE.siblings(mine)
    trained = candidate("prune", "recover")
    expected = [trained] + [
        Candidate((*trained.configs, ("quantize", config))) for config in ANCHORS["quantize"][1:]
    ]
    assert found == expected
    assert all(each.prefix(2) == trained for each in found)


def test_what_was_not_trained_has_no_siblings() -> None:
    assert SPACE.siblings(Candidate()) == []
    assert SPACE.siblings(candidate("prune")) == []
    assert SPACE.siblings(candidate("quantize")) == []


@given(st.lists(st.tuples(*[st.integers(0, 4)] * 3), max_size=30))
def test_the_archive_is_the_front(points: list[tuple[int, int, int]]) -> None:
    maximize = [True, False, False]
    archive = Archive(maximize)
    for index, point in enumerate(points):
        archive.add(point, numbered(index))
    kept = [number(each) for each in archive]
    if not points:
        assert kept == []
        return
    values = np.array(points, dtype=float)
    on_front = np.flatnonzero(~dominated(values, values, values, maximize))
    firsts = {points[i]: int(i) for i in reversed(on_front)}  # of equal points the first
    assert sorted(kept) == sorted(firsts.values())


def numbered(index: int) -> Candidate:
    config = ANCHORS["prune"][0].model_copy(update={"ratio": index / 100})
    return Candidate((("prune", config),))


def number(each: Candidate) -> int:
    return round(float(each.configs[0][1].model_dump()["ratio"]) * 100)


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> pf.Study:
    space: dict[str, dict[str, Any]] = {
        "prune": {"ratio": [0.1, 0.6]},
        "recover": {"epochs": 1},
        "quantize": {"calibration": "minmax"},
    }
    folder: Path = tmp_path_factory.mktemp("done")
    return pf.Study(
        make(), name="tiny", trials=40, target={"protocol": "fixed"}, space=space,
        gate=False, early_stop=False,
        storage=f"sqlite:///{folder}/studies.db",
    ).optimize()  # fmt: skip


def test_each_sibling_is_a_trial_of_its_own_that_trains_nothing(done: pf.Study) -> None:
    entries = done.opened().entries()
    siblings = [entry for entry in entries if entry.record.origin == "sibling"]
    assert siblings
    for entry in siblings:
        assert entry.outcome is not None
        assert "train" not in entry.outcome.seconds
    assert done.frame()["candidate_id"].is_unique
    assert {entry.record.origin for entry in entries} == {
        "baseline", "anchor", "sibling", "sampled",
    }  # fmt: skip


def test_of_every_candidate_on_the_front_all_siblings_were_tried(done: pf.Study) -> None:
    entries = done.opened().entries()[:-4]  # the last may not have had their turn
    known = {entry.record.candidate_id for entry in done.opened().entries()}
    space = Space.of(done.settings.space, TargetTraits(format="onnx", channel_multiple=8))
    values = np.array([entry.trial.values for entry in entries])
    front = ~dominated(values, values, values, [True, False, False])
    firsts = {index[0] for index in map(np.flatnonzero, (values[:, None] == values).all(axis=2))}
    checked = 0
    for row, (entry, stays) in enumerate(zip(entries, front, strict=True)):
        # Of candidates that measure the same, the first stands for all.
        if stays and row in firsts and "recover" in entry.record.candidate:
            for sibling in space.siblings(space.candidate(entry.record.candidate)):
                assert sibling.id in known
                checked += 1
    assert checked >= 3
