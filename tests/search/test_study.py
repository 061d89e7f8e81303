"""Whole searches on a tiny model, with every stage, real exports and a real runtime."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import optuna
import pandas as pd
import pytest
import torch
from torch import nn

import parefront as pf
from parefront.errors import (
    BuildError,
    PickError,
    StorageError,
    StorageVersionError,
    StudyFileError,
    StudyNotFoundError,
    TaskError,
    TrainingError,
    UsageError,
)
from parefront.search.records import FORMAT
from tests.search.tiny_studies import study
from tests.tiny import data, make


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> pf.Study:
    """A finished study, for tests that only read it."""
    return study(tmp_path_factory.mktemp("done")).optimize()


def test_a_study_ends_with_a_front(done: pf.Study) -> None:
    frame, front = done.frame(), done.front()
    assert done.ended == "10 trials are done"
    assert len(frame) == 10
    assert frame["candidate_id"].is_unique
    assert set(frame["state"]) <= {"complete", "gated", "early_stopped"}
    assert frame["origin"].iloc[0] == "baseline"
    assert frame["candidate"].iloc[0] == {}
    assert len(front) >= 2
    assert front["accuracy"].is_monotonic_decreasing
    baseline = frame.iloc[0]
    assert baseline["speedup"] == baseline["shrink"] == 1
    assert baseline["accuracy"] > 0.8
    best = front["shrink"].max()
    assert best > 3


def test_size_is_the_file_and_the_file_is_what_was_measured(done: pf.Study) -> None:
    for row in done.front().to_dict("records"):
        artifact = done.store.get(row["artifact_sha256"], "onnx")
        assert artifact.path.stat().st_size == row["size_bytes"]


def test_quantised_siblings_of_the_baseline_are_four_times_smaller(done: pf.Study) -> None:
    frame = done.frame()
    only = frame[[list(candidate) == ["quantize"] for candidate in frame["candidate"]]]
    assert (only["shrink"] > 2).all()


def test_what_stages_achieved_is_recorded(done: pf.Study) -> None:
    frame = done.frame()
    pruned = frame[["prune" in candidate for candidate in frame["candidate"]]].iloc[0]
    facts = pruned["achieved"]["prune"]
    assert facts["parameters_after"] < facts["parameters_before"]


def test_launching_a_finished_study_changes_nothing(done: pf.Study) -> None:
    before = done.frame()
    again = study(Path(done.storage.removeprefix("sqlite:///")).parent).optimize()
    pd.testing.assert_frame_equal(again.frame(), before)


def test_more_trials_go_on(tmp_path: Path) -> None:
    study(tmp_path, trials=3).optimize()
    longer = study(tmp_path, trials=5).optimize()
    assert longer.frame()["trial"].tolist() == [0, 1, 2, 3, 4]


@pytest.mark.slow
def test_the_same_seed_gives_the_same_search(tmp_path: Path) -> None:
    frames = []
    for name in ("first", "second"):
        (tmp_path / name).mkdir()
        frames.append(study(tmp_path / name, trials=14, seed=3).optimize().frame())
    columns = ["candidate_id", "accuracy", "latency_ms", "size_bytes", "artifact_sha256"]
    pd.testing.assert_frame_equal(frames[0][columns], frames[1][columns])


def test_a_loaded_study_shows_the_same(done: pf.Study) -> None:
    loaded = pf.Study.load("tiny", storage=done.storage)
    pd.testing.assert_frame_equal(loaded.front(), done.front())
    with pytest.raises(TaskError, match="given as a Python object"):
        loaded.task()


def test_a_study_that_is_not_there_is_named(done: pf.Study) -> None:
    with pytest.raises(StudyNotFoundError, match="no study 'tony' in .*; there are: tiny"):
        pf.Study.load("tony", storage=done.storage)


def test_the_report_is_written(done: pf.Study, tmp_path: Path) -> None:
    path = done.report(tmp_path / "report.html")
    assert "tiny" in path.read_text()
    assert done.report(tmp_path / "front.svg").read_text().startswith("<svg")


def test_a_report_that_cannot_be_written_is_refused(done: pf.Study, tmp_path: Path) -> None:
    (tmp_path / "folder.html").mkdir()
    for name in ("none/x.html", "none/x.svg", "folder.html"):
        with pytest.raises(UsageError, match=f"cannot write .*{name}: "):
            done.report(tmp_path / name)
    for name in ("x.pdf", "none", "."):
        with pytest.raises(UsageError, match="expected a file that ends in .html or .svg, got"):
            done.report(tmp_path / name)
    assert [path.name for path in tmp_path.iterdir()] == ["folder.html"]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"seed": 1}, r"other settings: \[study\] seed was 0 and is now 1"),
        ({"space": {"quantize": {}}}, r"other settings: \[space\] was"),
        ({"task": make(train=data(256, 9))}, "the data of the task changed"),
    ],
)
def test_a_study_is_not_mixed_with_another(
    done: pf.Study, changes: dict[str, Any], message: str
) -> None:
    other = study(Path(done.storage.removeprefix("sqlite:///")).parent, **changes)
    with pytest.raises(StudyFileError, match=message):
        other.optimize()


def test_another_model_does_not_take_the_baselines_place(tmp_path: Path) -> None:
    study(tmp_path, trials=1).optimize()
    other = make(model=lambda: nn.Sequential(nn.Flatten(), nn.Linear(64, 4)))
    with pytest.raises(TaskError, match="not the one this study began with"):
        study(tmp_path, trials=2, task=other).optimize()


def test_a_study_of_someone_else_is_left_alone(tmp_path: Path) -> None:
    storage = f"sqlite:///{tmp_path}/studies.db"
    theirs = optuna.create_study(
        study_name="tiny", storage=storage, directions=["maximize", "minimize", "minimize"]
    )
    theirs.ask()
    with pytest.raises(StorageError, match="parefront did not make"):
        study(tmp_path).optimize()


def test_a_study_in_another_format_is_refused(tmp_path: Path) -> None:
    made = study(tmp_path, trials=1).optimize()
    theirs = optuna.load_study(study_name="tiny", storage=made.storage)
    theirs.set_user_attr("parefront", theirs.user_attrs["parefront"] | {"format": 99})
    with pytest.raises(StorageVersionError, match=f"format 99 .* reads format {FORMAT}"):
        study(tmp_path).optimize()


def test_another_device_is_refused(tmp_path: Path) -> None:
    made = study(tmp_path, trials=1).optimize()
    theirs = optuna.load_study(study_name="tiny", storage=made.storage)
    record = theirs.user_attrs["parefront:baseline"]
    theirs.set_user_attr("parefront:baseline", record | {"fingerprint_id": "elsewhere"})
    with pytest.raises(UsageError, match="measured on another device"):
        study(tmp_path, trials=2).optimize()


def test_a_bound_that_nothing_meets_ends_without_a_front(tmp_path: Path) -> None:
    impossible = {"accuracy": {}, "latency": {}, "size": {"at_most": 10}}
    ended = study(tmp_path, trials=6, objectives=impossible).optimize()
    assert ended.front().empty
    frame = ended.frame()
    assert set(frame["state"]) == {"complete", "infeasible"}
    gated = frame[frame["state"] == "infeasible"]
    assert gated["accuracy"].isna().all()
    assert (gated["reason"] == "breaks the bound on size before training").all()
    assert gated["size_bytes"].notna().all()
    with pytest.raises(PickError, match="no front to pick from"):
        ended.pick("knee")
    trial = optuna.load_study(study_name="tiny", storage=ended.storage).trials[1]
    assert trial.constraints["size"] > 0


def test_two_objectives_are_enough(tmp_path: Path) -> None:
    ended = study(tmp_path, trials=4, objectives=["accuracy", "size"]).optimize()
    assert ended.frame()["latency_ms"].notna().all()
    assert not ended.front().empty


class Diverging(nn.Module):
    """Fine until it is trained."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(64, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y: torch.Tensor = self.layer(x.flatten(1))
        return y * float("nan") if self.training else y


def test_a_loss_that_is_not_finite_fails_the_trial_with_its_reason(tmp_path: Path) -> None:
    task = make(model=Diverging, pretrain=None)
    ended = study(tmp_path, task=task, trials=5, space={"recover": {}, "quantize": {}}).optimize()
    failed = ended.frame().query("state == 'failed'")
    assert len(failed) >= 1
    assert failed["reason"].str.contains("loss").all()
    assert not ended.front().empty


def test_a_baseline_that_diverges_ends_the_launch(tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match="loss"):
        study(tmp_path, task=make(model=Diverging)).optimize()


class Unexportable(nn.Module):
    """Its control flow depends on the data."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(64, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.layer(x.flatten(1))
        return torch.from_numpy(np.asarray(y.detach().numpy())) if x.sum() > -1e9 else y


def test_a_model_that_cannot_be_exported_is_refused(tmp_path: Path) -> None:
    task = make(model=Unexportable, pretrain=None)
    with pytest.raises(BuildError):
        study(tmp_path, task=task).optimize()


def test_a_model_with_nothing_to_compress_is_refused(tmp_path: Path) -> None:
    class Pool(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x.flatten(1)[:, :4]

    with pytest.raises(UsageError, match="no stage has anything to do .*prune: "):
        study(tmp_path, task=make(model=Pool, pretrain=None), space=None).optimize()


def test_a_trial_that_takes_too_long_fails(tmp_path: Path) -> None:
    file = tmp_path / "study.toml"
    file.write_text(
        f'[study]\nname = "tiny"\ntask = "{Path(__file__).parents[1] / "tiny.py"}:task"\n'
        'trials = 3\ntrial_time = "1s"\n[target]\nprotocol = "fixed"\n'
        "[space]\nrecover = { epochs = 5000 }\n"
    )
    ended = pf.Study.from_file(file, storage=f"sqlite:///{tmp_path}/x.db").optimize()
    failed = ended.frame().query("state == 'failed'")
    assert failed["reason"].str.contains("took longer than 1 s").any()


def test_a_full_disk_fails_the_trial_and_loses_nothing(tmp_path: Path) -> None:
    program = """
import resource, sys
from pathlib import Path
from tests.search.test_study import study, make
from torch import nn
wide = lambda: nn.Sequential(nn.Flatten(), nn.Linear(64, 8192), nn.ReLU(), nn.Linear(8192, 4))
def run(trials):
    return study(Path(sys.argv[1]), task=make(model=wide, pretrain=None), trials=trials,
                 space={"factorize": {"ratio": 0.9}, "recover": {"epochs": 1}}).optimize()
run(1)
resource.setrlimit(resource.RLIMIT_FSIZE, (1_500_000, 1_500_000))
run(3)
"""
    subprocess.run([sys.executable, "-c", program, str(tmp_path)], check=True)
    frame = study(tmp_path).frame()
    assert frame["state"].tolist()[0] == "complete"
    failed = frame.query("state == 'failed'")
    assert len(failed)
    assert failed["reason"].str.contains("File too large").all()
    assert not list((tmp_path / "artifacts").glob("scratch-*"))


@pytest.mark.parametrize(
    ("wanted", "check"),
    [
        ("knee", lambda row: True),
        ("size_kb<=15", lambda row: row["size_bytes"] <= 15_000),
        ("size_bytes < 12000 and accuracy >= 0.5", lambda row: row["size_bytes"] < 12_000),
        ("latency_us<=1e6", lambda row: True),
    ],
)
def test_picks(done: pf.Study, wanted: str, check: Any) -> None:
    row = done.pick(wanted)
    assert check(row)
    if wanted != "knee":
        within = done.front()[[bool(check(r)) for r in done.front().to_dict("records")]]
        assert row["accuracy"] == within["accuracy"].max()


@pytest.mark.parametrize(
    ("wanted", "message"),
    [
        ("kne", "a pick is 'knee' or bounds"),
        ("speed<=1", "no column 'speed'"),
        ("latncy_ms<=1", "did you mean 'latency_ms'"),
        ("size_kb<=0.001", "no candidate on the front meets .*the front spans"),
        ("size_kb<=1 or 1", "a pick is 'knee' or bounds"),
        ("__import__('os')", "a pick is 'knee' or bounds"),
        ("size_kb<=1.2.3", "expected a number"),
    ],
)
def test_wrong_picks_are_refused(done: pf.Study, wanted: str, message: str) -> None:
    with pytest.raises(PickError, match=message):
        done.pick(wanted)
