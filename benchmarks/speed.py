"""How long a search takes to find what plain Optuna finds, on a real job, and what each part does.

The job is the CNN on MNIST of `examples/`. Plain Optuna (TPE, and NSGA-II with a population of 10)
draws from the same space and measures with the same pipeline; every trial is made from scratch, and
nothing is tried beforehand. It runs for `--seconds`. Then parefront searches until it has the
hypervolume that the better of the two ended with, or the same time is over; and again with one part
left out at a time. Times are wall-clock from the first trial on; the trained baseline is the same.

The hypervolume is that of the error up to 10 %, and of the logarithms of latency and size relative
to the baseline's.

    python -m benchmarks.speed [--seeds N] [--seconds S] [--parts PART ...] [--quick]

The last line is a JSON object: `time_ratio`, the time of parefront over that of plain Optuna, lower
is better, as the geometric mean over the seeds; `time_ratio_tpe` and `time_ratio_nsga2` against
each of the two; `time_ratio_without_...` with a part left out; and `reached...`, how many of the
seeds got there, without which a ratio is 1. The lines before have 95 % intervals.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

# As on the command line, and before torch loads: threads that wait must not spin.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import numpy as np
import optuna

import parefront as pf
from benchmarks import plain_optuna
from benchmarks.statistics import half_interval
from benchmarks.volumes import Volume
from parefront.search.launch import Silent
from parefront.search.records import Outcome, Status
from parefront.spaces.space import Candidate

TASK = Path(__file__).parent.parent / "examples" / "mnist_cnn.py"
SPACE: dict[str, dict[str, Any]] = {
    "prune": {},
    "factorize": {},
    "recover": {"epochs": [2, 5]},
    "quantize": {},
}
PLAIN: dict[str, Callable[[int], optuna.samplers.BaseSampler]] = {
    "tpe": lambda seed: optuna.samplers.TPESampler(seed=seed),
    "nsga2": lambda seed: optuna.samplers.NSGAIISampler(seed=seed, population_size=10),
}
PARTS: dict[str, dict[str, Any]] = {
    "cache": {"cache_mb": 0},
    "siblings": {"siblings": False},
    "gate": {"gate": False},
    "early_stop": {"early_stop": False},
    "screening": {"sampler": "tpe"},
}
"""What is left out, and the settings that do so."""


class Chase(Silent):
    """Ends a search when it has a hypervolume.

    Args:
        study: The study.
        volume: Its hypervolume.
        wanted: The hypervolumes to reach, by name; it ends when all are.
        seconds: Time after which it ends all the same.
    """

    def __init__(
        self, study: pf.Study, volume: Volume, wanted: dict[str, float], seconds: float
    ) -> None:
        self._study, self._volume, self._wanted, self._seconds = study, volume, wanted, seconds
        self._began: float | None = None
        self.reached: dict[str, float] = {}
        self.trials = 0

    def began(self, trial: int, candidate: Candidate) -> None:  # noqa: ARG002
        """Starts the watch at the first trial after the baseline."""
        if self._began is None and trial > 0:
            self._began = time.monotonic()

    def ended(self, trial: int, outcome: Outcome) -> None:  # noqa: ARG002
        """Notes what is reached."""
        now = self._volume.add(outcome)
        spent = time.monotonic() - self._began if self._began is not None else 0.0
        self.trials += 1
        for name, wanted in self._wanted.items():
            if now >= wanted:
                self.reached.setdefault(name, spent)
        if len(self.reached) == len(self._wanted) or spent > self._seconds:
            self._study.stop()


def study(folder: Path, name: str, seed: int, changes: Mapping[str, Any] | None = None) -> pf.Study:
    """A study of the job in a folder of its own, so that nothing is shared but the baseline."""
    parts: dict[str, Any] = {"settle": 0, "space": SPACE, "target": {"seconds": 1.5}}
    url = f"sqlite:///{folder / name / 'studies.db'}"
    (folder / name).mkdir(exist_ok=True)
    return pf.Study(
        f"{TASK}:task", name=name, seed=seed, storage=url, **(parts | dict(changes or {}))
    )


def chase(
    folder: Path,
    name: str,
    seed: int,
    wanted: dict[str, float],
    seconds: float,
    changes: Mapping[str, Any],
) -> tuple[dict[str, float], float, int]:
    """Runs parefront until it has the hypervolumes, or the time is over.

    Returns:
        Seconds to each of them that was reached, the last hypervolume, and the number of trials.
    """
    found = study(folder, name, seed, changes).optimize(trials=1)
    volume = Volume(_baseline(found))
    again = study(folder, name, seed, changes)
    watch = Chase(again, volume, wanted, seconds)
    again.optimize(progress=watch)
    return watch.reached, volume.now, watch.trials


def _baseline(found: pf.Study) -> Outcome:
    outcome = found.opened().entries()[0].outcome
    if outcome is None or outcome.status != Status.COMPLETE:
        raise SystemExit(f"the baseline was not measured: {outcome}")
    return outcome


def one_seed(
    folder: Path, seed: int, seconds: float, parts: Sequence[str]
) -> tuple[dict[str, float], dict[str, bool]]:
    """Runs all arms with a seed.

    Returns:
        Ratios by name, and whether the hypervolume of the better plain search was reached.
    """
    plain: dict[str, float] = {}
    for name, make in PLAIN.items():
        base = study(folder, name, seed).optimize(trials=1)
        volume, trials = Volume(_baseline(base)), 0
        for _, outcome in plain_optuna.search(base, make(seed), seconds):
            volume.add(outcome)
            trials += 1
        plain[name] = volume.now
        print(
            f"seed {seed}  plain {name:<10} {trials:>3} trials  volume {volume.now:.4f}", flush=True
        )
    wanted = plain | {"": max(plain.values())}
    ratios: dict[str, float] = {}
    reached: dict[str, bool] = {}
    for part in ("", *parts):
        times, last, trials = chase(
            folder, f"without_{part}" if part else "parefront", seed, wanted, seconds,
            PARTS[part] if part else {},
        )  # fmt: skip
        name = f"_without_{part}" if part else ""
        ratios[f"time_ratio{name}"] = min(times.get("", seconds) / seconds, 1.0)
        reached[f"reached{name}"] = "" in times
        if not part:
            for rival in plain:
                ratios[f"time_ratio_{rival}"] = min(times.get(rival, seconds) / seconds, 1.0)
        print(
            f"seed {seed}  {name.strip('_') or 'parefront':<20} {trials:>3} trials  "
            f"volume {last:.4f}  ratio {ratios[f'time_ratio{name}']:.3f}"
            f"{'' if '' in times else '  not reached'}",
            flush=True,
        )
    return ratios, reached


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=10, help="how many searches of each kind")
    parser.add_argument("--seconds", type=float, default=180.0, help="time of a plain search")
    parser.add_argument("--parts", nargs="*", default=list(PARTS), choices=list(PARTS))
    parser.add_argument("--quick", action="store_true", help="1 seed, 40 seconds")
    arguments = parser.parse_args()
    seeds, seconds = (1, 40.0) if arguments.quick else (arguments.seeds, arguments.seconds)
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    ratios: dict[str, list[float]] = {}
    reached: dict[str, int] = {}
    for seed in range(seeds):
        with tempfile.TemporaryDirectory() as folder:
            found, there = one_seed(Path(folder), seed, seconds, arguments.parts)
        for name, ratio in found.items():
            ratios.setdefault(name, []).append(ratio)
        for name, yes in there.items():
            reached[name] = reached.get(name, 0) + yes
    result: dict[str, float] = {}
    for name, each in ratios.items():
        logs = np.log(each)
        half = half_interval(logs)
        result[name] = round(float(np.exp(logs.mean())), 4)
        spread = f"  {np.exp(logs.mean() - half):.3f} to {np.exp(logs.mean() + half):.3f}"
        print(f"{name:<32} {result[name]:.3f}{spread if len(each) > 1 else ''}")
    print(json.dumps({**result, **reached, "seeds": seeds, "seconds": seconds}))


if __name__ == "__main__":
    main()
