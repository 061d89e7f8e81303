"""The files an agent keeps."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from parefront.objectives.targets.agent.refusal import Refusal
from parefront.objectives.targets.agent.store import Store


def add(store: Store, content: bytes) -> str:
    name = hashlib.sha256(content).hexdigest() + ".onnx"
    send(store, name, content, len(content))
    return name


def send(store: Store, name: str, content: bytes, length: int) -> None:
    with store.upload(name, length) as upload:
        upload.write(content)
        upload.finish()


def test_files_in_use_are_never_removed(tmp_path: Path) -> None:
    store = Store(tmp_path / "files", quota=100, longest=100)
    first, second = add(store, b"a" * 40), add(store, b"b" * 40)
    with store.hold([first]), store.hold([first, second]):
        with pytest.raises(Refusal, match="100 bytes, 80 bytes of it is in use") as refused:
            store.check(30)
        assert refused.value.status == 507
        with pytest.raises(Refusal, match="in use"):
            add(store, b"c" * 30)
    with store.hold([first]):  # the longest unused, but in use again
        third = add(store, b"c" * 60)
        assert store.missing([first, second, third]) == [second]
    add(store, b"d" * 100)
    assert store.missing([first, third]) == [first, third]
    with pytest.raises(KeyError), store.hold([first]):
        pass
    store.close()


def test_uploads_under_way_count(tmp_path: Path) -> None:
    store = Store(tmp_path / "files", quota=100, longest=100)
    with store.upload("0" * 64 + ".onnx", 60) as upload:
        upload.write(b"x" * 10)
        with pytest.raises(Refusal, match="60 bytes of it is in use"):
            store.check(50)
        store.check(40)
    store.check(100)  # it was not finished, and gave back its room
    assert [path.name for path in store.folder.iterdir()] == [".lock"]
    store.close()


def test_files_outlive_the_agent_in_the_order_of_their_use(tmp_path: Path) -> None:
    store = Store(tmp_path / "files", quota=100, longest=100)
    names = [add(store, letter * 30) for letter in (b"a", b"b", b"c")]
    assert names[0] in store
    store.close()
    again = Store(tmp_path / "files", quota=100, longest=100)
    assert again.missing(names) == []
    again.close()
    last = Store(tmp_path / "files", quota=100, longest=100)
    add(last, b"d" * 30)
    assert last.missing(names) == [names[0]]
    last.close()


@pytest.mark.parametrize(
    ("content", "length", "reason"),
    [
        (b"short", 9, "expected 9 bytes, got 5"),
        (b"too long", 3, "expected 3 bytes, got more"),
        (b"another", 7, "expected a file with SHA-256 0000"),
    ],
)
def test_what_is_not_as_announced_is_not_kept(
    content: bytes, length: int, reason: str, tmp_path: Path
) -> None:
    store = Store(tmp_path / "files", quota=100, longest=100)
    with pytest.raises(Refusal, match=reason):
        send(store, "0" * 64 + ".onnx", content, length)
    assert [path.name for path in store.folder.iterdir()] == [".lock"]
    store.close()
