"""Plain Optuna on a study's space and measurements: the yardstick of a search."""

from __future__ import annotations

import time
from collections.abc import Iterator

import optuna

import parefront as pf
from parefront.search.builder import Builder
from parefront.search.guide import optuna_directions
from parefront.search.launch import Silent
from parefront.search.opened import directions
from parefront.search.pipeline import Pipeline
from parefront.search.preparation import prepared_pipeline
from parefront.search.records import Outcome, Status
from parefront.search.scenes import traits
from parefront.search.storage import home_of
from parefront.search.task import prepare
from parefront.spaces.space import Candidate, Space


def pipeline_of(study: pf.Study) -> Pipeline:
    """The pipeline of a study that was launched, without a cache."""
    opened, settings = study.opened(), study.settings
    task = prepare(study.task(), seed=settings.study.seed)
    home = home_of(study.storage)
    devices = {name: target.open() for name, target in settings.everywhere.items()}
    known = traits(settings.everywhere.values(), home, devices.values())
    wanted = Space.of(settings.space, known)
    seed = settings.study.seed
    builder = Builder(
        task=task, module=task.baseline, space=wanted, target=settings.target, seed=seed
    )
    space, _ = wanted.fitted(task.baseline, builder.context(Candidate()))
    return prepared_pipeline(
        opened,
        Builder(task=task, module=task.baseline, space=space, target=settings.target, seed=seed),
        study.store,
        home / "baselines" / f"{opened.record.id}.pt",
        devices,
        progress=Silent(),
        tick=lambda: None,
    )


def search(
    study: pf.Study, sampler: optuna.samplers.BaseSampler, seconds: float
) -> Iterator[tuple[float, Outcome]]:
    """Searches with nothing but Optuna, every trial from scratch.

    Args:
        study: A study that was launched, whose baseline, space and measurements are used.
        sampler: What proposes candidates.
        seconds: Time after which no trial begins.

    Yields:
        Seconds since the beginning, and the outcome of each trial.
    """
    pipeline = pipeline_of(study)
    chosen = directions(study.opened().record)
    found = optuna.create_study(
        directions=optuna_directions(list(chosen.values())), sampler=sampler
    )
    began = time.monotonic()
    while time.monotonic() - began < seconds:
        trial = found.ask()
        outcome = pipeline.evaluate(pipeline.builder.space.suggest(trial), lambda: None)
        if outcome.status == Status.COMPLETE:
            found.tell(trial, [outcome.measurements[name].value for name in chosen])
        else:
            found.tell(trial, state=optuna.trial.TrialState.FAIL)
        yield time.monotonic() - began, outcome
