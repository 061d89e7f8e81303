"""A study: what is searched, where its trials are kept, and the front they make."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Self

from filelock import FileLock, Timeout

from parefront.errors import StorageError, StudyNotFoundError, UsageError
from parefront.objectives.objective import Bound
from parefront.objectives.targets.axes import refuse_dynamic
from parefront.objectives.targets.catalog import runtime
from parefront.objectives.targets.target import Target
from parefront.search.builder import Builder
from parefront.search.earlier import check_earlier
from parefront.search.finals import build_finals
from parefront.search.guidance import guidance
from parefront.search.launch import Loop, Progress, Silent, Stop
from parefront.search.loading import load_function
from parefront.search.opened import OpenedStudy
from parefront.search.pipeline import Interrupted, Pipeline
from parefront.search.preparation import prepared_pipeline
from parefront.search.samplers.catalog import SAMPLERS
from parefront.search.scenes import traits
from parefront.search.settle import settle
from parefront.search.stage_cache import StageCache
from parefront.search.storage import default_url, home_of
from parefront.search.stored_study import OBJECT, StoredStudy, summaries
from parefront.search.study_file import StudyFile
from parefront.search.study_record import WARM_KEY
from parefront.search.task import Task, prepare
from parefront.search.turns import turn
from parefront.search.warm_start import own_candidates
from parefront.spaces.space import Candidate, Space
from parefront.spaces.stage import TargetTraits


class Study(StoredStudy):
    """A search over compressed models, kept in a storage under its name.

    Nothing is read or written before `optimize` or a result is asked for. Making a study again
    with the same name and storage takes it up where it was.

    Args:
        task: A `Task`, or its name as `path/to/file.py:name` or `package.module:name`.
        name: Name of the study in its storage.
        trials: Trials in all, or `None` for no limit.
        time: Time of the search in all, in seconds or as `"3m"`, or `None` for no limit.
        settle: Seconds after the search, or `"15s"`, for measuring candidates again whose place on
            the front is undecided.
        cache_mb: Megabytes of what stages made that are kept and used again, 0 for none.
        seed: Seed of everything random.
        sampler: What proposes candidates; `"auto"` picks one and says why.
        siblings: Whether what was trained for a candidate on the front is tried with every other
            way to go on.
        gate: Whether a candidate is left untrained that could not reach the front.
        early_stop: Whether training stops half-way where others are ahead.
        no_gain: Share of hypervolume below which the rest of the budget is not spent, 0 for never.
        warm_start: Earlier studies to learn from, as `"name"` or `"name@URL"`.
        sensitivity: Whether each stage is tried by itself without training first.
        start: Candidates of your own to try first, as configs by stage.
        objectives: Names of what is measured, with goals such as
            `{"size": {"at_most": 1e6}, "memory": {"optimize": False}}`; accuracy, latency and
            size by default.
        target: Where and how artifacts run.
        targets: Further targets by name; each candidate's latency is measured on all of them.
        space: Choices by stage name; every stage that fits the model by default.
        storage: Optuna storage URL; the SQLite file under `.parefront/` by default.

    Raises:
        StudyFileError: If an argument is not valid.

    Example:
        >>> study = Study("examples/mnist_cnn.py:task", name="mnist", trials=40)
        >>> study.optimize().front()  # doctest: +SKIP
    """

    def __init__(
        self,
        task: Task | str,
        *,
        name: str,
        trials: int | None = None,
        time: float | str | None = None,
        settle: float | str = 15.0,
        cache_mb: int = 2000,
        seed: int = 0,
        sampler: str = "screening",
        siblings: bool = True,
        gate: bool = True,
        early_stop: bool = True,
        no_gain: float = 0.0,
        warm_start: Sequence[str] = (),
        sensitivity: bool = False,
        start: Sequence[Mapping[str, Mapping[str, Any]]] = (),
        objectives: Sequence[str] | Mapping[str, Bound | Mapping[str, Any]] | None = None,
        target: Target | Mapping[str, Any] | None = None,
        targets: Mapping[str, Target | Mapping[str, Any]] | None = None,
        space: Mapping[str, Mapping[str, Any]] | None = None,
        storage: str | None = None,
    ) -> None:
        content: dict[str, Any] = {
            "study": {
                "name": name,
                "task": task if isinstance(task, str) else OBJECT,
                "trials": trials,
                "time": time,
                "settle": settle,
                "cache_mb": cache_mb,
                "seed": seed,
                "sampler": sampler,
                "siblings": siblings,
                "gate": gate,
                "early_stop": early_stop,
                "no_gain": no_gain,
                "warm_start": tuple(warm_start),
                "sensitivity": sensitivity,
            },
            "start": [{stage: dict(config) for stage, config in one.items()} for one in start],
        }
        if objectives is not None:
            named = (
                objectives if isinstance(objectives, Mapping) else {key: {} for key in objectives}
            )
            content["objectives"] = {
                key: goal.model_dump() if isinstance(goal, Bound) else dict(goal)
                for key, goal in named.items()
            }
        if target is not None:
            content["target"] = target
        if targets is not None:
            content["targets"] = dict(targets)
        if space is not None:
            content["space"] = {stage: dict(choices) for stage, choices in space.items()}
        given = None if isinstance(task, str) else task
        self._set(StudyFile.of(content), given, Path.cwd(), storage)

    @classmethod
    def from_file(cls, path: str | Path, *, storage: str | None = None) -> Self:
        """The study that a study file describes.

        Args:
            path: The study file, in TOML.
            storage: Optuna storage URL; the SQLite file under `.parefront/` by default.

        Raises:
            StudyFileError: If the file is not valid.
        """
        study = cls.__new__(cls)
        study._set(StudyFile.read(Path(path)), None, Path(path).resolve().parent, storage)
        return study

    @classmethod
    def load(cls, name: str, *, storage: str | None = None) -> Self:
        """A study that is in a storage.

        Args:
            name: Name of the study.
            storage: Optuna storage URL; the SQLite file under `.parefront/` by default.

        Raises:
            StudyNotFoundError: If the storage holds no study of that name.
            StorageError: If the storage cannot be opened.
        """
        opened = OpenedStudy.find(name, storage or default_url())
        study = cls.__new__(cls)
        base = opened.record.task_base
        study._set(opened.record.settings, None, Path(base) if base else None, storage)
        study._opened = opened
        return study

    def _set(
        self, settings: StudyFile, task: Task | None, base: Path | None, storage: str | None
    ) -> None:
        super()._set(settings, task, base, storage)
        self.ended: str | None = None
        self._stop = Stop()

    def optimize(
        self,
        *,
        trials: int | None = None,
        time: float | None = None,
        progress: Progress | None = None,
    ) -> Self:
        """Searches until the budget is spent; takes up a search that is there.

        Args:
            trials: Trials in all, instead of the study's own limit.
            time: Seconds of search in all, instead of the study's own limit.
            progress: Told what happens, for a display.

        Returns:
            The study; its attribute `ended` says why the search ended.

        Raises:
            UsageError: If the task, the settings or the device do not fit the study.
            TrialError: If the baseline cannot be trained, exported or measured.
            StorageError: If the storage fails; what was told is safe.
        """
        progress = progress or Silent()
        settings, seed = self.settings, self.settings.study.seed
        budget = self.budget(trials, time)
        progress.phase("checking the task")
        task = prepare(self.task(), seed=seed)
        for target in settings.everywhere.values():
            if not runtime(target.runtime).resizes:  # said before the baseline is trained
                refuse_dynamic(task.dynamic, target.runtime)
        for finalist in settings.target.finalists:
            runtime(finalist).version()  # one that is not installed is said before the search
        for goal in settings.objectives.values():
            if goal.function is not None:
                load_function(goal.function, self._base or Path.cwd())
        home = home_of(self.storage)
        known = self._known_traits() or traits(settings.everywhere.values(), home)
        wanted = Space.of(settings.space, known)
        builder = Builder(
            task=task, module=task.baseline, space=wanted, target=settings.target, seed=seed
        )
        space, left_out = wanted.fitted(task.baseline, builder.context(Candidate()))
        if not space.stages:
            reasons = "; ".join(f"{name}: {reason}" for name, reason in left_out.items())
            raise UsageError(f"no stage has anything to do in this model ({reasons})")
        if settings.study.sampler in SAMPLERS:
            SAMPLERS[settings.study.sampler].make(0)  # one whose package is missing says so now
        own_candidates(settings.start, space, left_out)  # refused before anything is trained
        lock = self._lock(home)
        try:
            with turn(lock, lambda: self._stop.requested, progress.phase):
                opened = OpenedStudy.begin(
                    settings,
                    self.storage,
                    task,
                    task_base=str(self._base) if self._task is None else None,
                    left_out=left_out,
                    traits=known,
                )
                self._opened = opened
                if WARM_KEY not in opened.optuna_study.user_attrs:
                    check_earlier(settings.study.warm_start, self.storage, opened)
                pipeline = prepared_pipeline(
                    opened,
                    Builder(
                        task=task,
                        module=task.baseline,
                        space=space,
                        target=settings.target,
                        seed=seed,
                        cache=self._cache(home),
                    ),
                    self.store,
                    home / "baselines" / f"{opened.record.id}.pt",
                    progress=progress,
                    tick=self._tick,
                )
                lead = guidance(
                    opened,
                    pipeline,
                    settings,
                    budget,
                    url=self.storage,
                    progress=progress,
                    tick=self._tick,
                )
        except Interrupted:
            self.ended = "it was stopped"
            return self
        self.ended = Loop(
            ledger=opened.ledger,
            proposer=lead.proposer,
            evaluate=pipeline.evaluate,
            checks=lead.checks,
            budget=budget,
            lock=lock,
            stop=self._stop,
            progress=progress,
            trial_seconds=settings.study.trial_time,
            no_gain=lead.no_gain,
        ).run()
        try:
            with self._lock(home, "after").acquire(timeout=0):
                self._finish(opened, pipeline, progress)
        except Timeout:
            progress.phase("another launch measures and builds what is left")
        except Interrupted:
            self.ended = "it was stopped"
        return self

    def _finish(self, opened: OpenedStudy, pipeline: Pipeline, progress: Progress) -> None:
        """What is left when the search is over: undecided candidates, and the finalists."""

        def tick() -> None:
            if self._stop.requested_now:
                raise Interrupted

        settle(
            opened,
            pipeline,
            self.frame,
            summaries(opened.record),
            seconds=self.settings.study.settle,
            stopped=lambda: self._stop.requested,
            phase=progress.phase,
        )
        build_finals(
            opened,
            pipeline,
            self.front()["trial"].tolist(),
            stopped=lambda: self._stop.requested,
            tick=tick,
            phase=progress.phase,
        )

    def stop(self, *, now: bool = False) -> None:
        """Ends a search that another thread or a signal handler sees running.

        Args:
            now: Gives up the trial under way; its candidate is tried again by the next launch.
        """
        self._stop.request(now=now)

    def _known_traits(self) -> TargetTraits | None:
        """What the stages knew of the target when the study began, if it has begun."""
        try:
            record = OpenedStudy.find(self.name, self.storage).record
        except (StudyNotFoundError, StorageError):
            return None
        form = runtime(record.settings.target.runtime).format
        return TargetTraits(
            format=form,
            channel_multiple=record.channel_multiple,
            saturates=record.saturates,
        )

    def _cache(self, home: Path) -> StageCache | None:
        megabytes = self.settings.study.cache_mb
        return StageCache(home / "cache", megabytes * 1_000_000) if megabytes else None

    def _tick(self) -> None:
        if self._stop.requested:
            raise Interrupted

    def _lock(self, home: Path, what: str = "") -> FileLock:
        try:
            (home / "locks").mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise StorageError(f"cannot write to {home}: {error}") from error
        name = f"{self.name}.lock" + (f".{what}" if what else "")
        return FileLock(home / "locks" / name)
