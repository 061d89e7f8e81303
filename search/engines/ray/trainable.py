"""The worker: an actor of Tune that evaluates one candidate after another, its pipeline warm."""

from __future__ import annotations

import os
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor, wait
from typing import Any

import torch
from ray.tune import Trainable

from parefront.errors import ParefrontError
from parefront.search.engines.ray.cores import pin
from parefront.search.engines.ray.devices import training_cores
from parefront.search.engines.ray.job import Job
from parefront.search.engines.ray.talk import (
    Answer,
    AskingChecks,
    Kind,
    Line,
    Report,
    tune_result,
)
from parefront.search.launch import Stop
from parefront.search.pipeline import Interrupted, Pipeline
from parefront.spaces.space import Candidate

_PATIENCE = 2.0
"""Seconds that a trial which is left has until its next tick."""


class _Signs(Stop):
    """Shows signs of life of what takes long without a tick, such as a measurement."""

    def __init__(self, worker: Evaluation) -> None:
        super().__init__()
        self._worker = worker

    def attend(self) -> None:
        """Signs for the trial under way."""
        self._worker.line.sign()


class Evaluation(Trainable):
    """Evaluates candidates in a thread of its own, and reports what comes from there.

    The pipeline is made for the first candidate and kept for those that follow.
    """

    def setup(self, config: dict[str, Any], job: bytes = b"") -> None:
        """Begins with the first candidate; `job` is a `Job`."""
        self._job = Job.unpacked(job)
        self._pipeline: Pipeline | None = None
        self.line = Line()
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="trial")
        self._begin(config)

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        """Begins with another candidate; the one before is over."""
        if not self._over():
            return False
        self.line = Line()
        self._begin(new_config)
        return True

    def step(self) -> dict[str, Any]:
        """The next report of the trial."""
        return tune_result(self.line.next())

    def answer(self, content: str) -> None:
        """Takes the answer to the last report."""
        self.line.answer(Answer.model_validate_json(content))

    def cleanup(self) -> None:
        """Leaves the trial under way; what does not let itself be left ends with the process."""
        self.line.leave()
        if not self._over():
            os._exit(1)

    def _begin(self, config: Mapping[str, Any]) -> None:
        self._running = self._thread.submit(self._evaluate, self.line, dict(config))

    def _over(self) -> bool:
        return not wait([self._running], timeout=_PATIENCE).not_done

    def _evaluate(self, line: Line, config: Mapping[str, Any]) -> None:
        settings = self._job.plan.settings
        try:
            if self._pipeline is None:
                # Where a device of the search is too, its cores are not for training.
                pin(training_cores(self._job.devices.values()))
                torch.set_num_threads(max(1, int(settings.engine.cpus)))
                self._pipeline = self._job.pipeline(_Signs(self))
            pipeline = self._pipeline
            line.tell(Report(kind=Kind.BEGAN))
            tick = line.ticking(settings.study.trial_time)
            checks = AskingChecks(line, gates=config["gates"], rungs=tuple(config["rungs"]))
            outcome = pipeline.evaluate(Candidate.of(config["candidate"]), tick, checks)
            line.tell(Report(kind=Kind.OUTCOME, outcome=outcome))
        except Interrupted:
            pass
        except ParefrontError as error:
            line.tell(Report(kind=Kind.BROKEN, error=(type(error).__name__, str(error))))
        except OSError as error:  # of this machine, such as a file that only others have
            line.tell(Report(kind=Kind.BROKEN, error=("TrialError", _named(error))))
        except BaseException as error:  # noqa: BLE001 - else the launch would wait for ever
            line.tell(Report(kind=Kind.BROKEN, error=("EngineError", _named(error))))


def _named(error: BaseException) -> str:
    return f"{type(error).__name__}: {error}"
