"""What stages made on one machine is found on another, and a store that fails costs little."""

from __future__ import annotations

import os
import pickle
import time
from pathlib import Path

import pytest
import torch
from torch import nn

from parefront.errors import UsageError
from parefront.search import shared_entries
from parefront.search.cache_key import KEY_FILE, check_own_key
from parefront.search.remote import Remote
from parefront.search.stage_cache import Cached, StageCache
from parefront.spaces.stage import Form

HOUR = 3600.0


@pytest.fixture(params=["file", "s3"])
def remote(request: pytest.FixtureRequest, tmp_path: Path) -> Remote:
    if request.param == "s3":
        return Remote(f"{request.getfixturevalue('bucket')}/cache", waits=())
    return Remote(f"file://{tmp_path}/away", waits=())


def made(width: int = 8) -> Cached:
    torch.manual_seed(width)
    return Cached(nn.Linear(4, width), {"width": width})


class Fleet:
    """Machines with folders of their own, one store, and one key unless told otherwise."""

    def __init__(self, folder: Path, remote: Remote) -> None:
        self.folder = folder
        self.remote = remote

    def on(self, machine: str, *, key: str = "key", most: int = 10**9) -> StageCache:
        return StageCache(self.folder / machine, most, self.folder / key, self.remote)


@pytest.fixture
def fleet(tmp_path: Path, remote: Remote) -> Fleet:
    return Fleet(tmp_path, remote)


def test_what_was_dear_is_found_on_every_machine(fleet: Fleet) -> None:
    fleet.on("a").put("ab12", made(), HOUR)
    fleet.on("a").put_facts("cd34", {"worth": 0.5}, HOUR)
    other = fleet.on("b")
    found = other.get("ab12", Form.MODULE)
    assert found is not None
    assert found.achieved == {"width": 8}
    assert isinstance(found.model, nn.Linear)
    assert isinstance(model := made().model, nn.Linear)
    assert torch.equal(found.model.weight, model.weight)
    assert other.facts("cd34") == {"worth": 0.5}
    assert other.get("ef56", Form.MODULE) is None
    sent: StageCache = pickle.loads(pickle.dumps(other))  # noqa: S301 - to yet another machine
    sent.root = fleet.folder / "c"
    fleet.on("a").put("ef56", made(), HOUR)
    assert sent.get("ef56", Form.MODULE) is not None
    assert sent.get("ab12", Form.MODULE) is not None
    fleet.remote.remove(list(fleet.remote.listed()))
    assert fleet.on("b").get("ab12", Form.MODULE) is not None  # from its own folder


def test_what_is_made_anew_sooner_is_not_shared(fleet: Fleet) -> None:
    one = fleet.on("a")
    one.put("ab12", made(), 0.5)
    assert fleet.remote.listed() == {}
    assert one.get("ab12", Form.MODULE) is not None
    assert fleet.on("b").get("ab12", Form.MODULE) is None


def test_nothing_is_read_that_another_key_has_sealed(fleet: Fleet) -> None:
    fleet.on("a").put("ab12", made(8), HOUR)
    stranger = fleet.on("b", key="other")
    assert stranger.get("ab12", Form.MODULE) is None
    stranger.put("ab12", made(16), HOUR)  # beside the other, whose user still finds it
    for machine, key, width in (("c", "key", 8), ("d", "other", 16)):
        found = fleet.on(machine, key=key).get("ab12", Form.MODULE)
        assert found is not None
        assert found.achieved == {"width": width}
    for name in fleet.remote.listed():  # somebody with the store's credentials puts in a pickle
        path = fleet.folder / "evil"
        path.write_bytes(b"\0" * 32 + torch.randn(9).numpy().tobytes())
        fleet.remote.put(path, name)
    assert fleet.on("e").get("ab12", Form.MODULE) is None


def test_the_oldest_go_when_there_are_too_many(
    fleet: Fleet, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shared_entries, "_LOOK_SECONDS", 0.0)
    monkeypatch.setattr(shared_entries, "_LOOK_SHARE", 1e9)
    plenty = fleet.on("a")
    for number in range(4):
        plenty.put(f"k{number}", made(1000), HOUR)
        if number == 1:
            time.sleep(1.1)  # S3 counts seconds
    (size,) = {entry.size for entry in fleet.remote.listed().values()}
    fleet.on("b", most=4 * size).put("k4", made(1000), HOUR)
    left = [fleet.on("c").get(f"k{number}", Form.MODULE) is not None for number in range(5)]
    assert left == [False, False, True, True, True]


def test_what_is_used_does_not_seem_forgotten(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fleet = Fleet(tmp_path, Remote(f"file://{tmp_path}/away"))
    fleet.on("a").put("ab12", made(), HOUR)
    (path,) = (tmp_path / "away").rglob("*.stage")
    os.utime(path, (1e9, 1e9))
    assert fleet.on("b").get("ab12", Form.MODULE) is not None
    assert path.stat().st_mtime > time.time() - HOUR


def test_a_store_that_fails_is_left_alone_for_a_while(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fleet = Fleet(tmp_path, Remote(f"file://{tmp_path}/away", waits=()))
    asked = []
    real = Remote.listed

    def noted(self: Remote) -> object:
        asked.append(self.url)
        return real(self)

    monkeypatch.setattr(Remote, "listed", noted)
    (tmp_path / "away").write_text("not a folder")
    one = fleet.on("a")
    one.put("ab12", made(), HOUR)
    for _ in range(5):
        assert one.get("ab12", Form.MODULE) is not None
        assert one.get("cd34", Form.MODULE) is None
    assert asked == []
    (tmp_path / "away").unlink()
    monkeypatch.setattr(shared_entries, "_REST_SECONDS", 0.0)
    again = fleet.on("a")
    again.put("ab12", made(), HOUR)
    assert fleet.on("b").get("ab12", Form.MODULE) is not None


def test_the_key_is_the_one_that_the_environment_names(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def cache(machine: str) -> StageCache:
        return StageCache(tmp_path / machine, remote=Remote(f"file://{tmp_path}/away"))

    path = tmp_path / "secret"
    monkeypatch.setenv(KEY_FILE, str(path))
    for content, mode, reason in (
        (None, 0, "No such file"),
        (b"\1" * 31, 0o600, "has 31 bytes, and a key has 32 or more"),
        (b"\1" * 32, 0o640, "is not this user's alone"),
    ):
        if content is not None:
            path.write_bytes(content)
            path.chmod(mode)
        with pytest.raises(UsageError, match=f"{KEY_FILE} names a key .*{reason}"):
            check_own_key()
        cache("a").put("ab12", made(), HOUR)  # works on, and keeps nothing
        assert cache("a").get("ab12", Form.MODULE) is None
    path.chmod(0o600)
    check_own_key()
    cache("a").put("ab12", made(), HOUR)
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "another machine"))
    assert cache("b").get("ab12", Form.MODULE) is not None
    monkeypatch.delenv(KEY_FILE)
    assert cache("c").get("ab12", Form.MODULE) is None
    monkeypatch.setenv(KEY_FILE, str(tmp_path / "copy"))
    (tmp_path / "copy").write_bytes(path.read_bytes())
    (tmp_path / "copy").chmod(0o600)
    assert cache("d").get("ab12", Form.MODULE) is not None
