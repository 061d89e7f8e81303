"""What a worker reports when it cannot be prepared, without Ray."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from parefront.errors import CertificateError
from parefront.search.engines.ray.talk import Kind, Report
from parefront.search.launch import Stop

pytest.importorskip("ray")

from parefront.search.engines.ray import trainable
from parefront.search.engines.ray.job import Job
from parefront.search.engines.ray.trainable import Evaluation


@pytest.mark.parametrize(
    ("raised", "told"),
    [
        (FileNotFoundError(2, "No such file", "data.npz"), "TrialError"),  # not so elsewhere, maybe
        (CertificateError("no such"), "CertificateError"),
        (ZeroDivisionError("of the test"), "EngineError"),
    ],
)
def test_a_worker_that_cannot_be_prepared_says_whose_fault_it_is(
    raised: Exception, told: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def pipeline(signs: Stop) -> Any:
        raise raised

    job = SimpleNamespace(
        plan=SimpleNamespace(settings=SimpleNamespace(engine=SimpleNamespace(cpus=1))),
        devices={},
        pipeline=pipeline,
    )
    monkeypatch.setattr(Job, "unpacked", lambda content: job)
    monkeypatch.setattr(trainable, "training_cores", lambda devices: [])
    monkeypatch.setattr(trainable, "pin", lambda cores: None)
    monkeypatch.setattr(torch, "set_num_threads", lambda threads: None)
    monkeypatch.chdir(tmp_path)
    worker = Evaluation.__new__(Evaluation)  # Tune's own part of it needs a cluster
    worker.setup({"gates": False, "rungs": []}, b"")
    report = Report.model_validate_json(worker.step()["report"])
    assert report.kind == Kind.BROKEN
    assert report.error is not None
    kind, message = report.error
    assert kind == told
    assert str(raised) in message
    worker.cleanup()
