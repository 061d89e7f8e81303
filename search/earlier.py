"""What earlier studies know that holds for a new one."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import zip_longest
from typing import Any, Literal, TypeVar

import optuna

from parefront.errors import StorageError, StudyFileError, StudyNotFoundError
from parefront.objectives.targets.catalog import runtime
from parefront.search.entry import Entry
from parefront.search.measures import Measure
from parefront.search.opened import OpenedStudy, measures_of
from parefront.search.records import Status
from parefront.search.storage import open_storage, shown
from parefront.search.study_record import STUDY_KEY
from parefront.search.useful_orders import useful_orders
from parefront.search.warm_start import Known, Observation, drawn
from parefront.spaces.space import Candidate, Space

MOST_CANDIDATES = 8
MOST_OBSERVATIONS = 200
"""What is kept of earlier studies; a surrogate gains little from more, and the storage keeps it."""
Kin = Literal["same task", "similar task"]
Configs = Mapping[str, Mapping[str, Any]]
T = TypeVar("T", bound=Hashable)


class Earlier(Known):
    """What was taken over from earlier studies, decided once and kept with the study.

    Attributes:
        studies: How each study is related, by its name: of the same task and baseline, or of one
            whose metric has the same name.
        front: Configs of the candidates to try first: those on the earlier fronts that the space
            can draw, balanced ones first, then far from each other.
        observations: What is known of candidates that the space can draw. Of what belongs to a
            device there is only what the search's own device measured, under the study's name.
        skipped: How many earlier trials say something of candidates that the space cannot draw.
    """

    studies: Mapping[str, Kin] = {}
    front: tuple[Configs, ...] = ()
    observations: tuple[Observation, ...] = ()
    skipped: int = 0

    def candidates(self, space: Space) -> list[Candidate]:
        """The candidates to try first, as far as a space can draw them."""
        found = [drawn(configs, space) for configs in self.front]
        return [each.candidate for each in found if each is not None]

    def __str__(self) -> str:
        """One line for a display."""
        named = ", ".join(f"{name} ({kin})" for name, kin in self.studies.items())
        skipped = f"; {self.skipped} trials lie outside this space" if self.skipped else ""
        return (
            f"taken over from {named}: {len(self.front)} candidates, "
            f"{len(self.observations)} observations{skipped}"
        )


def earlier(
    names: Sequence[str], url: str, space: Space, study: OpenedStudy, *, most: int = MOST_CANDIDATES
) -> Earlier:
    """What earlier studies know that holds for a new one.

    A study of the same data, metric, baseline and version tells what a trial of the new study
    would. One of other data or another baseline tells its values under its name as source, so that
    a surrogate learns how far they can be trusted. Accuracy is taken over, and what belongs to the
    file where files are of one format. What belongs to a device is taken over from the same device
    and task alone, under the study's name. Nothing of the earlier task is imported.

    Args:
        names: Names of studies, each in the new study's storage, or in another as `name@url`.
        url: Storage of the new study.
        space: The new study's space.
        study: The new study, with its baseline.
        most: How many candidates to try first.

    Raises:
        StudyFileError: If there is no such study, it cannot be read, is the new study itself, or
            has another metric.
    """
    found: dict[str, _Source] = {}
    for name in names:
        source = _found(name, url, study)
        found.setdefault(source.opened.record.id, source)
    sources = list(found.values())
    taken = [_taken(source, study, space) for source in sources]
    front = [each.front for each in taken]
    observations = [each.observations for each in taken]
    return Earlier(
        studies={s.name: "same task" if s.same else "similar task" for s in sources},
        front=tuple(c.as_dict() for c in _interleaved(front))[:most],
        observations=tuple(_interleaved(observations, key=repr))[:MOST_OBSERVATIONS],
        skipped=sum(each.skipped for each in taken),
    )


def check_earlier(names: Sequence[str], url: str, study: OpenedStudy) -> None:
    """Checks that there are such studies, and that they fit; as `earlier`, which needs a baseline.

    Raises:
        StudyFileError: As `earlier`.
    """
    for name in names:
        _found(name, url, study)


@dataclass(frozen=True)
class _Source:
    """An earlier study, under a name that no other has; `same` if it says what we would measure."""

    name: str
    opened: OpenedStudy
    same: bool


@dataclass(frozen=True)
class _Taken:
    """What one study gives, the most useful first."""

    front: list[Candidate]
    observations: list[Observation]
    skipped: int


def _found(given: str, url: str, study: OpenedStudy) -> _Source:
    name, at, other = given.partition("@")
    where = other if at else url
    unique = name if where == url else f"{name}@{shown(where)}"
    try:
        opened = OpenedStudy.find(name, where)
    except StudyNotFoundError as error:
        raise StudyFileError(
            f"[study] warm_start: there is no study '{name}' in {shown(where)}; "
            + _which(_others(where, study), "there are")
        ) from error
    except StorageError as error:
        raise StudyFileError(f"[study] warm_start: cannot read '{unique}': {error}") from error
    theirs, ours = opened.record, study.record
    if theirs.id == ours.id:
        raise StudyFileError(
            f"[study] warm_start: '{name}' is this study itself, which goes on by itself; "
            + _which(_others(where, study), "others are")
        )
    if (theirs.metric, theirs.metric_direction) != (ours.metric, ours.metric_direction):
        fitting = [
            each for each, record in _others(where, study).items()
            if (record["metric"], record["metric_direction"])
            == (ours.metric, ours.metric_direction.value)
        ]  # fmt: skip
        raise StudyFileError(
            f"[study] warm_start: expected studies whose metric is {ours.metric} "
            f"({ours.metric_direction}), got '{name}' with {theirs.metric} "
            f"({theirs.metric_direction}); " + _which(fitting, "in that storage there are")
        )
    return _Source(unique, opened, _kin(opened) == _kin(study))


def _others(url: str, study: OpenedStudy) -> dict[str, dict[str, Any]]:
    """Records of the other studies in a storage by name, as they are there."""
    storage = open_storage(url, create=False)
    summaries = study.patience(
        lambda: optuna.get_all_study_summaries(storage, include_best_trial=False)
    )
    records = {s.study_name: s.user_attrs.get(STUDY_KEY) for s in summaries}
    return {
        name: record
        for name, record in records.items()
        if record is not None
        and record.get("id") != study.record.id
        and record.get("format") == study.record.format
    }


def _which(names: Iterable[str], what: str) -> str:
    return f"{what}: {', '.join(names) or 'none'}"


def _kin(study: OpenedStudy) -> tuple[object, ...]:
    """Where this is the same, equal candidates come out alike, whatever the device."""
    record, baseline = study.record, study.baseline
    return (
        record.data_digest,
        record.created_with,
        # A study without a baseline has no trial either, and is like no other.
        (baseline.key or baseline.artifact_sha256) if baseline is not None else record.id,
    )


def _form(study: OpenedStudy) -> tuple[str, int]:
    """Where this is the same, so is what belongs to the file."""
    target = study.record.settings.target
    return runtime(target.runtime).format, target.batch_size


def _device(study: OpenedStudy, name: str | None) -> tuple[object, ...]:
    """Where this is the same, so is what belongs to a target, but for drift."""
    target, baseline = study.record.settings.everywhere[name], study.baseline
    found = baseline.on(name).fingerprint_id if baseline is not None else study.record.id
    return found, target.batch_size, target.throughput_batch_size


def _taken(source: _Source, study: OpenedStudy, space: Space) -> _Taken:
    theirs = {measure.name: measure for measure in measures_of(source.opened.record)}
    wanted = [m for m in measures_of(study.record) if m.goal.optimize]
    same_files = source.opened.record.task_base == study.record.task_base
    shared = [
        m for m in wanted if m.name in theirs and _alike(m, theirs[m.name], same_files=same_files)
    ]
    lasting = {
        m.name for m in shared
        if not (m.objective.on_device or m.objective.noisy)
        and (m.name == "accuracy" or _form(source.opened) == _form(study))
    }  # fmt: skip
    timed = {
        m.name for m in shared
        if m.objective.on_device
        and _device(source.opened, m.target) == _device(study, m.target)
    }  # fmt: skip
    # A device drifts from day to day, so what it said once is a source of its own.
    parts = {"": lasting, source.name: timed} if source.same else {source.name: lasting}
    told, skipped = [], 0
    for entry in source.opened.entries():
        if entry.counts and entry.outcome is not None and entry.status != Status.FAILED:
            if drawn(entry.record.candidate, space) is None:
                skipped += 1
            else:
                told.append(entry)
    complete = [entry for entry in told if entry.status == Status.COMPLETE]
    partial = [entry for entry in told if entry.status != Status.COMPLETE]
    orders = useful_orders(complete, shared, study.record.metric_direction)
    observations = [
        observation
        for entry in _interleaved([*orders, partial[::-1]], key=lambda e: e.trial.number)
        for name, names in parts.items()
        for observation in _observed(entry, names, name)
    ]
    front = [space.candidate(entry.record.candidate) for entry in orders[0]]
    return _Taken([each for each in front if each.configs], observations, skipped)


def _alike(ours: Measure, theirs: Measure, *, same_files: bool) -> bool:
    """Whether two objectives of one name measure the same; a user's own may be other functions."""
    limits = {"at_least": None, "at_most": None, "optimize": True}
    a, b = (each.goal.model_copy(update=limits) for each in (ours, theirs))
    return a == b and (a.function is None or same_files)


def _observed(entry: Entry, names: set[str], source: str) -> list[Observation]:
    outcome = entry.outcome
    if outcome is None:
        return []
    measured = {name: m.value for name, m in outcome.measurements.items() if name in names}
    found = [(measured, 1.0)]
    if outcome.rungs and "accuracy" in names - set(measured):
        last = outcome.rungs[-1]
        found.append(({"accuracy": last.values["accuracy"]}, last.share))
    return [
        Observation(
            candidate=entry.record.candidate, values=values, fidelity=fidelity, source=source
        )
        for values, fidelity in found
        if values
    ]


def _interleaved(
    lists: Sequence[Sequence[T]], key: Callable[[T], Hashable] = lambda each: each
) -> list[T]:
    """The first of each list, then the second of each, and so on; each thing once."""
    found: dict[Hashable, T] = {}
    for row in zip_longest(*lists):
        for each in row:
            if each is not None:
                found.setdefault(key(each), each)
    return list(found.values())
