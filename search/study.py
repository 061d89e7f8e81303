"""A study: what is searched, where its trials are kept, and the front they make."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Self

from parefront.objectives.objective import Bound
from parefront.objectives.targets.target import Target
from parefront.search.engines.section import ENGINE
from parefront.search.launch import Progress, Silent, Stop
from parefront.search.opened import OpenedStudy
from parefront.search.plan import Plan
from parefront.search.run import launched
from parefront.search.storage import url_of
from parefront.search.stored_study import OBJECT, StoredStudy
from parefront.search.study_file import StudyFile
from parefront.search.task import Task


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
        files: Folder or URL, such as `"s3://bucket/folder"`, of artifacts, baselines and what
            stages made; by default beside the SQLite file, or `.parefront/`.
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
        engine: Where trials run: the name of an engine, or the keys of `[engine]`; the engine
            `"process"` by default.
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
        files: str | Path | None = None,
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
        engine: str | Mapping[str, Any] | None = None,
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
                "files": str(files) if files is not None else None,
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
            "engine": {"name": engine} if isinstance(engine, str) else dict(engine or {}),
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
        self._set(StudyFile.of(content).placed(Path.cwd()), given, Path.cwd(), storage)

    @classmethod
    def from_file(
        cls,
        path: str | Path,
        *,
        storage: str | None = None,
        engine: str | None = None,
        address: str | None = None,
    ) -> Self:
        """The study that a study file describes.

        Args:
            path: The study file, in TOML.
            storage: Optuna storage URL; the SQLite file under `.parefront/` by default.
            engine: Name of an engine, instead of the file's.
            address: Cluster that the engine joins, instead of the file's.

        Raises:
            StudyFileError: If the file is not valid.
        """
        study = cls.__new__(cls)
        # All that the file says is at hand for another engine, whatever the environment says.
        settings = StudyFile.read(Path(path), None if engine is None else ENGINE)
        if engine is not None or address is not None:
            settings = settings.on(engine, address)
        study._set(settings, None, Path(path).resolve().parent, storage)
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
        opened = OpenedStudy.find(name, url_of(storage))
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
            EngineError: If the engine cannot go on; what was told is safe.
            StorageError: If the storage fails; what was told is safe.
        """
        plan = Plan(
            settings=self.settings,
            url=self.storage,
            task=self._task,
            base=self._base,
            budget=self.budget(trials, time),
        )
        self.ended = launched(plan, progress or Silent(), self._stop)
        self._opened = None  # another process may have written
        return self

    def stop(self, *, now: bool = False) -> None:
        """Ends a search that another thread or a signal handler sees running.

        Args:
            now: Gives up the trial under way; its candidate is tried again by the next launch.
        """
        self._stop.request(now=now)
