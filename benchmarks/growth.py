"""What a study costs as it grows: asking, telling, fronts, and the storage.

Asking and telling are timed on the default space and three objectives, as a study does them. For
the front, all points are on it. The storage is filled through the ledger. Median times; other work
on the machine makes them longer.

    python -m benchmarks.growth [--quick] [--only NAME ...]

The last line is a JSON object, lower is better: `ask_ms_NAME_N` and `tell_ms_NAME_N` of each
sampler after N trials, `propose_ms_N` of all that surrounds it, `ask_ms_screening_N_of_M` with M
objectives; `front_100000_s`, `hypervolume_100000_s` and `dominated_2000_s`; and of each storage
`storage_bytes_per_trial_NAME`, `open_ms_NAME_N` to read N trials for the first time and
`entries_ms_NAME_N` to look at all again.
"""

from __future__ import annotations

import argparse
import copy
import json
import random
import sqlite3
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import moocore
import numpy as np
import optuna
import torch
from numpy.typing import NDArray
from optuna.storages import BaseStorage, JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial

from benchmarks.made_up_trials import OBJECTIVES, candidates, entries, outcome, record
from parefront.objectives.front import dominated
from parefront.search.entry import Entry
from parefront.search.guide import Drawn, optuna_directions
from parefront.search.ledger import Ledger
from parefront.search.optuna_guide import OptunaGuide
from parefront.search.proposer import Proposer
from parefront.search.records import Owner
from parefront.search.samplers.catalog import SAMPLERS
from parefront.search.samplers.screening import ScreeningSampler
from parefront.search.samplers.shown import ShownTrials
from parefront.search.storage import open_storage
from parefront.spaces.space import Space
from parefront.spaces.stage import TargetTraits

Make = Callable[[Path], tuple[BaseStorage, Path]]

DIRECTIONS = optuna_directions(list(OBJECTIVES.values()))
REPEATS = 7


def default_space() -> Space:
    """All stages with their defaults."""
    return Space.of(None, TargetTraits(format="onnx", channel_multiple=8))


def timed(function: Callable[..., object], *arguments: object) -> float:
    """Seconds of one call."""
    start = time.perf_counter()
    function(*arguments)
    return time.perf_counter() - start


def of_guide(name: str, space: Space, told: Sequence[Entry], marks: Sequence[int]) -> list[float]:
    """Milliseconds to ask and to tell at each mark, in turn, for a sampler of the catalog."""
    guide = OptunaGuide(space, name, list(OBJECTIVES.values()), seed=0)
    known, found = 0, []
    for mark in marks:
        extra = 2 if name == "gp" else REPEATS  # It takes seconds.
        telling = sum(timed(guide.tell, entry) for entry in told[known : mark - extra])
        telling /= mark - extra - known
        asking = []
        for number in range(mark - extra, mark):
            guide.tell(told[number])
            asking.append(timed(guide.draw, number + 1, 0, []))
        known = mark
        found += [1000 * statistics.median(asking), 1000 * telling]
    return found


def of_screening(
    space: Space,
    trials: Sequence[FrozenTrial],
    marks: Sequence[int],
    directions: Sequence[StudyDirection] = DIRECTIONS,
) -> list[float]:
    """The same for screening, all objectives dear; telling is what the first ask takes longer."""
    sampler, known, found = ScreeningSampler(space=space.suggest, seed=0), 0, []

    def ask(count: int) -> float:
        storage = ShownTrials(trials[:count], number=count)
        study = optuna.create_study(
            study_name="growth", storage=storage, sampler=sampler, directions=directions
        )
        return timed(space.suggest, study.ask())

    for mark in marks:
        first = ask(mark - REPEATS)
        asking = statistics.median(ask(count + 1) for count in range(mark - REPEATS, mark))
        found += [1000 * asking, 1000 * max(first - asking, 0.0) / (mark - REPEATS - known)]
        known = mark
    return found


def many_objectives(space: Space, told: Sequence[Entry], objectives: int, count: int) -> float:
    """Milliseconds screening takes to ask with more objectives, near a curved front."""
    draws = np.random.default_rng(0)
    trials = [copy.copy(entry.trial) for entry in told[:count]]
    for trial in trials:
        direction = np.abs(draws.normal(size=objectives))
        unit = direction / np.linalg.norm(direction)
        trial.values = (unit * (1 + draws.exponential(1 / 3))).tolist()
    minimize = [StudyDirection.MINIMIZE] * objectives
    return of_screening(space, trials, [count], minimize)[0]


def of_proposer(space: Space, told: Sequence[Entry], marks: Sequence[int]) -> list[float]:
    """Milliseconds the proposer takes with random draws at each mark, for what is not the sampler.

    No sibling is worth trying, so that it asks about all of them each time.
    """
    goals, found = list(OBJECTIVES.values()), []
    draws = OptunaGuide(space, "random", goals, seed=0)
    proposer = Proposer(space, draws, draws, goals, worth=lambda candidate: False)  # noqa: ARG005
    for mark in marks:
        proposer.propose(told[: mark - REPEATS])
        asking = (timed(proposer.propose, told[: mark - n]) for n in reversed(range(REPEATS)))
        found.append(1000 * statistics.median(asking))
    return found


def fronts() -> dict[str, float]:
    """Seconds for fronts of many points."""
    draws = np.random.default_rng(0)

    def sphere(count: int) -> NDArray[np.float64]:
        points = np.abs(draws.normal(size=(count, len(OBJECTIVES))))
        unit: NDArray[np.float64] = points / np.linalg.norm(points, axis=1, keepdims=True)
        return 1.0 - unit

    many, some = sphere(100_000), sphere(2_000)
    found = {
        "front_100000_s": lambda: moocore.is_nondominated(many),
        "hypervolume_100000_s": lambda: moocore.hypervolume(many, ref=[1.1] * len(OBJECTIVES)),
        "dominated_2000_s": lambda: dominated(some, some * 0.99, some * 1.01, [False] * 3),
    }
    return {name: min(timed(function) for _ in range(3)) for name, function in found.items()}


def sqlite(folder: Path) -> tuple[BaseStorage, Path]:
    """The default storage, and its file."""
    path = folder / "studies.db"
    return open_storage(f"sqlite:///{path}"), path


def journal(folder: Path) -> tuple[BaseStorage, Path]:
    """Optuna's journal, and its file."""
    path = folder / "journal.log"
    return JournalStorage(JournalFileBackend(str(path))), path


def stored(make: Make, space: Space, count: int) -> tuple[float, float, float]:
    """Bytes a trial, and milliseconds to look at all trials once more and for the first time."""
    with tempfile.TemporaryDirectory() as folder:
        storage, path = make(Path(folder))
        study = optuna.create_study(study_name="growth", storage=storage, directions=DIRECTIONS)
        ledger = Ledger(study, storage, list(OBJECTIVES))
        empty = size_of(path)
        draws, owner = random.Random(0), Owner.me()
        for candidate in candidates(space, count):
            drawn = Drawn.of(candidate, space)
            trial = ledger.create(
                record(candidate, owner), drawn.parameters, drawn.distributions, {}
            )
            ledger.finish(trial, outcome(draws))
        grown = (size_of(path) - empty) / count
        ledger.entries()
        again = statistics.median(timed(ledger.entries) for _ in range(REPEATS))
        first = timed(read, make, Path(folder))
    return grown, 1000 * again, 1000 * first


def read(make: Make, folder: Path) -> list[Entry]:
    """Opens a storage and reads all its trials."""
    storage, _ = make(folder)
    study = optuna.load_study(study_name="growth", storage=storage)
    return Ledger(study, storage, list(OBJECTIVES)).entries()


def size_of(path: Path) -> int:
    """Bytes of a file, with all that was written moved into it."""
    if path.suffix == ".db":
        with sqlite3.connect(path) as connection:
            connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        connection.close()
    return path.stat().st_size


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--quick", action="store_true", help="up to 1,000 trials, 40 in the storage, without gp"
    )
    names = ["screening", *SAMPLERS]
    parser.add_argument("--only", nargs="+", choices=names, help="these samplers alone")
    arguments = parser.parse_args()
    marks = (100, 1_000) if arguments.quick else (100, 1_000, 10_000)
    wanted = arguments.only or [each for each in names if each != "gp" or not arguments.quick]
    torch.set_num_threads(1)
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    space = default_space()
    told = list(entries(space, max(marks)))
    results: dict[str, float] = {}

    print(f"{'ms to ask / to tell':>20}" + "".join(f"{mark:>18,}" for mark in marks) + " trials")
    for name in wanted:
        if name == "screening":
            found = of_screening(space, [entry.trial for entry in told], marks)
        else:
            found = of_guide(name, space, told, marks)
        pairs = list(zip(marks, found[::2], found[1::2], strict=True))
        for mark, asking, telling in pairs:
            results[f"ask_ms_{name}_{mark}"] = round(asking, 2)
            results[f"tell_ms_{name}_{mark}"] = round(telling, 4)
        print(f"{name:>20}" + "".join(f"{a:10.1f} / {t:5.3f}" for _, a, t in pairs), flush=True)

    for mark, asking in zip(marks, of_proposer(space, told, marks), strict=True):
        results[f"propose_ms_{mark}"] = round(asking, 2)
    print(f"{'all else':>20}" + "".join(f"{results[f'propose_ms_{m}']:10.1f}{'':8}" for m in marks))

    if "screening" in wanted:
        count = 100 if arguments.quick else 400
        for objectives in (4, 6, 8):
            asking = many_objectives(space, told, objectives, count)
            results[f"ask_ms_screening_{count}_of_{objectives}"] = round(asking, 2)
            print(f"{'screening':>20} {asking:9.1f} with {objectives} objectives, {count} trials")

    for label, seconds in fronts().items():
        results[label] = round(seconds, 4)
        print(f"{label:>20} {seconds:8.3f}", flush=True)

    count = 40 if arguments.quick else 200
    for label, make in {"sqlite": sqlite, "journal": journal}.items():
        grown, again, first = stored(make, space, count)
        results[f"storage_bytes_per_trial_{label}"] = round(grown)
        results[f"entries_ms_{label}_{count}"] = round(again, 2)
        results[f"open_ms_{label}_{count}"] = round(first, 1)
        print(
            f"{label:>20} {grown:8,.0f} bytes a trial; {count} trials are read in {first:.0f} ms, "
            f"and again in {again:.1f} ms",
            flush=True,
        )
    print(json.dumps(results))


if __name__ == "__main__":
    main()
