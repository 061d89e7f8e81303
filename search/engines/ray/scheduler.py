"""What Tune tells of its trials: the launch judges, and ends what hangs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import ray
from ray.tune import Callback, Stopper
from ray.tune.experiment import Trial
from ray.tune.schedulers import FIFOScheduler, TrialScheduler

from parefront.search.engines.ray.conductor import Conductor
from parefront.search.engines.ray.talk import Report


class DeskScheduler(FIFOScheduler):
    """Has the launch judge what trials report, in the order in which reports come.

    A trial that is to stop half-way is told so before its next step, and ends itself there: what it
    leaves is the same as without Tune. No other trial is waited for.

    Args:
        conductor: Knows the trials.
    """

    def __init__(self, conductor: Conductor) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._conductor = conductor

    def on_trial_result(self, tune_controller: object, trial: Trial, result: dict[str, Any]) -> str:  # noqa: ARG002
        """Answers a report; stops a trial that is over."""
        report = Report.model_validate_json(result["report"])
        answer = self._conductor.hear(trial.trial_id, report)
        actor = trial.temporary_state.ray_actor
        if answer is not None and actor is not None:
            actor.answer.remote(answer.model_dump_json())
        return str(TrialScheduler.STOP if report.outcome is not None else TrialScheduler.CONTINUE)

    def on_trial_error(self, tune_controller: object, trial: Trial) -> None:  # noqa: ARG002
        """Records that a worker is gone."""
        path = trial.error_file
        how = Path(path).read_text() if path and Path(path).is_file() else "its worker is gone"
        self._conductor.died(trial.trial_id, how)


class Gone(BaseException):
    """The cluster is gone; Tune is left as it stands, since it would wait for actors to end."""


class Lookout(Callback):
    """Looks after the trials at each step of Tune.

    Args:
        conductor: Knows the trials.
    """

    def __init__(self, conductor: Conductor) -> None:
        self._conductor = conductor

    def on_step_begin(self, iteration: int, trials: list[Trial], **info: object) -> None:  # noqa: ARG002
        """Ends the workers of trials that take too long or hang, and those of no use.

        Raises:
            Gone: If the cluster is gone.
        """
        late = set(self._conductor.overdue())
        if self._conductor.stranded:
            raise Gone
        for trial in trials if late else ():
            actor = trial.temporary_state.ray_actor
            if trial.trial_id in late and actor is not None:
                ray.kill(actor)


class Leaving(Stopper):
    """Ends everything at once when a conductor says so.

    Args:
        conductor: Says so.
    """

    def __init__(self, conductor: Conductor) -> None:
        self._conductor = conductor

    def __call__(self, trial_id: str, result: dict[str, Any]) -> bool:  # noqa: ARG002
        """No trial by itself."""
        return False

    def stop_all(self) -> bool:
        """Whether to leave."""
        return self._conductor.over

    def __getstate__(self) -> dict[str, Any]:
        """Nothing to keep: Tune's own records are not read again."""
        return {}
