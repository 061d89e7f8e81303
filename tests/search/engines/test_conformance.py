"""What every engine must do."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd
import pytest

import parefront as pf
from parefront.errors import TrainingError, TrialError
from parefront.spaces.space import Candidate
from tests.search.engines.faults import fragile, fussy
from tests.search.engines.studies import SAME, SPACE, Told, counted, soon, study
from tests.search.test_study import Diverging
from tests.tiny import make

pytestmark = pytest.mark.parametrize(
    "engine",
    [
        pytest.param({"name": "inline"}, id="inline"),
        pytest.param({"name": "process"}, id="process", marks=pytest.mark.slow),
        pytest.param({"name": "ray", "workers": 1}, id="ray", marks=pytest.mark.slow),
    ],
)


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> pf.Study:
    """What a loop in this process finds."""
    return study(tmp_path_factory.mktemp("plain"), make(), "inline", trials=6).optimize()


def test_a_budget_is_spent_and_the_search_is_the_same(
    tmp_path: Path, engine: dict[str, Any], plain: pf.Study
) -> None:
    told = Told()
    found = study(tmp_path, make(), engine, trials=6).optimize(progress=told)
    assert found.ended == "6 trials are done"
    pd.testing.assert_frame_equal(found.frame()[SAME], plain.frame()[SAME])
    pd.testing.assert_frame_equal(found.front()[SAME], plain.front()[SAME])
    assert "training the baseline" in told.phases
    outcomes = {entry.trial.number: entry.outcome for entry in found.opened().entries()}
    assert dict(told.outcomes) == outcomes


def test_what_a_model_raises_fails_its_trial(tmp_path: Path, engine: dict[str, Any]) -> None:
    (tmp_path / "marker").touch()
    found = study(tmp_path, fragile("raise", tmp_path / "marker"), engine).optimize()
    frame = found.frame()
    assert frame["state"].tolist()[:2] == ["complete"] * 2
    assert frame["reason"][2] == "ValueError: a fault of the model"


def test_a_baseline_that_fails_ends_the_launch_and_is_tried_again_by_the_next(
    tmp_path: Path, engine: dict[str, Any]
) -> None:
    marker = tmp_path / "marker"
    marker.touch()
    found = study(tmp_path, fussy("raise", marker), engine)
    with pytest.raises(TrialError, match=r"failed in trial 0, .*a fault of the model; mend that"):
        found.optimize()
    assert found.frame()["state"].tolist() == ["failed"]
    marker.unlink()
    again = study(tmp_path, fussy("raise", marker), engine).optimize()
    assert again.frame()["state"].tolist() == ["failed", *["complete"] * 4]
    assert again.summary().baseline == 1
    assert again.frame()["speedup"].notna().sum() == 4


def test_what_ends_a_launch_is_raised_as_what_it_is(tmp_path: Path, engine: dict[str, Any]) -> None:
    space = {"recover": SPACE["recover"]}
    diverging = study(tmp_path, make(model=Diverging), engine, space=space, start=[])
    with pytest.raises(TrainingError, match="loss"):
        diverging.optimize()


def test_told_to_stop_it_ends_after_the_trial_and_goes_on_when_launched_again(
    tmp_path: Path, engine: dict[str, Any], plain: pf.Study
) -> None:
    found = study(tmp_path, make(), engine, trials=6)
    found.optimize(progress=Told(ended=lambda count: found.stop() if count == 3 else None))
    assert found.ended == "it was stopped"
    assert len(found.frame()) == 3
    again = study(tmp_path, make(), engine, trials=6).optimize()
    pd.testing.assert_frame_equal(again.frame()[SAME], plain.frame()[SAME])


def test_told_to_stop_at_once_it_gives_the_trial_up_which_is_tried_again(
    tmp_path: Path, engine: dict[str, Any]
) -> None:
    long = {"space": SPACE | {"recover": SPACE["recover"] | {"epochs": [1, 1_000_000]}}}
    endless = {"prune": {"ratio": 0.5}, "recover": {"epochs": 1_000_000}}
    found = study(tmp_path, make(), engine, start=[endless], **long)

    def begun(candidate: Candidate) -> None:
        if candidate.configs:
            soon(lambda: found.stop(now=True))

    found.optimize(progress=Told(began=begun))
    assert found.ended == "it was stopped"
    assert found.frame()["state"].tolist() == ["complete", "interrupted"]
    assert counted(found)["state"].tolist() == ["complete"]
    again = study(tmp_path, make(), engine, start=[endless], **long)
    began: list[set[str]] = []

    def tried(candidate: Candidate) -> None:
        began.append(set(candidate.as_dict()))
        soon(lambda: again.stop(now=True))

    again.optimize(progress=Told(began=tried))
    assert began == [set(endless)]
    assert [entry.record.deaths for entry in again.opened().entries()] == [0, 0, 0]
