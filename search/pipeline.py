"""The trial pipeline: what is cheap to know first, then training, then what it is all for."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Protocol

import torch
from torch import nn

from parefront.errors import AgentError, ArtifactError, DeviceAwayError, StageError, TrialError
from parefront.objectives.artifact import Artifact
from parefront.objectives.measurement import Measurement
from parefront.objectives.objective import Scene
from parefront.objectives.targets.catalog import runtime
from parefront.search.builder import Builder, Watch
from parefront.search.measures import Measure
from parefront.search.metrics import Metric
from parefront.search.records import Outcome, Rung, Status
from parefront.search.rungs import EarlyStopped
from parefront.search.scenes import SCORING_BATCH
from parefront.search.stage_cache import chained
from parefront.search.stage_code import Undescribed, object_digest
from parefront.search.store import ArtifactStore
from parefront.spaces.space import Candidate

COARSE = 1 / 3
"""Time for a latency before training, as a share of that of a latency that is kept."""


PACKING = 0.2
"""How far, as a share, training may change the bytes of a file whose weights are packed: 15 % was
the most that was seen, of ternary weights trained at a high rate."""


class Interrupted(Exception):  # noqa: N818 - not an error
    """The trial was told to stop; its candidate is to be tried again."""


class Checks(Protocol):
    """Decides whether a trial is worth going on with."""

    @property
    def gates(self) -> bool:
        """Whether `hopeless` ever says so."""
        ...

    @property
    def rungs(self) -> tuple[float, ...]:
        """Shares of a training at which `judge` is asked; none for training to the end."""
        ...

    def hopeless(self, candidate: Candidate, known: Mapping[str, Measurement]) -> str | None:
        """Why a candidate cannot reach the front, or `None` if it may.

        Args:
            candidate: The candidate, which is not trained yet.
            known: What was measured of it by now, by objective.
        """
        ...

    def judge(self, share: float, values: Mapping[str, float]) -> Rung:
        """Whether training goes on.

        Args:
            share: Share of the training that is done.
            values: Objectives by name, as far as they are known.
        """
        ...


class NoChecks:
    """Every trial goes on to its end."""

    gates = False
    rungs: tuple[float, ...] = ()

    def hopeless(
        self,
        candidate: Candidate,  # noqa: ARG002
        known: Mapping[str, Measurement],  # noqa: ARG002
    ) -> str | None:
        """Never."""
        return None

    def judge(self, share: float, values: Mapping[str, float]) -> Rung:
        """Always."""
        return Rung(share=share, values=values, rivals=0, promoted=True)


@dataclass
class _Trial:
    """One evaluation under way.

    Attributes:
        candidate: The candidate.
        path: Where its artifact is written.
        tick: Called between short steps of work.
        checks: Decides whether it goes on.
        training: Key of what its training makes; `None` if nothing is trained.
        watch: Takes the seconds of each step.
        known: What was measured before training.
        rungs: What it was worth in the middle of its training.
    """

    candidate: Candidate
    path: Path
    tick: Callable[[], None]
    checks: Checks
    training: str | None
    watch: Watch = field(default_factory=Watch)
    known: dict[str, Measurement] = field(default_factory=dict)
    rungs: list[Rung] = field(default_factory=list)


class Pipeline:
    """Evaluates candidates, cheap measurements before dear ones.

    Args:
        builder: Turns candidates into artifacts.
        scenes: What objectives measure with, by target.
        store: Keeps the artifacts.
        measures: What is measured.
    """

    def __init__(
        self,
        builder: Builder,
        scenes: Mapping[str | None, Scene],
        store: ArtifactStore,
        measures: Sequence[Measure],
    ) -> None:
        self.builder = builder
        self.scenes = scenes
        self.store = store
        self.measures = measures
        self.bounds = {each.name: each.goal for each in measures if each.goal.bounded}
        self.format = runtime(builder.target.runtime).format
        self._metric = _told(builder.task.metric)

    def evaluate(
        self, candidate: Candidate, tick: Callable[[], None], checks: Checks | None = None
    ) -> Outcome:
        """Builds and measures a candidate; whatever goes wrong is the outcome.

        Args:
            candidate: The candidate.
            tick: Called between short steps of work.
            checks: Decides whether it is worth going on; by default it is.

        Raises:
            Interrupted: If `tick` did.
        """
        try:
            with self.store.scratch() as folder:
                path = folder / f"candidate.{self.format}"
                training = self.builder.training(candidate)
                trial = _Trial(candidate, path, tick, checks or NoChecks(), training)
                return self._evaluated(trial)
        except ArtifactError as error:  # there is no room for scratch
            return Outcome(status=Status.FAILED, reason=str(error))

    def _evaluated(self, trial: _Trial) -> Outcome:
        try:
            return self._before_training(trial) or self._measured(trial)
        except EarlyStopped:
            last = trial.rungs[-1]
            reason = (
                f"stopped after {last.share:.0%} of its training: of {last.rivals + 1} trials "
                "that came so far, enough others were ahead"
            )
            return self._ended(trial, Status.EARLY_STOPPED, reason)
        except (Interrupted, AgentError):  # no other trial would fare better with the agent
            raise
        except DeviceAwayError as error:  # no fault of the candidate, unless it was its doing
            given_back = Status.INTERRUPTED if error.begun else Status.STOPPED
            outcome = self._ended(trial, given_back, str(error))
            return outcome.model_copy(update={"device_away": True})
        except TrialError as error:
            return self._ended(trial, Status.FAILED, str(error))
        except (Exception, SystemExit) as error:  # noqa: BLE001 - a failed trial is a result
            return self._ended(trial, Status.FAILED, f"{type(error).__name__}: {error}")

    def measured(self, artifact: Artifact) -> Outcome:
        """Measures an artifact that is there already; whatever goes wrong is the outcome."""
        watch = Watch()
        try:
            measurements = self._measure(self.measures, artifact, watch)
        except TrialError as error:
            return Outcome(status=Status.FAILED, reason=str(error), seconds=watch.seconds)
        return Outcome(
            status=Status.COMPLETE,
            measurements=measurements,
            violations=self._violations(measurements),
            artifact_sha256=artifact.sha256,
            seconds=watch.seconds,
        )

    def look(self, candidate: Candidate) -> dict[str, Measurement]:
        """What can be known of a candidate from its untrained file, without running it.

        Nothing of one for which layers would have to be timed.

        Raises:
            TrialError: If it cannot be built.
        """
        exact = [m for m in self._cheap() if not m.objective.on_device]
        if not exact or self.builder.timed(candidate):
            return {}
        with self.store.scratch() as folder:
            path = folder / f"candidate.{self.format}"
            try:
                self.builder.build(candidate, path, trained=False)
                return self._measure(exact, Artifact.of(path, self.format), Watch())
            except TrialError:
                raise
            except Exception as error:  # whatever a stage raises, the candidate cannot be built
                raise StageError(f"{type(error).__name__}: {error}") from error

    def _cheap(self) -> list[Measure]:
        """What matters to the search and needs no training."""
        return [
            m for m in self.measures if not m.objective.dear and (m.goal.optimize or m.goal.bounded)
        ]

    def _before_training(self, trial: _Trial) -> Outcome | None:
        """The outcome of a candidate that need not be trained."""
        cheap, checks = self._cheap(), trial.checks
        if not (checks.gates or checks.rungs):
            cheap = [m for m in cheap if m.goal.bounded]
        if not cheap or trial.training is None:
            return None
        self.builder.build(
            trial.candidate, trial.path, trained=False, watch=trial.watch, tick=trial.tick
        )
        artifact = Artifact.of(trial.path, self.format)
        # What needs no device first: it may settle the matter.
        for on_device in (False, True):
            some = [m for m in cheap if m.objective.on_device == on_device]
            found = self._measure(some, artifact, trial.watch, coarse=True)
            trial.known |= _before_packing(found) if self._packs(trial.candidate) else found
            trial.tick()
            # Only what is outside with its whole interval is not worth training.
            broken = [
                name
                for name, bound in self.bounds.items()
                if name in trial.known
                and min(bound.violation(x) for x in _ends(trial.known[name])) > 0
            ]
            if broken:
                reason = "breaks the bound on " + " and ".join(broken) + " before training"
                return self._ended(trial, Status.INFEASIBLE, reason)
            hopeless = checks.hopeless(trial.candidate, trial.known) if checks.gates else None
            if hopeless is not None:
                return self._ended(trial, Status.GATED, hopeless)
        return None

    def _packs(self, candidate: Candidate) -> bool:
        """Whether the file of a candidate is packed by the values of its weights."""
        on = {name for name, _ in candidate.configs}
        return any(stage.packs and stage.name in on for stage in self.builder.space.stages)

    def _measured(self, trial: _Trial) -> Outcome:
        self._replay(trial)
        achieved = self.builder.build(
            trial.candidate,
            trial.path,
            trained=True,
            watch=trial.watch,
            tick=trial.tick,
            rungs=trial.checks.rungs,
            report=partial(self._report, trial),
        )
        artifact = self.store.add(trial.path, self.format)
        ordered = sorted(self.measures, key=lambda measure: measure.objective.dear)
        measurements = self._measure(ordered, artifact, trial.watch)
        return Outcome(
            status=Status.COMPLETE,
            measurements=measurements,
            violations=self._violations(measurements),
            artifact_sha256=artifact.sha256,
            achieved=achieved,
            seconds=trial.watch.seconds,
            rungs=tuple(trial.rungs),
        )

    def _replay(self, trial: _Trial) -> None:
        """Judges by what the same training was worth before, if it was kept.

        A training that was stopped leaves no model behind, and one that is kept reports nothing;
        so that a repeated search decides alike, what they were worth at the rungs is kept too.
        """
        kept = self._rungs_kept(trial)
        for share in trial.checks.rungs:
            if f"{share}" in kept:
                self._judge(trial, share, kept[f"{share}"])

    def _report(self, trial: _Trial, share: float, module: nn.Module) -> None:
        """Notes what a module is worth in the middle of its training."""
        if any(rung.share == share for rung in trial.rungs):
            return
        task = self.builder.task
        with torch.no_grad():
            outputs = torch.cat(
                [module(*inputs) for inputs, _ in task.validation.batches(SCORING_BATCH)]
            )
        worth = task.metric.value([outputs.numpy()], task.validation.targets.numpy())
        key = self._rungs_key(trial)
        if key is not None and self.builder.cache is not None:
            kept = {**self._rungs_kept(trial), f"{share}": worth}
            self.builder.cache.put_facts(key, kept, trial.watch.elapsed)
        self._judge(trial, share, worth)

    def _judge(self, trial: _Trial, share: float, worth: float) -> None:
        """Goes on or not.

        Raises:
            EarlyStopped: If it is not worth going on.
        """
        values = {"accuracy": worth, **{name: m.value for name, m in trial.known.items()}}
        wanted = {measure.name for measure in self.measures if measure.goal.optimize}
        rung = trial.checks.judge(share, {n: v for n, v in values.items() if n in wanted})
        trial.rungs.append(rung)
        if not rung.promoted:
            raise EarlyStopped

    def _rungs_key(self, trial: _Trial) -> str | None:
        if trial.training is None or self._metric is None:
            return None
        return chained(trial.training, "rungs", self._metric)

    def _rungs_kept(self, trial: _Trial) -> Mapping[str, float]:
        key = self._rungs_key(trial)
        return self.builder.cache.facts(key) if key and self.builder.cache is not None else {}

    def _ended(self, trial: _Trial, status: Status, reason: str) -> Outcome:
        """The outcome of a trial that did not come to its end."""
        return Outcome(
            status=status,
            reason=reason,
            measurements=trial.known,
            violations=self._violations(trial.known),
            seconds=trial.watch.seconds,
            rungs=tuple(trial.rungs),
        )

    def _measure(
        self, measures: Sequence[Measure], artifact: Artifact, watch: Watch, *, coarse: bool = False
    ) -> dict[str, Measurement]:
        with watch.on("measure"):
            return {
                each.name: each.objective.measure(
                    artifact,
                    _coarse(self.scenes[each.target]) if coarse else self.scenes[each.target],
                )
                for each in measures
            }

    def _violations(self, measurements: Mapping[str, Measurement]) -> dict[str, float]:
        return {
            name: bound.violation(measurements[name].value)
            for name, bound in self.bounds.items()
            if name in measurements
        }


def _before_packing(found: Mapping[str, Measurement]) -> dict[str, Measurement]:
    """The measurements, bytes by `PACKING` up or down: training changes how well weights pack."""
    return {
        name: m.model_copy(update={"low": m.low * (1 - PACKING), "high": m.high * (1 + PACKING)})
        if m.unit == "B"
        else m
        for name, m in found.items()
    }


def _told(metric: Metric) -> str | None:
    """What a metric is, `None` if that cannot be told."""
    try:
        return object_digest(metric)
    except Undescribed:
        return None


def _ends(measurement: Measurement) -> tuple[float, float]:
    return measurement.low, measurement.high


def _coarse(scene: Scene) -> Scene:
    effort = scene.effort
    return replace(
        scene,
        effort=replace(
            effort, seconds=effort.seconds * COARSE, precision=effort.precision / COARSE
        ),
    )
