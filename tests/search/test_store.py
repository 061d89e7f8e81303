"""Artifacts by their hash: one suite for a folder and for stores elsewhere."""

from __future__ import annotations

import hashlib
import pickle
import shutil
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from parefront.errors import ArtifactError
from parefront.search.baseline import trained_baseline
from parefront.search.files import StudyFiles
from parefront.search.remote import Remote
from parefront.search.stage_code import object_digest
from parefront.search.store import ArtifactStore
from parefront.search.task import prepare
from tests import tiny

Machine = Callable[[str], ArtifactStore]
"""The store as a machine of some name sees it."""


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


@pytest.fixture(params=["folder", "file", "s3"])
def on(request: pytest.FixtureRequest, tmp_path: Path) -> Machine:
    if request.param == "folder":
        return lambda machine: ArtifactStore(tmp_path / "store")
    url = f"file://{tmp_path}/away"
    if request.param == "s3":
        url = request.getfixturevalue("bucket")
    return lambda machine: ArtifactStore(tmp_path / machine, Remote(url, waits=()))


def add(store: ArtifactStore, content: bytes) -> str:
    with store.scratch() as folder:
        made = folder / "made"
        made.write_bytes(content)
        artifact = store.add(made, "onnx")
        assert not made.exists()
    assert artifact.path.read_bytes() == content
    assert artifact.sha256 == sha256(content)
    return artifact.sha256


def test_an_artifact_is_had_on_every_machine(on: Machine) -> None:
    added = add(on("a"), b"model")
    for machine in ("a", "b", "b"):
        artifact = on(machine).get(added, "onnx")
        assert artifact.path.read_bytes() == b"model"
        assert (artifact.sha256, artifact.size_bytes, artifact.format) == (added, 5, "onnx")
    assert add(on("b"), b"model") == added
    with pytest.raises(ArtifactError, match="moved"):
        on("a").get(sha256(b"other"), "onnx")
    with pytest.raises(ArtifactError, match="moved"):
        on("a").get(added, "pte")


def test_scratch_is_gone_afterwards(on: Machine) -> None:
    store = on("a")

    def work() -> None:
        with store.scratch() as folder:
            (folder / "half").write_bytes(b"half")
            raise ValueError("a stage")

    with pytest.raises(ValueError, match="a stage"):
        work()
    assert not list(store.root.rglob("*"))


def test_a_damaged_copy_is_fetched_again_and_no_other_bytes_are_given(on: Machine) -> None:
    store = on("a")
    added = add(store, b"model")
    path = store.get(added, "onnx").path
    path.write_bytes(b"mode")
    if store.remote is None:
        with pytest.raises(ArtifactError, match=f"{added}.onnx is damaged: expected sha256"):
            store.get(added, "onnx")
        return
    assert store.get(added, "onnx").path.read_bytes() == b"model"
    path.write_bytes(b"else")
    store.remote.put(path, f"{added[:2]}/{added}.onnx")
    with pytest.raises(ArtifactError, match=rf"{store.remote.url}/\w\w/{added}.onnx is damaged"):
        on("b").get(added, "onnx")


def test_several_writers_of_the_same_bytes(on: Machine) -> None:
    content = b"x" * 300_000
    failures: list[BaseException] = []

    def work(machine: str) -> None:
        try:
            for _ in range(4):
                add(on(machine), content)
                on(machine).get(sha256(content), "onnx")
        except BaseException as error:
            failures.append(error)
            raise

    threads = [threading.Thread(target=work, args=(machine,)) for machine in "aabb"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures


@given(
    st.text(max_size=80) | st.sampled_from(["../" * 20 + "etc/passwd", "/etc/passwd", "ab" * 31])
)
def test_names_cannot_lead_out_of_the_store(name: str) -> None:
    store = ArtifactStore(Path("/nonexistent"))
    for sha, format_ in ((name, "onnx"), (sha256(b""), f"{name}/"), (f"{sha256(b'')}\n", "onnx")):
        with pytest.raises(ArtifactError, match="expected a sha256"):
            store.get(sha, format_)
    if not name.isalnum() or not name.isascii() or name != name.lower():
        with pytest.raises(ArtifactError, match="expected an id"):
            StudyFiles(Path("/nonexistent")).weights(name)


def test_a_store_that_cannot_be_reached(tmp_path: Path) -> None:
    away = tmp_path / "away"
    store = ArtifactStore(tmp_path / "a", Remote(f"file://{away}", waits=()))
    added = add(store, b"model")
    (away.rename(tmp_path / "moved"))
    away.write_text("not a folder any more")
    assert store.get(added, "onnx").path.read_bytes() == b"model"  # what is here needs no store
    with pytest.raises(ArtifactError, match=f"cannot write file://{away}/"):
        add(store, b"other")
    with pytest.raises(
        ArtifactError, match=f"cannot read file://{away}/|there is no file://{away}"
    ):
        store.get(sha256(b"more"), "onnx")


def test_weights_are_had_on_every_machine(bucket: str, tmp_path: Path) -> None:
    one, other = (StudyFiles(tmp_path / machine, bucket) for machine in "ab")
    name = "0123456789abcdef"
    path = one.weights(name)
    assert not path.exists()
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"weights")
    assert not one.share_weights(name, fresh=True)
    assert other.weights(name).read_bytes() == b"weights"
    assert not other.share_weights(name, fresh=False)
    late = StudyFiles(tmp_path / "c", bucket)
    path = late.weights(name)
    path.write_bytes(b"of another training")  # the first that were kept are the study's
    assert late.share_weights(name, fresh=True)
    assert path.read_bytes() == b"weights"


class _Evil:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return exec, ("raise KeyboardInterrupt",)


@pytest.mark.parametrize(
    "content", [b"", b"PK", b"\x80\x02.", b"weights", pickle.dumps(_Evil(), protocol=2)]
)
def test_weights_that_cannot_be_read(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "weights.pt"
    path.write_bytes(content)
    with pytest.raises(ArtifactError, match="cannot read the baseline's weights .*put a copy back"):
        trained_baseline(prepare(tiny.make(), seed=0), path, seed=0, tick=lambda: None)


def test_of_two_baselines_the_first_that_was_kept_is_the_studys(tmp_path: Path) -> None:
    """Two machines with one folder both find none, and train."""
    path = tmp_path / "weights.pt"
    other = trained_baseline(prepare(tiny.make(), seed=1), tmp_path / "o.pt", seed=1, tick=_go_on)

    def tick() -> None:
        shutil.copy(tmp_path / "o.pt", path)

    module = trained_baseline(prepare(tiny.make(), seed=0), path, seed=0, tick=tick)
    assert object_digest(module) == object_digest(other)


def _go_on() -> None:
    pass
