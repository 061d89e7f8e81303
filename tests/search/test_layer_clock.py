"""Layers that are timed by themselves."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import parefront as pf
from parefront.errors import StageError
from parefront.objectives.targets.device import Timing
from parefront.objectives.targets.fixed import FixedDevice
from parefront.objectives.targets.runtime import Feeds
from parefront.objectives.targets.target import Target
from parefront.search.layer_clock import LayerClock
from parefront.search.stage_cache import StageCache
from tests import tiny
from tests.search.pipelines import pipeline

CONFIG = {"rank": "latency", "ratio": 0.6, "multiple": 1, "layers": "all"}


class Two(nn.Module):
    """Two equal layers, one that is never called, and one that is called by keyword."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(256, 256), nn.Linear(256, 256)
        self.idle, self.named = nn.Linear(256, 256), nn.Linear(256, 256)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.second(self.first(x)) + self.named(input=x)  # type: ignore[no-any-return]


def thin(rank: int) -> nn.Module:
    return nn.Sequential(nn.Linear(256, rank, bias=False), nn.Linear(rank, 256))


class Counting(FixedDevice):
    """Counts what is timed, and notes the shapes of what it is fed."""

    def __init__(self) -> None:
        self.shapes: list[tuple[int, ...]] = []

    def time(self, candidate: Path, baseline: Path, feeds: Feeds, **how: Any) -> Timing:
        self.shapes.append(feeds["input"].shape)
        return super().time(candidate, baseline, feeds, **how)


def clock(device: FixedDevice, batch: int = 1) -> LayerClock:
    target = Target(protocol="fixed", batch_size=batch)
    return LayerClock(device, target, (torch.randn(batch, 256),), "key")


def test_the_ratio_is_that_of_the_layers_alone() -> None:
    # The fixed device takes a nanosecond a byte: 2 * 32 * 256 weights for 256 * 256.
    ratio = clock(FixedDevice())(Two().eval(), "first", thin(32))
    assert ratio == pytest.approx(2 * 32 / 256, abs=0.02)


def test_equal_layers_are_timed_once_at_the_batch_size_of_the_target() -> None:
    device = Counting()
    timed, model = clock(device, batch=3), Two().eval()
    ratios = [timed(model, name, thin(32)) for name in ("first", "second", "first")]
    assert len(set(ratios)) == 1
    timed(model, "first", thin(64))
    assert device.shapes == [(3, 256), (3, 256)]


@pytest.mark.parametrize("name", ["idle", "named"])
def test_what_is_not_called_with_one_tensor_is_said(name: str) -> None:
    with pytest.raises(StageError, match=f"{name} is not called with one tensor"):
        clock(FixedDevice())(Two().eval(), name, thin(32))


def test_what_cannot_be_exported_by_itself_is_said() -> None:
    class Odd(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            raise ValueError("not today")

    with pytest.raises(StageError, match="first cannot be timed by itself: .*not today"):
        clock(FixedDevice())(Two().eval(), "first", Odd())


def test_a_study_takes_ranks_from_the_latency_of_layers(tmp_path: Path) -> None:
    study = pf.Study(
        tiny.task,
        name="timed",
        storage=f"sqlite:///{tmp_path / 'studies.db'}",
        target={"protocol": "fixed"},
        space={"factorize": {"rank": "latency", "multiple": 1}},
        start=[{"factorize": CONFIG}],
        trials=2,
    ).optimize()
    frame = study.frame()
    assert list(frame["state"]) == ["complete", "complete"]
    achieved = frame["achieved"][1]["factorize"]
    assert set(achieved["latency"]) == {"0", "2", "5"}
    assert achieved["ranks"]


def test_what_was_timed_on_one_device_is_not_taken_for_another(tmp_path: Path) -> None:
    cache = StageCache(tmp_path / "cache", keys=tmp_path / "keys")
    ready = pipeline(tmp_path, tiny.task, {"factorize": {"rank": "latency"}}, cache=cache).builder
    candidate = ready.space.candidate({"factorize": CONFIG})
    timings = []
    for key in ("one", "one", "other"):
        device = Counting()
        timer = LayerClock(device, ready.target, ready.task.example, key)
        replace(ready, clock=timer).build(candidate, tmp_path / "a.onnx", trained=False)
        timings.append(len(device.shapes))
    assert timings[0] == timings[2] > 0
    assert timings[1] == 0


def test_studies_with_other_batch_sizes_do_not_share_timings(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    timed: list[int] = []

    def ratio(self: LayerClock, layer: nn.Module, thin: nn.Module, given: torch.Tensor) -> float:
        timed.append(len(given))
        return 0.5

    monkeypatch.setattr(LayerClock, "_ratio", ratio)
    for number, batch in enumerate((1, 1, 4)):
        pf.Study(
            tiny.task,
            name=f"timed-{number}",
            storage=f"sqlite:///{tmp_path / 'studies.db'}",
            target={"protocol": "fixed", "batch_size": batch},
            space={"factorize": {"rank": "latency", "multiple": 1}},
            start=[{"factorize": CONFIG}],
            trials=2,
        ).optimize()
    assert set(timed) == {1, 4}
    assert timed.count(1) == timed.count(4)  # the second study had what the first one found
