"""Bundles of a study: what they prove, and what is refused."""

from __future__ import annotations

import json
import sqlite3
import subprocess
from pathlib import Path

import optuna
import pytest

import parefront as pf
from parefront.errors import (
    ArtifactError,
    BundleError,
    UsageError,
)
from tests.search.tiny_studies import study


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> pf.Study:
    """A finished study, for tests that only read it."""
    return study(tmp_path_factory.mktemp("done")).optimize()


@pytest.mark.slow
def test_a_bundle_proves_itself_and_a_changed_byte_fails_it(done: pf.Study, tmp_path: Path) -> None:
    from parefront.search.verify import verify

    knee = done.pick("knee")
    folder = done.export(int(knee["trial"]), tmp_path / "bundle")
    metrics = json.loads((folder / "metrics.json").read_text())
    assert metrics["validation"]["accuracy"]["value"] == knee["accuracy"]
    assert 0.5 < metrics["test"]["accuracy"]["value"] <= 1
    checks = verify(folder, study=done)
    assert all(check.passed for check in checks), checks
    assert {"checksums", "replay", "accuracy (validation)", "accuracy (test)", "size"} <= {
        check.name for check in checks
    }
    assert [check.passed for check in verify(folder)] == [True, True, None]
    with pytest.raises(UsageError, match="not an empty folder"):
        done.export(int(knee["trial"]), folder)
    for name in ("model.onnx", "metrics.json", "check.npz", "run.py"):
        content = (folder / name).read_bytes()
        middle = len(content) // 2
        changed = content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :]
        (folder / name).write_bytes(changed)
        with pytest.raises(BundleError, match=f"{name} changed"):
            verify(folder)
        (folder / name).write_bytes(content)
    (folder / "extra").touch()
    with pytest.raises(BundleError, match="extra is not listed"):
        verify(folder)


def test_the_study_of_a_bundle_is_not_looked_for_in_what_names_no_storage(tmp_path: Path) -> None:
    from parefront.search.verify import origin_of

    (tmp_path / "lineage.json").write_text('{"study": "tiny"}')
    assert origin_of(tmp_path, f"sqlite:///{tmp_path}/none.db") is None
    with pytest.raises(UsageError, match="expected a storage URL"):
        origin_of(tmp_path, "nonsense")


def test_a_damaged_artifact_is_not_exported(tmp_path: Path) -> None:
    made = study(tmp_path, trials=2).optimize()
    row = made.frame().iloc[1]
    path = made.store.get(row["artifact_sha256"], "onnx").path
    path.write_bytes(path.read_bytes() + b"x")
    with pytest.raises(ArtifactError, match="is damaged"):
        made.export(1, tmp_path / "bundle")
    assert not (tmp_path / "bundle").exists()
    assert not list(tmp_path.glob(".bundle-*"))


def test_a_result_that_does_not_repeat_is_not_published(tmp_path: Path) -> None:
    made = study(tmp_path, trials=1).optimize()
    theirs = optuna.load_study(study_name="tiny", storage=made.storage)
    result = theirs.trials[0].user_attrs["parefront:result"]
    result["measurements"]["accuracy"]["value"] = result["measurements"]["accuracy"]["low"]
    connection = sqlite3.connect(tmp_path / "studies.db")
    connection.execute(
        "UPDATE trial_user_attributes SET value_json = ? WHERE key = 'parefront:result'",
        (json.dumps(result),),
    )
    connection.commit()
    connection.close()
    with pytest.raises(BundleError, match="does not give what was recorded: accuracy"):
        study(tmp_path, trials=1).export(0, tmp_path / "bundle")
    assert not (tmp_path / "bundle").exists()


def test_a_bundle_that_cannot_be_written_is_refused(done: pf.Study, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for folder in (Path("/proc/bundle"), tmp_path / "file" / "bundle"):
        with pytest.raises(UsageError, match=f"cannot write {folder}: .*name a folder"):
            done.export(0, folder)


@pytest.mark.parametrize("room", ["size=16k", "nr_inodes=5"])
def test_a_disk_without_room_for_a_bundle_is_said(
    done: pf.Study, tmp_path: Path, room: str
) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", room, "tmpfs", str(disk)]
    if subprocess.run(mount, capture_output=True, check=False).returncode != 0:
        pytest.skip("mounting a file system is not permitted")
    try:
        with pytest.raises(UsageError, match="cannot write .*No space left.*where there is room"):
            done.export(0, disk / "bundle")
        assert list(disk.iterdir()) == []
    finally:
        subprocess.run(["umount", str(disk)], check=True)


@pytest.mark.parametrize(
    ("trial", "message"), [(99, "there is no trial 99"), (-1, "there is no trial -1")]
)
def test_a_trial_that_is_not_there_is_not_exported(
    done: pf.Study, tmp_path: Path, trial: int, message: str
) -> None:
    with pytest.raises(UsageError, match=message):
        done.export(trial, tmp_path / "bundle")


def test_a_file_of_machine_code_is_not_run_for_a_stranger(
    done: pf.Study, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from parefront.objectives.targets.local import LocalDevice
    from parefront.search.bundle import write_checksums
    from parefront.search.verify import verify

    folder = done.export(int(done.front()["trial"].iloc[0]), tmp_path / "bundle")
    environment = json.loads((folder / "environment.json").read_text())
    environment["target"] |= {"runtime": "aotinductor", "protocol": "timed"}
    (folder / "environment.json").write_text(json.dumps(environment))
    (folder / "model.onnx").rename(folder / "model.pt2")
    (folder / "model.pt2").write_bytes(b"machine code")
    (folder / "SHA256SUMS").unlink()
    write_checksums(folder)
    monkeypatch.setattr(LocalDevice, "run", lambda *_, **__: pytest.fail("it was run"))
    for study_at_hand in (None, done):
        *_, last = verify(folder, study=study_at_hand)
        assert (last.name, last.passed) == ("replay", None)
        assert "may bring code of its own" in last.text
