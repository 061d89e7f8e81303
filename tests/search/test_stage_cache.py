"""Entries of the stage cache: found by what made them, sealed, and swept by worth."""

from __future__ import annotations

import os
import threading
import time
from pathlib import Path

import pytest
import torch
from torch import nn

from parefront.search.stage_cache import Cached, StageCache, chained, module_digest
from parefront.search.stage_code import code_digest, object_digest
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
    assert module_digest(found.model) == module_digest(entry.model)
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
    elif damage == "other key":
        (tmp_path / "key").write_bytes(os.urandom(32))
    key = "ab99" if damage == "renamed" else "ab12"
    if damage == "renamed":
        path.rename(path.with_name("ab99.stage"))
    assert cache.get(key, Form.MODULE) is None


def test_the_key_is_for_its_owner_alone(tmp_path: Path) -> None:
    StageCache(tmp_path).put("ab12", made(), 1.0)
    assert (tmp_path / "key").stat().st_mode & 0o077 == 0


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
    assert module_digest(first) == module_digest(second)
    with torch.no_grad():
        next(iter(second.parameters()))[0, 0] += 1e-6
    assert module_digest(first) != module_digest(second)
    assert module_digest(nn.ReLU()) != module_digest(nn.Tanh())


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
