from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydantic import ValidationError

from parefront.errors import MeasurementError, UsageError
from parefront.objectives.targets.agent.remote import RemoteDevice
from parefront.objectives.targets.catalog import RUNTIMES
from parefront.objectives.targets.device import Effort
from parefront.objectives.targets.fixed import FixedDevice
from parefront.objectives.targets.local import LocalDevice
from parefront.objectives.targets.target import Target
from tests.zoo import make

CORES = len(os.sched_getaffinity(0))


def test_an_empty_section_is_a_target() -> None:
    target = Target()
    assert (target.runtime, target.threads, target.batch_size) == ("onnxruntime", 1, 1)
    assert (target.device, target.protocol, target.finalists) == (None, "timed", ())
    assert target.effort == Effort()
    assert Target.model_validate_json(target.model_dump_json()) == target


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("runtime", "onxruntime", "got 'onxruntime'; did you mean 'onnxruntime'"),
        ("threads", 0, "greater than or equal to 1"),
        ("batch_size", 0, "greater than or equal to 1"),
        ("runs", 0, "greater than or equal to 1"),
        ("timeout", 0.0, "greater than 0"),
        ("timeout", float("inf"), "finite"),
        ("protocol", "guessed", "'timed' or 'fixed'"),
        ("precision", 0.0, "greater than 0"),
        ("seconds", float("inf"), "finite"),
        ("finalists", ["openvin"], "did you mean 'openvino'"),
        ("device", "pi.local:8765", "should match pattern"),
        ("device", "http://pi.local:8765", "a device needs token_file"),
        ("token_file", "t", "name it too"),
        ("speed", 3, "Extra inputs are not permitted"),
    ],
)
def test_impossible_targets_are_refused(field: str, value: Any, message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        Target.model_validate({field: value})


def test_a_device_elsewhere_has_its_own_cores_and_its_files_beside_the_study(
    tmp_path: Path,
) -> None:
    target = Target(device="http://pi:1", token_file=Path("t"), threads=CORES + 1)
    assert target.beside(tmp_path).token_file == tmp_path / "t"
    assert target.beside(tmp_path).certificate is None
    assert target.beside(tmp_path / "a").beside(tmp_path).token_file == tmp_path / "a/t"
    (tmp_path / "t").write_text("secret-secret-secret-secret-secret\n")
    (tmp_path / "t").chmod(0o600)
    there = target.beside(tmp_path)
    assert isinstance(there.open(), RemoteDevice)
    assert there.open() is there.open()
    assert target.here().device is None
    assert "pi:1" in there.describe()
    with pytest.raises(ValidationError, match="takes no device"):
        Target(device="http://pi:1", token_file=Path("t"), protocol="fixed")


def test_more_threads_than_cores_can_be_read_about_and_not_be_used() -> None:
    target = Target(threads=CORES + 1)
    with pytest.raises(UsageError, match=f"expected at most {CORES} threads, one for each core"):
        target.open()
    assert target.here().threads == CORES


def test_the_protocol_picks_the_device() -> None:
    local = Target(timeout=7).open()
    assert isinstance(local, LocalDevice)
    assert local.timeout == 7
    assert isinstance(Target(protocol="fixed").open(), FixedDevice)


def test_a_fixed_device_counts_bytes(tmp_path: Path) -> None:
    small, large = tmp_path / "small", tmp_path / "large"
    small.write_bytes(b"x" * 1000)
    large.write_bytes(b"x" * 4000)
    device = FixedDevice()
    timing = device.time(small, large, {}, runtime="onnxruntime", threads=1, effort=Effort())
    assert (timing.ratio, timing.ratio_low, timing.ratio_high) == (0.25, 0.25, 0.25)
    assert timing.candidate_ms["p50"] == pytest.approx(0.001)
    assert timing.baseline_ms["p99"] == pytest.approx(0.004)
    assert (timing.clock, timing.runs) == ("fixed", 0)
    reference = device.reference_ms(large, {}, runtime="onnxruntime", threads=1)
    assert reference == pytest.approx(0.004)


def test_a_fixed_device_needs_files(tmp_path: Path) -> None:
    with pytest.raises(MeasurementError, match=r"cannot read none: No such file"):
        FixedDevice().reference_ms(tmp_path / "none", {}, runtime="onnxruntime", threads=1)
    (tmp_path / "empty").touch()
    with pytest.raises(MeasurementError, match="empty is empty"):
        FixedDevice().reference_ms(tmp_path / "empty", {}, runtime="onnxruntime", threads=1)


def test_a_fixed_device_really_runs_files(tmp_path: Path) -> None:
    module, context = make("mlp")
    runtime = RUNTIMES["onnxruntime"]
    runtime.build(module, context.example, ["input"], tmp_path / "m.onnx")
    ((x,), _), *_ = context.train.batches(10)
    (output,) = FixedDevice().run(
        tmp_path / "m.onnx", {"input": x.numpy()}, runtime="onnxruntime", threads=1, batch_size=4
    )
    np.testing.assert_allclose(output, module(x).detach().numpy(), rtol=1e-4, atol=1e-5)  # type: ignore[arg-type]


def test_a_fixed_device_knows_no_machine() -> None:
    facts = FixedDevice().fingerprint("onnxruntime", 1)
    assert facts["device"] == "fixed"
    assert set(facts) == {"device", "runtime", "runtime_version", "threads"}
