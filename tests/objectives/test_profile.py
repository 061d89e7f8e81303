"""Profiles: the rule on devices with a known truth, and measuring."""

from __future__ import annotations

import math
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from parefront.errors import MeasurementError, UsageError
from parefront.objectives.targets.device import Effort, Timing
from parefront.objectives.targets.fixed import FixedDevice
from parefront.objectives.targets.local import LocalDevice
from parefront.objectives.targets.profile import (
    MULTIPLES,
    TIE,
    Kind,
    Point,
    Profile,
    channel_multiple,
    waste,
)
from parefront.objectives.targets.profiling import KINDS, WIDTHS, measure_profile, small_model
from tests import profiles
from tests.profiles import Cost, cliff, points, steps

DEVICES: dict[str, tuple[Cost, int]] = {
    "linear": (steps(1), 1),
    "linear with a fixed cost": (steps(1, fixed=200.0), 1),
    "steps of 4": (steps(4), 4),
    "steps of 8": (steps(8), 8),
    "steps of 16": (steps(16), 16),
    "steps of 16 with a fixed cost": (steps(16, fixed=32.0), 16),
    "steps of 32": (steps(32), 32),
    "cliff at 2": (cliff(2), 2),
    "cliff at 4": (cliff(4), 4),
    "cliff at 4 on steps of 16": (lambda w: steps(16)(w) * cliff(4)(w) / w, 16),
}


class TestChannelMultiple:
    @pytest.mark.parametrize("name", DEVICES)
    def test_finds_the_truth(self, name: str) -> None:
        cost, truth = DEVICES[name]
        assert channel_multiple(profiles.profile({"conv": points(cost)})) == truth

    @pytest.mark.parametrize("name", [name for name in DEVICES if name != "steps of 4"])
    def test_finds_it_in_noise_nearly_always(self, name: str) -> None:
        cost, truth = DEVICES[name]
        found = [
            channel_multiple(profiles.profile({"conv": points(cost, noise=0.02, seed=seed)}))
            for seed in range(100)
        ]
        assert found.count(truth) >= 95

    def test_noise_alone_does_not_make_it_coarse(self) -> None:
        found = [
            channel_multiple(profiles.profile({"conv": points(steps(1), noise=0.1, seed=seed)}))
            for seed in range(100)
        ]
        assert found.count(1) >= 95

    @given(
        fixed=st.floats(0, 30),
        slope=st.floats(1e-3, 1e3),
        size=st.sampled_from((8, 16, 32)),
        extra=st.floats(1, 3),
        edge=st.sampled_from((1, 2, 4, 8)),
    )
    def test_steps_with_a_cliff_within_them(
        self, fixed: float, slope: float, size: int, extra: float, edge: int
    ) -> None:
        def cost(width: int) -> float:
            return slope * steps(size, fixed)(width) * (extra if width % edge else 1.0)

        assert channel_multiple(profiles.profile({"conv": points(cost)})) == size

    @given(
        ratios=st.lists(st.floats(0.1, 10), min_size=len(WIDTHS), max_size=len(WIDTHS)),
        noise=st.floats(1.0, 1.5),
        scale=st.floats(0.01, 100),
    )
    def test_any_profile_has_a_multiple_that_does_not_depend_on_the_reference(
        self, ratios: list[float], noise: float, scale: float
    ) -> None:
        def scaled(by: float) -> tuple[Point, ...]:
            return tuple(
                Point(width=w, ratio=r * by, low=r * by / noise, high=r * by * noise)
                for w, r in zip(sorted(WIDTHS), ratios, strict=True)
            )

        found = channel_multiple(profiles.profile({"conv": scaled(1.0)}))
        assert found in MULTIPLES
        for size in MULTIPLES[:-1]:
            one, other = ({p.width: p for p in scaled(by)} for by in (1.0, scale))
            assert waste(one, size, 2 * size) == pytest.approx(waste(other, size, 2 * size))

    def test_all_kinds_together_take_the_coarsest(self) -> None:
        kinds: dict[Kind, tuple[Point, ...]] = {
            "conv": points(steps(8)),
            "depthwise": points(cliff(4)),
            "linear": points(steps(1)),
        }
        profile = profiles.profile(kinds)
        assert [channel_multiple(profile, kind) for kind in kinds] == [8, 4, 1]
        assert channel_multiple(profile) == 8

    def test_a_waste_within_the_tie_is_none(self) -> None:
        def cost(share: float) -> Cost:
            return lambda width: width * (1 + share if width % 8 else 1.0)

        assert channel_multiple(profiles.profile({"conv": points(cost(0.9 * TIE))})) == 1
        assert channel_multiple(profiles.profile({"conv": points(cost(1.1 * TIE))})) == 8

    def test_never_goes_finer_than_was_measured(self) -> None:
        fine = points(steps(1), widths=(32, 48, 64, 96))
        assert channel_multiple(profiles.profile({"conv": fine})) == 16
        assert channel_multiple(profiles.profile({"conv": points(steps(1), widths=(64,))})) == 32

    def test_a_multiple_without_widths_is_passed_over(self) -> None:
        widths = (32, 64, 36, 44, 52)  # none of 16 or 8 between them
        smooth = points(steps(1), widths=widths)
        stepped = points(steps(16), widths=widths)
        assert channel_multiple(profiles.profile({"conv": smooth})) == 4
        assert channel_multiple(profiles.profile({"conv": stepped})) == 32

    def test_an_unknown_kind_is_an_error(self) -> None:
        with pytest.raises(KeyError):
            channel_multiple(profiles.profile(), "linear")


class TestWaste:
    def test_is_the_mean_logarithm_over_the_line(self) -> None:
        found = waste({p.width: p for p in points(steps(16))}, 8, 16)
        assert found is not None
        expected = [math.log(up / width) for width, up in ((40, 48), (56, 64), (72, 80), (88, 96))]
        assert found == pytest.approx((np.mean(expected), 0.0))

    def test_its_error_is_that_of_simulated_profiles(self) -> None:
        means, errors = [], []
        for seed in range(2000):
            found = waste({p.width: p for p in points(steps(8), noise=0.03, seed=seed)}, 4, 8)
            assert found is not None
            means.append(found[0])
            errors.append(found[1])
        assert np.std(means) == pytest.approx(np.mean(errors), rel=0.06)

    def test_needs_a_width_between_two_coarser_ones(self) -> None:
        assert waste({p.width: p for p in points(steps(1), widths=(48, 64))}, 16, 32) is None


def test_the_widths_tell_every_multiple_from_the_next() -> None:
    some = dict.fromkeys(WIDTHS, Point(width=1, ratio=1, low=1, high=1))
    for size in MULTIPLES[:-1]:
        assert waste(some, size, 2 * size) is not None


@dataclass
class SteppedDevice(FixedDevice):
    """A device whose latency is known from the inner width of what it is given."""

    cost: Cost
    efforts: list[Effort] = field(default_factory=list)
    baselines: set[str] = field(default_factory=set)
    fails_at: int | None = None

    def time(
        self,
        candidate: Path,
        baseline: Path,
        feeds: Mapping[str, Any],
        *,
        runtime: str,
        threads: int,
        effort: Effort,
    ) -> Timing:
        self.efforts.append(effort)
        self.baselines.add(baseline.name)
        if len(self.efforts) == self.fails_at:
            raise MeasurementError("it broke")
        for path in (candidate, baseline):
            (output,) = self.run(path, feeds, runtime=runtime, threads=threads, batch_size=1)
            assert np.isfinite(np.float64(output)).all()
        ratio = self.cost(inner_width(candidate)) / self.cost(inner_width(baseline))
        same = {"p50": 1.0, "p90": 1.0, "p99": 1.0}
        return Timing(
            ratio=ratio, ratio_low=0.99 * ratio, ratio_high=1.01 * ratio, candidate_ms=same,
            baseline_ms=same, blocks=5, runs=50, clock="cpu", rounds=1, disturbed=0,
        )  # fmt: skip


def inner_width(path: Path) -> int:
    """The width that the first layer of a file gives, from its weights."""
    shapes = {tuple(entry.dims) for entry in onnx.load(path).graph.initializer}
    biases = [shape[0] for shape in shapes if len(shape) == 1]
    inner = [width for width in biases if width not in (16, 64, 512)]
    return inner[0] if inner else 64


class TestMeasuring:
    @pytest.mark.parametrize(("size", "truth"), [(1, 1), (8, 8), (16, 16)])
    def test_a_device_is_recognised(self, size: int, truth: int) -> None:
        told: list[tuple[int, int, str]] = []
        device = SteppedDevice(steps(size))
        profile = measure_profile(
            device, "onnxruntime", 1, progress=lambda *words: told.append(words)
        )
        assert {kind: channel_multiple(profile, kind) for kind in KINDS} == dict.fromkeys(
            KINDS, truth
        )
        count = len(KINDS) * (len(WIDTHS) - 1)
        assert [done for done, _, _ in told] == list(range(count + 1))
        assert {total for _, total, _ in told} == {count}
        assert device.baselines == {f"{kind}-64.onnx" for kind in KINDS}
        for kind in KINDS:
            reference = next(p for p in profile.kinds[kind] if p.width == 64)
            assert (reference.low, reference.ratio, reference.high) == (1.0, 1.0, 1.0)
            assert [p.width for p in profile.kinds[kind]] == sorted(WIDTHS)

    def test_with_the_device_without_a_clock(self) -> None:
        device = FixedDevice()
        profile = measure_profile(device, "onnxruntime", 1, widths=(32, 48, 96), kinds=("linear",))
        assert profile.fingerprint == device.fingerprint("onnxruntime", 1)
        assert profile.created.tzinfo is not None
        (found,) = profile.kinds.values()
        ratios = [point.ratio for point in found]
        assert ratios == sorted(ratios)
        assert channel_multiple(profile) == 16  # a file has no steps, and 16 was the finest

    def test_the_effort_is_passed_on(self) -> None:
        device = SteppedDevice(steps(1))
        effort = Effort(runs=7, precision=0.5, seconds=0.1)
        measure_profile(device, "onnxruntime", 1, widths=(32,), kinds=("linear",), effort=effort)
        assert device.efforts == [effort]

    def test_a_failure_is_not_swallowed(self) -> None:
        device = SteppedDevice(steps(1), fails_at=2)
        with pytest.raises(MeasurementError, match="it broke"):
            measure_profile(device, "onnxruntime", 1, widths=(32, 33, 34), kinds=("conv",))

    def test_nothing_to_measure_is_an_error(self) -> None:
        with pytest.raises(UsageError, match="widths of at least 1"):
            measure_profile(FixedDevice(), "onnxruntime", 1, widths=(0, 32))
        with pytest.raises(UsageError, match="expected a kind"):
            measure_profile(FixedDevice(), "onnxruntime", 1, kinds=())
        with pytest.raises(UsageError, match="expected a runtime"):
            measure_profile(FixedDevice(), "none", 1)

    @pytest.mark.parametrize("kind", KINDS)
    def test_the_work_of_a_model_is_proportional_to_its_width(self, kind: Kind) -> None:
        def weights(width: int) -> int:
            return sum(p.numel() for p in small_model(kind, width)[0].parameters() if p.ndim > 1)

        assert weights(96) == 3 * weights(32)
        (module, example), (same, _) = small_model(kind, 33), small_model(kind, 33)
        assert torch.equal(module(example), same(example))

    def test_random_state_is_left_alone(self) -> None:
        before = torch.random.get_rng_state()
        small_model("conv", 3)
        assert torch.equal(torch.random.get_rng_state(), before)

    @pytest.mark.slow
    def test_on_this_machine(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))  # and a lock of its own
        profile = measure_profile(
            LocalDevice(), "onnxruntime", 1, widths=(8, 256), kinds=("linear",),
            effort=Effort(runs=50, precision=0.2, seconds=1.0),
        )  # fmt: skip
        small, reference, large = profile.kinds["linear"]
        assert small.ratio < reference.ratio < large.ratio
        assert list(tmp_path.glob("parefront-*/")) == []


class TestProfile:
    def test_refuses_what_is_no_profile(self) -> None:
        good = profiles.profile().model_dump()
        for key, value, message in (
            ("fingerprint_id", "000000000000", "expected the id"),
            ("reference", 1000, "with the reference 1000"),
            ("version", 2, "version"),
            ("kinds", {}, "at least 1 item"),
            ("kinds", {"conv": good["kinds"]["conv"][::-1]}, "ascending widths"),
            ("kinds", {"conv3d": good["kinds"]["conv"]}, "'conv', 'depthwise' or 'linear'"),
            ("created", "2026-03-05T14:30:00", "timezone"),
            ("more", 1, "Extra inputs"),
        ):
            with pytest.raises(ValidationError, match=message):
                Profile.model_validate(good | {key: value})

    @pytest.mark.parametrize(
        ("low", "ratio", "high"), [(2, 1, 3), (1, 3, 2), (0, 1, 2), (1, 1, math.inf)]
    )
    def test_refuses_what_is_no_interval(self, low: float, ratio: float, high: float) -> None:
        with pytest.raises(ValidationError):
            Point(width=1, low=low, ratio=ratio, high=high)
