"""Entries of the stage cache: found by what made them, sealed, and swept by worth."""

from __future__ import annotations

import copy
import os
import threading
import time
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from parefront.search.stage_cache import Cached, StageCache, chained
from parefront.search.stage_code import Undescribed, code_digest, object_digest
from parefront.spaces.distillation.recovery import RecoveryTraining
from parefront.spaces.lowrank.svd import Factorization
from parefront.spaces.pruning.channels import ChannelPruning
from parefront.spaces.stage import Form
from tests.exporting import export
from tests.zoo import make


def module(width: int = 8) -> nn.Module:
    torch.manual_seed(width)
    return nn.Sequential(nn.Linear(4, width), nn.ReLU(), nn.Linear(width, 2))


def made(width: int = 8) -> Cached:
    return Cached(module(width), {"width": width})


def test_a_module_comes_back_as_it_was(tmp_path: Path) -> None:
    cache, entry = StageCache(tmp_path), made()
    assert cache.get("ab12", Form.MODULE) is None
    cache.put("ab12", entry, 1.0)
    found = StageCache(tmp_path).get("ab12", Form.MODULE)
    assert found is not None
    assert found.achieved == {"width": 8}
    assert isinstance(found.model, nn.Module)
    assert isinstance(entry.model, nn.Module)
    assert object_digest(found.model) == object_digest(entry.model)
    x = torch.randn(3, 4)
    assert torch.equal(found.model(x), entry.model(x))
    assert found.model is not entry.model


def test_an_onnx_model_comes_back_as_it_was(tmp_path: Path) -> None:
    graph = export(*make("mlp"))
    cache = StageCache(tmp_path)
    cache.put("cd34", Cached(graph, {}), 1.0)
    found = cache.get("cd34", Form.ONNX)
    assert found is not None
    assert found.model == graph


@pytest.mark.parametrize("damage", ["flip", "cut", "empty", "renamed", "other key"])
def test_what_is_not_sealed_by_this_cache_is_not_read(damage: str, tmp_path: Path) -> None:
    cache = StageCache(tmp_path)
    cache.put("ab12", made(), 1.0)
    (path,) = tmp_path.glob("*/*.stage")
    content = path.read_bytes()
    if damage == "flip":
        path.write_bytes(content[:-9] + bytes([content[-9] ^ 1]) + content[-8:])
    elif damage == "cut":
        path.write_bytes(content[: len(content) // 2])
    elif damage == "empty":
        path.write_bytes(b"")
    elif damage == "other key":  # as when the folder was copied from another user
        cache = StageCache(tmp_path, keys=tmp_path / "other")
    key = "ab99" if damage == "renamed" else "ab12"
    if damage == "renamed":
        path.rename(path.with_name("ab99.stage"))
    assert cache.get(key, Form.MODULE) is None


def test_the_key_is_for_its_owner_alone_and_not_beside_the_entries(tmp_path: Path) -> None:
    cache = StageCache(tmp_path / "cache", keys=tmp_path / "keys")
    cache.put("ab12", made(), 1.0)
    (key,) = (tmp_path / "keys").iterdir()
    assert key.stat().st_mode & 0o077 == 0
    assert {path.suffix for path in (tmp_path / "cache").rglob("*.*")} == {".stage"}
    key.chmod(0o644)  # others may know it now
    assert cache.get("ab12", Form.MODULE) is None
    cache.put("cd34", made(), 1.0)
    assert cache.get("cd34", Form.MODULE) is None


def test_what_killed_writers_left_is_swept(tmp_path: Path) -> None:
    old, new = tmp_path / "aa/old.part", tmp_path / "aa/new.part"
    old.parent.mkdir()
    for path in (old, new):
        path.write_bytes(b"half")
    os.utime(old, (0, 0))
    StageCache(tmp_path).put("ab12", made(), 1.0)
    assert not old.exists()
    assert new.exists()


def test_what_cannot_be_pickled_is_left_out(tmp_path: Path) -> None:
    class Local(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x

    cache = StageCache(tmp_path)
    cache.put("ab12", Cached(Local(), {}), 1.0)
    assert cache.get("ab12", Form.MODULE) is None


def test_a_folder_that_takes_nothing_costs_nothing(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("not a folder")
    cache = StageCache(tmp_path / "file")
    cache.put("ab12", made(), 1.0)
    assert cache.get("ab12", Form.MODULE) is None


def test_the_least_valuable_entries_go_first(tmp_path: Path) -> None:
    size = 100_000

    def put(cache: StageCache, key: str, seconds: float, width: int = 4000) -> None:
        cache.put(key, made(width), seconds)

    plenty = StageCache(tmp_path)
    put(plenty, "aa", 10.0)
    put(plenty, "bb", 1.0)
    put(plenty, "cc", 10.0)
    month_ago = time.time() - 30 * 86_400
    (old,) = tmp_path.glob("cc/*.stage")
    os.utime(old, (month_ago, month_ago))
    sizes = [path.stat().st_size for path in tmp_path.glob("*/*.stage")]
    assert min(sizes) > size
    tight = StageCache(tmp_path, most_bytes=sum(sizes) // 3 * 2 + size)
    put(tight, "dd", 100.0)
    left = {path.stem for path in tmp_path.glob("*/*.stage")}
    assert "dd" in left
    assert "aa" in left
    assert not {"bb", "cc"} <= left


def test_several_writers_share_a_cache(tmp_path: Path) -> None:
    def work(index: int) -> None:
        for turn in range(5):
            StageCache(tmp_path).put(f"k{turn}", made(8 + turn), float(index))

    threads = [threading.Thread(target=work, args=(index,)) for index in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for turn in range(5):
        found = StageCache(tmp_path).get(f"k{turn}", Form.MODULE)
        assert found is not None
        assert found.achieved == {"width": 8 + turn}
    assert not list(tmp_path.glob("**/*.part"))


def test_a_key_depends_on_every_part() -> None:
    keys = {
        chained("a", "prune", {"ratio": 0.5}),
        chained("b", "prune", {"ratio": 0.5}),
        chained("a", "prune", {"ratio": 0.6}),
        chained("a", "prune", {"ratio": 0.5}, 1),
    }
    assert len(keys) == 4
    assert chained("a", {"x": 1, "y": 2}) == chained("a", {"y": 2, "x": 1})


def test_a_module_is_told_by_its_structure_and_every_number() -> None:
    first, second = module(), module()
    assert object_digest(first) == object_digest(second)
    with torch.no_grad():
        next(iter(second.parameters()))[0, 0] += 1e-6
    assert object_digest(first) != object_digest(second)
    assert object_digest(nn.ReLU()) != object_digest(nn.Tanh())


def scaled(loss: Any, factor: float) -> Any:
    def scaled_loss(outputs: Any, targets: Any) -> Any:
        return factor * loss(outputs, targets)

    return scaled_loss


class Scaled(nn.Module):
    shift: torch.Tensor

    def __init__(self, scale: float) -> None:
        super().__init__()
        self.scale = scale
        self.register_buffer("shift", torch.zeros(2), persistent=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x * self.scale + self.shift


def shifted() -> Scaled:
    found = Scaled(1.0)
    found.shift += 1
    return found


CHANGES: dict[str, tuple[Any, Any]] = {
    "bound arguments": (partial(scaled, factor=1.0), partial(scaled, factor=2.0)),
    "attributes": (nn.CrossEntropyLoss(), nn.CrossEntropyLoss(label_smoothing=0.1)),
    "closures": (scaled(len, 1.0), scaled(len, 2.0)),
    "a closure's function": (scaled(len, 1.0), scaled(sum, 1.0)),
    "a block's attribute": (nn.Sequential(Scaled(1.0)), nn.Sequential(Scaled(2.0))),
    "a buffer that is not saved": (nn.Sequential(Scaled(1.0)), nn.Sequential(shifted())),
    "defaults": (lambda x=1: x, lambda x=2: x),
    "code": (lambda x: x, lambda x: x + 1),
    "methods of another": (Scaled(1.0).forward, Scaled(2.0).forward),
    "arrays": ([np.zeros(2)], [np.ones(2)]),
}


@pytest.mark.parametrize("name", CHANGES)
def test_what_works_otherwise_has_another_digest(name: str) -> None:
    first, second = CHANGES[name]
    assert object_digest(first) != object_digest(second)
    assert object_digest(first) == object_digest(copy.deepcopy(first))


def test_what_cannot_be_told_has_none(tmp_path: Path) -> None:
    with (tmp_path / "open").open("w") as file, pytest.raises(Undescribed):
        object_digest(partial(scaled, file))


def test_how_a_module_is_used_is_no_part_of_it() -> None:
    assert object_digest(module().train()) == object_digest(module().eval())


def test_the_code_of_a_stage_is_its_own() -> None:
    digests = {code_digest(kind) for kind in (ChannelPruning, Factorization, RecoveryTraining)}
    assert len(digests) == 3
    assert code_digest(ChannelPruning) == code_digest(ChannelPruning)


def test_one_byte_of_code_is_another_digest(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package = tmp_path / "stagecode"
    package.mkdir()
    (package / "__init__.py").write_text("")
    (package / "a.py").write_text("class A:\n    x = 1\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    from importlib import import_module

    kind = import_module("stagecode.a").A
    before, source = code_digest(kind), object_digest(kind)
    (package / "a.py").write_text("class A:\n    x = 2\n")
    assert code_digest(kind) != before
    import linecache

    linecache.checkcache()
    assert object_digest(kind) != source


def test_shared_code_counts_for_all_who_import_it(monkeypatch: pytest.MonkeyPatch) -> None:
    from parefront.search import stage_code

    before = {kind: code_digest(kind) for kind in (ChannelPruning, Factorization)}
    real = stage_code._source

    def changed(name: str) -> bytes:
        return real(name) + (b"#" if name == "parefront.spaces.pruning.groups" else b"")

    monkeypatch.setattr(stage_code, "_source", changed)
    assert code_digest(ChannelPruning) != before[ChannelPruning]
    assert code_digest(Factorization) == before[Factorization]
