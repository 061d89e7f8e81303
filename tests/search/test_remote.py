"""Files in stores that several machines reach: one suite for a folder and S3."""

from __future__ import annotations

import os
import pickle
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar
from uuid import uuid4

import fsspec
import pytest
from fsspec.implementations.memory import MemoryFileSystem

from parefront.errors import UsageError
from parefront.objectives.artifact import sha256_of
from parefront.search.place import scrubbed
from parefront.search.remote import Remote


@pytest.fixture(params=["file", "s3"])
def remote(request: pytest.FixtureRequest, tmp_path: Path) -> Remote:
    """A store with nothing in it."""
    if request.param == "s3":
        return Remote(f"{request.getfixturevalue('bucket')}/some/folder", waits=())
    return Remote(f"file://{tmp_path}/store", waits=())


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A file of this machine."""
    path = tmp_path / "here" / "file"
    path.parent.mkdir()
    path.write_bytes(b"first")
    return path


def content(remote: Remote, name: str, folder: Path) -> bytes:
    there = folder / "there" / uuid4().hex
    remote.fetch(name, there)
    return there.read_bytes()


def test_what_is_put_is_fetched_anywhere(remote: Remote, path: Path, tmp_path: Path) -> None:
    remote.check()
    remote.put(path, "ab/abc.onnx")
    assert path.read_bytes() == b"first"
    again: Remote = pickle.loads(pickle.dumps(remote))  # noqa: S301 - to another machine
    assert content(again, "ab/abc.onnx", tmp_path) == b"first"
    assert remote.has("ab/abc.onnx")
    path.write_bytes(b"second, and longer")
    again.put(path, "ab/abc.onnx")
    assert content(remote, "ab/abc.onnx", tmp_path) == b"second, and longer"


def test_what_is_not_there(remote: Remote, path: Path, tmp_path: Path) -> None:
    there = tmp_path / "there" / "x"
    for _ in range(2):
        assert not remote.has("ab/none")
        with pytest.raises(FileNotFoundError):
            remote.fetch("ab/none", there)
        assert not list(there.parent.iterdir())
        assert remote.within("none").listed() == {}
        remote.remove(["ab/none"])
        remote.put(path, "ab/some")


def test_files_are_listed_and_removed(remote: Remote, path: Path) -> None:
    began = time.time()
    for name in ("aa/one", "bb/two"):
        remote.put(path, name)
    remote.within("cc").put(path, "three")
    found = remote.listed()
    assert {name: entry.size for name, entry in found.items()} == {
        "aa/one": 5,
        "bb/two": 5,
        "cc/three": 5,
    }
    for entry in found.values():
        assert abs(entry.changed - began) < 60
    assert list(remote.within("cc").listed()) == ["three"]
    remote.remove(["aa/one", "gone", "cc/three"])
    assert list(remote.listed()) == ["bb/two"]


def test_readers_see_whole_files(remote: Remote, tmp_path: Path) -> None:
    sides = [bytes([number]) * (200_000 + number) for number in range(4)]
    remote = replace(remote, url=f"{remote.url}/shared")
    first = tmp_path / "first"
    first.write_bytes(sides[0])
    remote.put(first, "x")
    done = threading.Event()

    def write(number: int) -> None:
        path = tmp_path / f"write{number}"
        path.write_bytes(sides[number])
        for _ in range(5):
            remote.put(path, "x")

    def read(seen: set[bytes]) -> None:
        while not done.is_set():
            seen.add(content(remote, "x", tmp_path))

    seen: set[bytes] = set()
    readers = [threading.Thread(target=read, args=(seen,)) for _ in range(2)]
    writers = [threading.Thread(target=write, args=(number,)) for number in range(1, 4)]
    for thread in (*readers, *writers):
        thread.start()
    for thread in writers:
        thread.join()
    done.set()
    for thread in readers:
        thread.join()
    assert seen
    assert seen <= set(sides)
    assert list(remote.listed()) == ["x"]


@pytest.mark.slow
def test_a_large_file_is_sent_in_parts(bucket: str, tmp_path: Path) -> None:
    path = tmp_path / "large"
    with path.open("wb") as file:
        for number in range(103):
            file.write(bytes([number]) * 2**20)
    remote = Remote(bucket, waits=())
    remote.put(path, "aa/large")
    remote.fetch("aa/large", tmp_path / "there")
    assert sha256_of(path) == sha256_of(tmp_path / "there")
    assert remote.listed()["aa/large"].size == 103 * 2**20


class Faulty(MemoryFileSystem):  # type: ignore[misc] # fsspec has no types
    """Fails as often as it is told to, with what a server may say."""

    protocol = "faulty"
    store: ClassVar[dict[str, Any]] = {}
    failures: ClassVar[list[Exception]] = []

    def put_file(self, *args: Any, **kwargs: Any) -> None:
        if self.failures:
            raise self.failures.pop(0)
        super().put_file(*args, **kwargs)


@pytest.fixture
def faulty() -> Iterator[list[Exception]]:
    fsspec.register_implementation("faulty", Faulty, clobber=True)
    yield Faulty.failures
    Faulty.failures.clear()


def test_a_put_is_tried_again(faulty: list[Exception], path: Path, tmp_path: Path) -> None:
    remote = Remote("faulty://x", waits=(0.0, 0.0))
    faulty += [ConnectionError("down"), TimeoutError("slow")]
    remote.put(path, "a")
    assert content(remote, "a", tmp_path) == b"first"
    faulty += [ConnectionError("down")] * 3
    with pytest.raises(OSError, match="down"):
        remote.put(path, "b")
    assert not faulty
    faulty += [PermissionError("not yours"), ConnectionError("never reached")]
    with pytest.raises(PermissionError, match="not yours"):
        remote.put(path, "c")
    assert len(faulty) == 1


def test_what_a_store_says_is_told_without_secrets(faulty: list[Exception], path: Path) -> None:
    class OddError(Exception):
        pass

    remote = Remote("faulty://x", waits=())
    text = "no answer of https://me:geheim@host:9/a/b?X-Amz-Signature=geheim&x=geheim at all"
    for kind in (OddError, ConnectionError, PermissionError):
        faulty.append(kind(text))
        with pytest.raises(OSError, match="no answer of") as found:
            remote.put(path, "a")
        faulty.append(kind(text))
        with pytest.raises(
            UsageError, match="cannot keep files at faulty://x: .*no answer"
        ) as told:
            remote.check()
        for error in (found.value, told.value):
            assert "geheim" not in str(error)
            assert "https://***@host:9/a/b?***" in str(error)
            assert error.__suppress_context__ or error.__cause__ is not None
            assert "geheim" not in str(error.__cause__)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("s3://AKIAX:abc/geheim@bucket/f is gone", "s3://***@bucket/f is gone"),
        ("'s3://AKIAX:a@b/geheim@bucket/f' is gone", "'s3://***@bucket/f' is gone"),
        ("s3://AKIAX:geheim/f is gone", "s3://***/f is gone"),
        ("s3://AKIAX:123+geheim/f is gone", "s3://***/f is gone"),
        ("s3://geheim@bucket/f is gone", "s3://***@bucket/f is gone"),
        ("no http://127.0.0.1:9: refused", "no http://127.0.0.1:9: refused"),
        ('no "http://[::1]:9000/x"', 'no "http://[::1]:9000/x"'),
        ('{"url":"http://host","code":4}', '{"url":"http://host","code":4}'),
        ("https://host/a@b and me@host: c", "https://host/a@b and me@host: c"),
    ],
)
def test_secrets_are_found_in_what_is_told(text: str, told: str) -> None:
    assert scrubbed(text) == told


def test_a_bucket_that_is_not_there(bucket: str) -> None:
    with pytest.raises(UsageError, match=r"s3://nowhere-\w+/x: .*bucket does not exist; expected"):
        Remote(f"s3://nowhere-{uuid4().hex}/x").check()


def test_without_credentials(bucket: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for key in list(os.environ):
        if key.startswith("AWS_") and key not in (
            "AWS_ENDPOINT_URL_S3",
            "AWS_EC2_METADATA_DISABLED",
        ):
            monkeypatch.delenv(key)
    for key in ("AWS_SHARED_CREDENTIALS_FILE", "AWS_CONFIG_FILE"):
        monkeypatch.setenv(key, str(tmp_path / "none"))
    fsspec.get_filesystem_class("s3").clear_instance_cache()
    with pytest.raises(UsageError, match=r"Unable to locate credentials; .*see docs/files\.md"):
        Remote(f"{bucket}/x").check()


@pytest.mark.slow
def test_a_server_that_is_not_there(bucket: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", "http://127.0.0.1:9")
    fsspec.get_filesystem_class("s3").clear_instance_cache()
    with pytest.raises(UsageError, match="Could not connect to the endpoint"):
        Remote(f"{bucket}/x").check()


def test_a_package_that_is_not_installed() -> None:
    with pytest.raises(UsageError, match=r"needs? a package .*pip install 'fsspec\[gs\]'"):
        Remote("gs://bucket/x").check()
    with pytest.raises(UsageError, match="cannot keep files at odd://x: .*odd"):
        Remote("odd://x").check()
