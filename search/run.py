"""One launch of a study from its beginning to its end."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

from parefront.errors import StorageError, StudyNotFoundError, UsageError
from parefront.objectives.targets.axes import refuse_dynamic
from parefront.objectives.targets.catalog import runtime
from parefront.search.attended import AttendedDevice
from parefront.search.builder import Builder
from parefront.search.desk import Desk
from parefront.search.earlier import check_earlier
from parefront.search.engines.catalog import ENGINES
from parefront.search.engines.engine import Engine
from parefront.search.engines.supervisor import Supervisor
from parefront.search.files import StudyFiles
from parefront.search.finals import build_finals
from parefront.search.guidance import guidance
from parefront.search.heartbeat import Heartbeat
from parefront.search.launch import Progress, Stop
from parefront.search.loading import load_function
from parefront.search.locks import lock_of
from parefront.search.opened import OpenedStudy
from parefront.search.patience import SECONDS, Patience
from parefront.search.pipeline import Interrupted, Pipeline
from parefront.search.plan import Plan
from parefront.search.preparation import prepared_pipeline
from parefront.search.samplers.catalog import SAMPLERS
from parefront.search.scenes import traits
from parefront.search.settle import settle
from parefront.search.storage import home_of, kind_of
from parefront.search.stored_study import StoredStudy, summaries
from parefront.search.study_record import WARM_KEY
from parefront.search.task import PreparedTask, prepare
from parefront.search.turns import turn
from parefront.search.warm_start import own_candidates
from parefront.spaces.space import Candidate, Space
from parefront.spaces.stage import TargetTraits


def launched(plan: Plan, progress: Progress, stop: Stop) -> str:
    """Runs a launch with the engine of its settings; returns why it ended.

    Raises:
        ParefrontError: As `Study.optimize` does.
    """
    if ENGINES[plan.settings.engine.name].supervised:
        return Supervisor(plan, progress, stop).run()
    return driven(plan, progress, stop)


def driven(plan: Plan, progress: Progress, stop: Stop) -> str:
    """As `launched`, in this very process.

    Raises:
        ParefrontError: As `Study.optimize` does.
    """
    try:
        with ENGINES[plan.settings.engine.name].make(plan, stop) as engine:
            return run(plan, engine, progress, stop)
    except Interrupted:
        return Desk.was_stopped


def run(plan: Plan, engine: Engine, progress: Progress, stop: Stop) -> str:
    """Searches until the budget is spent; takes up a search that is there.

    Args:
        plan: What is to be searched.
        engine: Evaluates candidates; it was entered.
        progress: Told what happens.
        stop: A request to end.

    Returns:
        Why it ended.

    Raises:
        ParefrontError: As `Study.optimize` does.
    """
    with ExitStack() as stack:
        return _run(plan, engine, progress, stop, stack)


def _run(plan: Plan, engine: Engine, progress: Progress, stop: Stop, stack: ExitStack) -> str:
    study = StoredStudy.of(plan.settings, plan.task, plan.base, plan.url)
    files = StudyFiles.of(plan.settings, plan.url)
    if files.place is not None:
        progress.phase("checking that files can be kept")
    files.check()
    progress.phase("checking the task")
    task = prepare(study.task(), seed=plan.settings.study.seed)
    _refuse_early(plan, task)
    devices = {
        name: AttendedDevice(engine.device(name, target), stop)
        for name, target in plan.settings.everywhere.items()
    }
    known = _known_traits(plan) or traits(
        plan.settings.everywhere.values(), home_of(plan.url), devices.values()
    )
    builder, left_out = _fitted(plan, task, known)

    def tick() -> None:
        if stop.requested:
            raise Interrupted

    patience = Patience(seconds=SECONDS, phase=progress.phase, stopped=lambda: stop.requested_now)
    lock = lock_of(plan.url, study.name, patience=patience)
    try:
        with turn(lock, lambda: stop.requested, progress.phase):
            opened = OpenedStudy.begin(
                plan.settings,
                plan.url,
                task,
                task_base=str(plan.base) if plan.task is None else None,
                left_out=left_out,
                traits=known,
                patience=patience,
            )
            heartbeat = stack.enter_context(Heartbeat(opened.optuna_study))
            if WARM_KEY not in opened.facts:
                check_earlier(plan.settings.study.warm_start, plan.url, opened)
            pipeline = prepared_pipeline(
                opened,
                builder,
                study.store,
                files.weights(opened.record.id),
                devices,
                share=lambda fresh: files.share_weights(opened.record.id, fresh=fresh),
                progress=progress,
                tick=tick,
            )
            lead = guidance(
                opened,
                pipeline,
                plan.settings,
                plan.budget,
                url=plan.url,
                progress=progress,
                tick=tick,
            )
    except Interrupted:
        return Desk.was_stopped
    ended = engine.run(
        Desk(
            ledger=opened.ledger,
            proposer=lead.proposer,
            checks=lead.checks,
            budget=plan.budget,
            lock=lock,
            stop=stop,
            progress=progress,
            trial_seconds=plan.settings.study.trial_time,
            no_gain=lead.no_gain,
            heartbeat=heartbeat,
        ),
        pipeline,
    )
    after = lock_of(plan.url, study.name, "after", patience)
    try:
        # Another launch may be at it, which does not know yet what this one has found.
        with turn(after, lambda: stop.requested, progress.phase):
            read = StoredStudy.of(plan.settings, plan.task, plan.base, plan.url, opened)
            _finish(read, opened, pipeline, progress, stop)
    except Interrupted:
        return Desk.was_stopped
    return ended


def _refuse_early(plan: Plan, task: PreparedTask) -> None:
    """Says what cannot work before the baseline is trained.

    Raises:
        UsageError: If something cannot.
    """
    settings = plan.settings
    for target in settings.everywhere.values():
        if not runtime(target.runtime).resizes:
            refuse_dynamic(task.dynamic, target.runtime)
    for finalist in settings.target.finalists:
        runtime(finalist).version()
    for goal in settings.objectives.values():
        if goal.function is not None:
            load_function(goal.function, plan.base or Path.cwd())
    if settings.study.sampler in SAMPLERS:
        SAMPLERS[settings.study.sampler].make(0)  # one whose package is missing says so now


def _fitted(plan: Plan, task: PreparedTask, known: TargetTraits) -> tuple[Builder, dict[str, str]]:
    """A builder of the untrained model with the stages that fit it; why others were left out.

    Raises:
        UsageError: If no stage fits, or a candidate of the user's does not.
    """
    settings = plan.settings
    wanted = Space.of(settings.space, known)
    builder = Builder(
        task=task,
        module=task.baseline,
        space=wanted,
        target=settings.target,
        seed=settings.study.seed,
        cache=StudyFiles.of(settings, plan.url).cache(settings.study.cache_mb),
    )
    space, left_out = wanted.fitted(task.baseline, builder.context(Candidate()))
    if not space.stages:
        reasons = "; ".join(f"{name}: {reason}" for name, reason in left_out.items())
        raise UsageError(f"no stage has anything to do in this model ({reasons})")
    own_candidates(settings.start, space, left_out)  # refused before anything is trained
    return replace(builder, space=space), left_out


def _known_traits(plan: Plan) -> TargetTraits | None:
    """What the stages knew of the target when the study began, if it has begun."""
    try:
        record = OpenedStudy.find(plan.settings.study.name, plan.url).record
    except StudyNotFoundError:
        return None
    except StorageError:
        if kind_of(plan.url) != "sqlite":
            raise  # a server has to be there, and a file is made
        return None
    form = runtime(record.settings.target.runtime).format
    return TargetTraits(
        format=form,
        channel_multiple=record.channel_multiple,
        saturates=record.saturates,
    )


def _finish(
    study: StoredStudy, opened: OpenedStudy, pipeline: Pipeline, progress: Progress, stop: Stop
) -> None:
    """What is left when the search is over: undecided candidates, and the finalists."""

    def tick() -> None:
        if stop.requested_now:
            raise Interrupted

    settle(
        opened,
        pipeline,
        study.frame,
        summaries(opened.record),
        seconds=study.settings.study.settle,
        stopped=lambda: stop.requested,
        phase=progress.phase,
    )
    build_finals(
        opened,
        pipeline,
        study.front()["trial"].tolist(),
        stopped=lambda: stop.requested,
        tick=tick,
        phase=progress.phase,
    )
