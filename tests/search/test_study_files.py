"""Studies whose files are in another folder or on S3, whole, and with stores that fail."""

from __future__ import annotations

import json
import os
import shutil
import sqlite3
import subprocess
import sys
import traceback
from pathlib import Path
from typing import Any

import fsspec
import pytest
from moto.server import ThreadedMotoServer
from torch import nn

import parefront as pf
from parefront.errors import StudyFileError, UsageError
from parefront.search import shared_entries
from parefront.search.launch import Silent
from parefront.search.records import Outcome
from parefront.search.study_file import StudyFile
from parefront.spaces.space import Candidate
from tests import tiny

SPACE: dict[str, dict[str, Any]] = {
    "prune": {"ratio": [0.1, 0.6]},
    "recover": {"epochs": 1},
    "quantize": {"method": "dynamic"},
}


def study(folder: Path, **changes: Any) -> pf.Study:
    parts: dict[str, Any] = {
        "task": f"{tiny.__file__}:task",
        "name": "tiny",
        "trials": 6,
        "target": {"protocol": "fixed"},
        "space": SPACE,
        "engine": "inline",
        "storage": f"sqlite:///{folder}/studies.db",
    }
    return pf.Study(**(parts | changes))


def wide(folder: Path, **changes: Any) -> pf.Study:
    """A study of a model of 2.2 MB."""

    def model() -> nn.Module:
        return nn.Sequential(nn.Flatten(), nn.Linear(64, 8192), nn.ReLU(), nn.Linear(8192, 4))

    space = {"factorize": {"ratio": 0.9}, "recover": {"epochs": 1}}
    task = tiny.make(model=model, pretrain=None)
    return study(folder, **({"task": task, "space": space} | changes))


def elsewhere(done: pf.Study, folder: Path) -> str:
    """The storage of a study in another folder, as a server of databases would have it."""
    folder.mkdir()
    with (
        sqlite3.connect(done.storage.removeprefix("sqlite:///")) as source,
        sqlite3.connect(folder / "studies.db") as copy,
    ):
        source.backup(copy)
    source.close()
    copy.close()
    return f"sqlite:///{folder}/studies.db"


def command(folder: Path, *arguments: str) -> str:
    done = subprocess.run(
        [sys.executable, "-m", "parefront", *arguments],
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
        env=os.environ | {"PYTHONPATH": str(Path(pf.__file__).parents[1])},
    )
    assert done.returncode == 0, done.stderr
    assert "nclosed" not in done.stderr  # connections end with the program
    return done.stdout


@pytest.mark.slow
def test_a_study_on_s3_is_at_hand_on_another_machine(
    bucket: str, tmp_path: Path, trainings: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shared_entries, "WORTH_SECONDS", 0.0)
    url = f"{bucket}/a team/studies/"
    done = study(tmp_path / "a", files=url).optimize()
    front = done.front()
    assert set(done.frame()["state"]) <= {"complete", "gated", "early_stopped"}
    assert len(front) >= 2
    assert trainings
    kept = fsspec.filesystem("s3").find(f"{bucket}/a team/studies")
    for folder in ("artifacts", "baselines", "cache"):
        assert any(f"/{folder}/" in path for path in kept), folder
    for value in ("geheim-1234", "somebody"):
        assert value.encode() not in (tmp_path / "a/studies.db").read_bytes()

    # Another machine has the storage and the credentials alone.
    shutil.move(tmp_path / "a/copies", tmp_path / "gone")
    storage = elsewhere(done, tmp_path / "b")
    read = json.loads(command(tmp_path / "b", "front", "tiny", "--json", "--storage", storage))
    assert len(json.dumps(read)) > 100
    assert not (tmp_path / "b/copies").exists()
    command(tmp_path / "b", "report", "tiny", "-o", "page.html", "--storage", storage)
    assert "geheim" not in (tmp_path / "b/page.html").read_text()
    command(
        tmp_path / "b", "export", "tiny", "--pick", "knee", "-o", "bundle", "--storage", storage
    )
    shutil.rmtree(tmp_path / "b/copies")
    endpoint = os.environ["AWS_ENDPOINT_URL_S3"]
    monkeypatch.delenv("AWS_ENDPOINT_URL_S3")  # the other way to say it
    monkeypatch.setenv("FSSPEC_S3_ENDPOINT_URL", endpoint)
    verified = command(tmp_path / "b", "verify", "bundle", "--storage", storage)
    assert "accuracy (test)" in verified
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", endpoint)

    # It goes on there with the same baseline, and a second study of the same trains nothing.
    shutil.rmtree(tmp_path / "b/copies", ignore_errors=True)
    more = pf.Study.load("tiny", storage=storage)
    assert more.settings.study.files == url.rstrip("/")
    assert len(more.optimize(trials=7).frame()) == 7
    trainings.clear()
    again = study(tmp_path / "c", name="again", files=url).optimize()
    assert trainings == []
    columns = ["candidate_id", "state", "accuracy", "size_bytes"]
    columns = [column for column in columns if column in again.frame()]
    assert again.frame()[columns].equals(done.frame()[columns])


def test_a_study_in_a_shared_folder(tmp_path: Path, trainings: list[str]) -> None:
    shared = tmp_path / "shared"
    done = study(tmp_path / "a", files=shared, trials=3).optimize()
    assert {path.name for path in shared.iterdir()} == {"artifacts", "baselines", "cache"}
    assert {path.name for path in (tmp_path / "a").iterdir() if path.is_dir()} == {"locks"}
    trainings.clear()
    study(tmp_path / "b", files=shared, trials=3).optimize()
    assert trainings == []
    there = pf.Study.load("tiny", storage=elsewhere(done, tmp_path / "c"))
    sha256 = str(there.opened().ledger.entries()[0].outcome.artifact_sha256)  # type: ignore[union-attr]
    assert there.store.get(sha256, "onnx").path.is_relative_to(shared)
    with pytest.raises(StudyFileError, match=r"\[study\] files was '.*shared' and is now None"):
        study(tmp_path / "a", trials=3).optimize()


@pytest.mark.slow
def test_a_store_that_is_gone_fails_trials_and_the_study_goes_on(
    bucket: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("parefront.search.remote.Remote.waits", ())
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", f"http://{host}:{port}")
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    kind = fsspec.get_filesystem_class("s3")
    kind.clear_instance_cache()
    monkeypatch.setattr(kind, "retries", 1)

    class Watcher(Silent):
        """Stops the server after two trials, and has it back after the next."""

        count = 0
        down: ThreadedMotoServer | None = None

        def ended(self, trial: int, outcome: Outcome) -> None:
            nonlocal server
            self.count += 1
            if self.count == 2:
                server.stop()
            elif self.count == 3:
                server = ThreadedMotoServer(ip_address=host, port=port, verbose=False)
                server.start()

    done = study(tmp_path, files=bucket, trials=5, sampler="random", siblings=False)
    try:
        frame = done.optimize(progress=Watcher()).frame()
        assert frame["state"].tolist()[2] == "failed"
        assert "cannot write s3://" in frame["reason"][2]
        assert "failed" not in frame["state"].drop(2).tolist()
    finally:
        server.stop()


def test_what_cannot_be_used_is_said_before_anything_is_trained(
    bucket: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("the task was made")

    monkeypatch.setattr("parefront.search.run.prepare", refuse)
    (tmp_path / "file").write_text("")
    for files, reason in (
        (f"{bucket}-of-nobody", "bucket does not exist"),
        (str(tmp_path / "file"), "cannot keep files in .*File exists"),
        ("gs://bucket/x", r"pip install 'fsspec\[gs\]'"),
    ):
        with pytest.raises(UsageError, match=reason):
            study(tmp_path, files=files).optimize()
    monkeypatch.setenv("PAREFRONT_CACHE_KEY_FILE", str(tmp_path / "none"))
    with pytest.raises(UsageError, match="names a key that cannot be used"):
        study(tmp_path, files=bucket).optimize()
    assert not (tmp_path / "studies.db").exists()


@pytest.mark.parametrize(
    ("files", "reason"),
    [
        ("s3://me:geheim@bucket/x", "without a password"),
        ("sftp://me:geheim@host/x", "without a password"),
        ("s3://bucket/x?token=geheim", r"without '\?'"),
        ("s3://AKIAX:abc/geheim@bucket/x", "without a password"),
        ("s3://AKIAX:abc@geheim/def@bucket/x", "without a password"),
        ("s3://AKIAX:geheim/x", "without a password"),
        ("s3://me@host:geheim/x", "without a password"),
        ("s3://[::1]:geheim/x", "without a password"),
        ("s3:/AKIAX:geheim@bucket/x", "without a password"),
        ("AKIAX:geheim@bucket/x", "without a password"),
        ("simplecache::s3://AKIAX:ge/heim@bucket/x", "without a password"),
        ("", "expected a folder, or a URL such as s3://bucket/folder, got ''"),
        ("s3://", "expected a folder, or a URL"),
        ("s3://bucket/a/../../b", "expected a folder, or a URL"),
        ("simplecache::s3://bucket/a", "expected a folder, or a URL"),
        ("s3:/bucket", "expected a folder, or a URL"),
        ("http://host/x", "cannot be written to"),
        ("memory://x", "gone with its process"),
    ],
)
def test_places_that_are_refused(files: str, reason: str) -> None:
    content = {"study": {"name": "x", "task": "x:y", "files": files}}
    with pytest.raises(StudyFileError, match=r"\[study\] files: ") as found:
        StudyFile.of(content)
    assert found.match(reason)
    text = "".join(traceback.format_exception(found.value))
    assert "geheim" not in text
    assert "ge/heim" not in text


@pytest.mark.parametrize(
    "files",
    ["sftp://me@host:22/x", "sftp://[::1]:22/x", "s3://bucket/a:b", "s3://bucket/a@b", "a@b"],
)
def test_places_that_hold_no_secret(files: str) -> None:
    content = {"study": {"name": "x", "task": "x:y", "files": files}}
    assert StudyFile.of(content).study.files == files


def test_a_folder_means_the_same_from_anywhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "deep/study.toml"
    file.parent.mkdir()
    for named, there in (
        ("../common", str(tmp_path / "common")),
        ("~/common", str(tmp_path / "home/common")),
        (f"file://{tmp_path}/common", str(tmp_path / "common")),
        ("s3://bucket/x/", "s3://bucket/x"),
        ("abfs://box@account.example/x", "abfs://box@account.example/x"),
    ):
        monkeypatch.setenv("HOME", str(tmp_path / "home"))
        file.write_text(f'[study]\nname = "x"\ntask = "x:y"\nfiles = "{named}"\n')
        assert StudyFile.read(file).study.files == there
    monkeypatch.chdir(tmp_path)
    assert study(tmp_path, files="common").settings.study.files == str(tmp_path / "common")


@pytest.mark.parametrize("folder", ["artifacts", "cache"])
@pytest.mark.parametrize("short_of", ["bytes", "files"])
def test_a_disk_that_is_full(tmp_path: Path, folder: str, short_of: str) -> None:
    disk = tmp_path / folder
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=12m,nr_inodes=100", "tmpfs", str(disk)]
    if subprocess.run(mount, capture_output=True, check=False).returncode != 0:
        pytest.skip("mounting a file system is not permitted")
    ballast = disk / "ballast"

    def fill() -> None:
        ballast.mkdir()
        if short_of == "bytes":
            (ballast / "x").write_bytes(b"\0" * (shutil.disk_usage(disk).free - 100_000))
        else:
            for number in range(os.statvfs(disk).f_ffree):
                (ballast / f"{number}").touch()

    class Watcher(Silent):
        """Fills the disk for the second trial, and has room again after it."""

        def began(self, trial: int, candidate: Candidate) -> None:
            if trial == 1:
                fill()

        def ended(self, trial: int, outcome: Outcome) -> None:
            shutil.rmtree(ballast, ignore_errors=True)

    try:
        frame = wide(tmp_path, trials=3).optimize(progress=Watcher()).frame()
        states = frame["state"].tolist()
        if folder == "cache":  # costs nothing but what is not kept
            assert states == ["complete"] * 3
        else:
            assert states == ["complete", "failed", "complete"]
            assert "No space left on device" in frame["reason"][1]
            first = "scratch-" if short_of == "bytes" else "cannot write to"
            assert first in frame["reason"][1]
        left = [path.name for path in disk.rglob("*") if path.is_file()]
        assert all(name.endswith((".onnx", ".stage")) for name in left), left
        assert not list(disk.rglob("scratch-*"))
    finally:
        subprocess.run(["umount", str(disk)], check=True)
