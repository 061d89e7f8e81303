"""What leads a launch, in whole studies with the fixed protocol."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

import parefront as pf
from parefront.errors import StudyFileError
from parefront.search.launch import Silent
from parefront.search.records import Outcome
from parefront.search.study_record import SAMPLER_KEY, SENSITIVITY_KEY
from tests.tiny import make

SPACE: dict[str, dict[str, Any]] = {
    "prune": {"ratio": [0.1, 0.6]},
    "recover": {"epochs": [1, 3]},
    "quantize": {"method": "static", "calibration": "minmax"},
}
SAME = ["candidate_id", "state", "origin", "accuracy", "latency_ms", "size_bytes"]


class Noted(Silent):
    def __init__(self) -> None:
        self.phases: list[str] = []
        self.outlooks: list[tuple[float, int]] = []
        self.after: Callable[[int], None] = lambda count: None
        self._count = 0

    def phase(self, text: str) -> None:
        self.phases.append(text)

    def outlook(self, share: float, trials: int) -> None:
        self.outlooks.append((share, trials))

    def ended(self, trial: int, outcome: Outcome) -> None:
        self._count += 1
        self.after(self._count)


def study(folder: Path, task: pf.Task | None = None, **changes: Any) -> pf.Study:
    folder.mkdir(exist_ok=True)
    parts: dict[str, Any] = {
        "name": "tiny",
        "trials": 8,
        "target": {"protocol": "fixed"},
        "space": SPACE,
        "storage": f"sqlite:///{folder}/studies.db",
    }
    return pf.Study(task or make(), **(parts | changes))


@pytest.mark.slow
def test_interrupted_again_and_again_it_finds_what_it_would_have_found(tmp_path: Path) -> None:
    whole = study(tmp_path / "whole", trials=26).optimize().frame()
    assert {"gated", "early_stopped"} & set(whole["state"])
    assert "sampled" in set(whole["origin"])
    for _ in range(40):
        part = study(tmp_path / "parts", trials=26)
        watch = Noted()

        def end(count: int, stopped: pf.Study = part) -> None:
            stopped.stop(now=count == 3)

        watch.after = end  # after three trials, or in the middle of the fourth
        part.optimize(progress=watch)
        if part.ended == "26 trials are done":
            break
    parts = study(tmp_path / "parts", trials=26).frame()
    counted = parts[parts["state"] != "interrupted"].reset_index(drop=True)
    pd.testing.assert_frame_equal(counted[SAME], whole[SAME])
    front = whole[whole["on_front"]]["candidate_id"]
    assert set(counted[counted["on_front"]]["candidate_id"]) == set(front)


@pytest.mark.slow
def test_with_what_was_kept_a_study_repeats_without_training(
    tmp_path: Path, trainings: list[str]
) -> None:
    first = study(tmp_path, trials=26, name="first").optimize()
    assert {"gated", "early_stopped"} & set(first.frame()["state"])
    assert len(trainings) > 5
    trainings.clear()
    second = study(tmp_path, trials=26, name="second").optimize()
    assert trainings == []
    pd.testing.assert_frame_equal(second.frame()[SAME], first.frame()[SAME])


class TestAuto:
    def test_it_says_what_it_picked_and_keeps_to_it(self, tmp_path: Path) -> None:
        small, watch = {"quantize": {"calibration": "minmax", "per_channel": True}}, Noted()
        found = study(tmp_path, sampler="auto", space=small, trials=2).optimize(progress=watch)
        (said,) = [text for text in watch.phases if text.startswith("sampler: ")]
        kept = found.opened().optuna_study.user_attrs[SAMPLER_KEY]
        assert said == f"sampler: {kept['name']}, because {kept['reason']}"
        again = Noted()
        study(tmp_path, sampler="auto", space=small, trials=500).optimize(progress=again)
        assert said in again.phases

    def test_a_small_space_is_searched_through(self, tmp_path: Path) -> None:
        small, watch = {"quantize": {"calibration": "minmax"}}, Noted()
        found = study(tmp_path, sampler="auto", space=small, trials=500).optimize(progress=watch)
        assert any(text.startswith("sampler: random, because the space") for text in watch.phases)
        assert found.ended == "the space is searched through"

    def test_a_large_one_is_screened(self, tmp_path: Path) -> None:
        watch = Noted()
        study(tmp_path, sampler="auto", trials=2).optimize(progress=watch)
        assert any(text.startswith("sampler: screening, because") for text in watch.phases)


class TestNoGain:
    def test_it_ends_when_the_rest_adds_too_little(self, tmp_path: Path) -> None:
        watch = Noted()
        found = study(tmp_path, trials=60, no_gain=0.9).optimize(progress=watch)
        assert found.ended is not None
        share, trials = watch.outlooks[-1]
        assert share < 0.9
        assert found.ended == (
            f"{trials} further trials are expected to add {share:.2%} to the hypervolume, less "
            "than no_gain = 0.9"
        )
        assert len(found.frame()) < 60
        assert not found.front().empty
        assert all(earlier >= 0.9 for earlier, _ in watch.outlooks[:-1])

    def test_without_it_nothing_is_estimated(self, tmp_path: Path) -> None:
        watch = Noted()
        study(tmp_path, trials=12).optimize(progress=watch)
        assert watch.outlooks == []


MINE: dict[str, dict[str, Any]] = {
    "prune": {"ratio": 0.31, "importance": "l1", "scope": "uniform"},
    "recover": {"epochs": 2, "learning_rate": 0.002, "soft_weight": 0.0, "batch_size": 64},
}


class TestStart:
    def test_ones_own_candidates_come_after_the_baseline(self, tmp_path: Path) -> None:
        frame = study(tmp_path, start=[MINE], trials=3, siblings=False).optimize().frame()
        assert frame["origin"].tolist() == ["baseline", "warm", "anchor"]
        assert MINE["prune"].items() <= frame["candidate"].iloc[1]["prune"].items()

    def test_what_the_space_cannot_draw_is_refused_before_anything_is_trained(
        self, tmp_path: Path, trainings: list[str]
    ) -> None:
        wrong = {**MINE, "prune": {**MINE["prune"], "ratio": 0.9}}
        found = study(tmp_path, start=[wrong])
        with pytest.raises(StudyFileError, match=r"table 1, prune\.ratio: expected .* got 0\.9"):
            found.optimize()
        assert not (tmp_path / "baselines").exists()

    def test_a_further_one_is_tried_at_the_next_launch(self, tmp_path: Path) -> None:
        study(tmp_path, trials=2).optimize()
        frame = study(tmp_path, trials=3, start=[MINE]).optimize().frame()
        assert frame["origin"].tolist()[-1] == "warm"


def test_sensitivity_is_probed_once_and_suggests(tmp_path: Path) -> None:
    first, again = Noted(), Noted()
    found = study(tmp_path, sensitivity=True, trials=3).optimize(progress=first)
    probed = [text for text in first.phases if "without training" in text or "sensitiv" in text]
    assert probed
    assert found.opened().optuna_study.user_attrs[SENSITIVITY_KEY]["probes"]
    assert "warm" in set(found.frame()["origin"])
    study(tmp_path, sensitivity=True, trials=4).optimize(progress=again)
    assert not set(probed) & set(again.phases)


def test_an_earlier_study_is_learnt_from(tmp_path: Path) -> None:
    study(tmp_path, name="first", trials=14).optimize()
    watch = Noted()
    found = study(tmp_path, name="second", warm_start=["first"], trials=5).optimize(progress=watch)
    assert any(text.startswith("taken over from first (same task)") for text in watch.phases)
    frame = found.frame()
    assert set(frame["origin"]) >= {"baseline", "warm"}
    assert "anchor" not in set(frame["origin"])


def test_an_earlier_study_that_is_not_there_is_said_before_anything_is_trained(
    tmp_path: Path, trainings: list[str]
) -> None:
    watch = Noted()
    with pytest.raises(StudyFileError, match="there is no study 'frist'"):
        study(tmp_path, warm_start=["frist"]).optimize(progress=watch)
    assert watch.phases == ["checking the task"]
    assert trainings == []


def test_what_a_study_began_with_is_not_changed(tmp_path: Path) -> None:
    study(tmp_path, name="first", trials=3).optimize()
    study(tmp_path, name="second", warm_start=["first"], trials=2).optimize()
    with pytest.raises(StudyFileError, match=r"began with .*\['first'\] and is launched with \[\]"):
        study(tmp_path, name="second", trials=3).optimize()


def test_without_a_cache_nothing_is_nearly_free(tmp_path: Path) -> None:
    frame = study(tmp_path, cache_mb=0, trials=10).optimize().frame()
    assert "sibling" not in set(frame["origin"])


@pytest.mark.parametrize("sampler", ["tpe", "nsga2", "qmc"])
def test_other_samplers_are_gated_and_stopped_too(tmp_path: Path, sampler: str) -> None:
    frame = study(tmp_path, sampler=sampler, trials=26).optimize().frame()
    assert {"gated", "early_stopped"} & set(frame["state"])
    assert frame["candidate_id"].is_unique
