"""Trials through Ray: what they cost beside their work, and what a second worker brings.

Nothing is timed in these trials, so nothing but training keeps the cores busy. The time of a trial
is that between the ends of trials, from after the first ones, for which workers make themselves
ready, to before the last ones, when there is not work for all of them any more.
"""

from __future__ import annotations

import multiprocessing
import statistics
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import nn

import parefront as pf
from benchmarks.overhead import task as small_task
from parefront.search.launch import Silent
from parefront.search.records import Outcome

WARM = 10
"""Trials for which workers make themselves ready."""
_WIDE = 768


class Ends(Silent):
    """Notes when trials ended."""

    def __init__(self) -> None:
        self.times: list[float] = []

    def ended(self, trial: int, outcome: Outcome) -> None:  # noqa: ARG002
        """Notes the time."""
        self.times.append(time.perf_counter())


def between(times: Sequence[float], skip: int, leave: int) -> float:
    """Seconds a trial.

    Args:
        times: When trials ended, ascending.
        skip: Trials at the beginning that are left out.
        leave: Trials at the end that are left out.

    Example:
        >>> between([0.0, 9.0, 10.0, 11.0, 20.0], skip=1, leave=1)
        1.0
    """
    kept = times[skip : len(times) - leave]
    return (kept[-1] - kept[0]) / (len(kept) - 1)


def training_task() -> pf.Task:
    """A network whose trials do little but train, for seconds."""

    def split(count: int, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
        x = torch.randn(count, 64, generator=torch.Generator().manual_seed(seed))
        return x, (x[:, 0] > 0).long()

    return pf.Task(
        model=lambda: nn.Sequential(
            nn.Linear(64, _WIDE), nn.ReLU(), nn.Linear(_WIDE, _WIDE), nn.ReLU(),
            nn.Linear(_WIDE, 2),
        ),
        train=split(4096, 0),
        validation=split(256, 1),
        test=split(256, 2),
    )  # fmt: skip


TRAINING_SPACE: Mapping[str, Mapping[str, Any]] = {
    "recover": {
        "epochs": 4,
        "soft_weight": 0.5,
        "soft_loss": "kl",
        "batch_size": 64,
        "features": "none",
        "optimizer": "adam",
        "average": 0.0,
        "patience": 0,
        "mutual": False,
    },
}
"""Trainings that all take as long, and differ in learning rate and the like."""


def seconds_a_trial(
    task: pf.Task,
    engine: Mapping[str, Any],
    trials: int,
    *,
    skip: int,
    leave: int,
    space: Mapping[str, Mapping[str, Any]] | None = None,
) -> float:
    """Seconds between the ends of trials of a study of its own, which keeps nothing.

    Args:
        task: The task.
        engine: Where trials run.
        trials: How many there are.
        skip: Trials at the beginning that are left out.
        leave: Trials at the end that are left out.
        space: What is searched; by default all stages.
    """
    ends = Ends()
    with tempfile.TemporaryDirectory() as folder:
        pf.Study(
            task,
            name="scale",
            target={"protocol": "fixed"},
            storage=f"sqlite:///{Path(folder) / 'studies.db'}",
            engine=engine,
            sampler="random",
            cache_mb=0,
            gate=False,
            early_stop=False,
            settle=0.0,
            space=space,
        ).optimize(trials=trials, progress=ends)
    return between(ends.times, skip, leave)


def speedups(trials: int, repeats: int) -> list[float]:
    """Throughput of two workers with a core each, relative to that of one, side by side."""
    one, two = (partial(_training, workers, trials) for workers in (1, 2))
    return [apart(one) / apart(two) for _ in range(repeats)]


def _training(workers: int, trials: int) -> float:
    return _trained({"name": "ray", "workers": workers, "cpus": 1}, trials)


def _trained(engine: Mapping[str, Any], trials: int) -> float:
    torch.set_num_threads(1)  # as a worker has it
    return seconds_a_trial(training_task(), engine, trials, skip=4, leave=2, space=TRAINING_SPACE)


def ceilings(trials: int, repeats: int) -> list[float]:
    """Throughput of two studies without Ray at once, relative to that of one, side by side.

    They share nothing but the machine: no two workers can do better on it.
    """
    one = partial(_trained, {"name": "inline"}, trials)
    found = []
    for _ in range(repeats):
        alone = apart(one)
        with ProcessPoolExecutor(2, mp_context=multiprocessing.get_context("spawn")) as both:
            pair = [each.result() for each in [both.submit(one) for _ in range(2)]]
        found.append(sum(alone / each for each in pair))
    return found


def overheads(trials: int, repeats: int) -> list[float]:
    """Seconds that a trial takes longer on a Ray worker than in the launched process.

    Args:
        trials: Trials that are counted, each time.
        repeats: How often both are measured.
    """
    on_ray = partial(_small, {"name": "ray", "workers": 1, "cpus": 1}, trials)
    here = partial(_small, {"name": "inline"}, trials)
    return [apart(on_ray) - apart(here) for _ in range(repeats)]


def _small(engine: Mapping[str, Any], trials: int) -> float:
    torch.set_num_threads(1)  # as a worker has it
    return seconds_a_trial(small_task(), engine, WARM + trials, skip=WARM - 1, leave=0)


def apart(function: Callable[[], float]) -> float:
    """What a function returns in a process of its own, so that each begins alike."""
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as process:
        return process.submit(function).result()


def tune_functions(trials: int) -> float:
    """Seconds that Ray Tune takes for a function that does nothing, one at a time."""
    import ray
    from ray import tune

    from parefront.search.engines.ray.cluster import Cluster

    times: list[float] = []

    class Noted(tune.Callback):
        """Notes when trials ended."""

        def on_trial_complete(self, iteration: int, trials: Any, trial: Any, **info: Any) -> None:  # noqa: ANN401, ARG002
            """Notes the time."""
            times.append(time.perf_counter())

    def nothing(config: Mapping[str, Any]) -> None:  # noqa: ARG001
        tune.report({"done": 1})

    cluster = Cluster(None, 1)
    cluster.open()
    try:
        assert ray.is_initialized()
        with tempfile.TemporaryDirectory() as folder:
            tune.Tuner(
                nothing,
                tune_config=tune.TuneConfig(num_samples=trials, max_concurrent_trials=1),
                run_config=tune.RunConfig(
                    storage_path=folder, verbose=0, callbacks=[Noted()], progress_reporter=None
                ),
            ).fit()
    finally:
        cluster.close()
    return between(times, skip=2, leave=0)


def spread(values: Sequence[float]) -> str:
    """Median and range, for people.

    Example:
        >>> spread([1.0, 2.0, 4.0])
        '2.00 (1.00 to 4.00)'
    """
    return f"{statistics.median(values):.2f} ({min(values):.2f} to {max(values):.2f})"
