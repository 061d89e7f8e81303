"""What a trial costs beside its own work.

A study of 200 trials runs as it would for a user, with the default sampler and storage. The time of
each trial that is not spent in stages, training, building or measuring is the search's own: asking,
deciding, recording, moving files. It is compared with the whole wall-clock time, so that nothing
between trials is left out.

    python -m benchmarks.overhead [--quick]

The last line is a JSON object: `overhead_ms_per_trial`, lower is better, and `trials`.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from pathlib import Path

import torch
from torch import nn

import parefront as pf
from parefront.search.launch import Silent
from parefront.search.records import Outcome
from parefront.spaces.space import Candidate


def task() -> pf.Task:
    """A network so small that its trials cost little but the search's own time."""

    def split(count: int, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
        x = torch.randn(count, 16, generator=torch.Generator().manual_seed(seed))
        return x, (x[:, 0] > 0).long()

    return pf.Task(
        model=lambda: nn.Sequential(
            nn.Linear(16, 32), nn.ReLU(), nn.Linear(32, 32), nn.ReLU(), nn.Linear(32, 2)
        ),
        train=split(128, 0),
        validation=split(64, 1),
        test=split(64, 2),
    )


class Stopwatch(Silent):
    """Notes when the first trial began and the last one was recorded."""

    first: float | None = None
    last = 0.0

    def began(self, trial: int, candidate: Candidate) -> None:  # noqa: ARG002
        """Starts the watch at the first trial."""
        if self.first is None:
            self.first = time.perf_counter()

    def ended(self, trial: int, outcome: Outcome) -> None:  # noqa: ARG002
        """Notes the time."""
        self.last = time.perf_counter()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="40 trials instead of 200")
    trials = 40 if parser.parse_args().quick else 200
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        study = pf.Study(
            task(),
            name="overhead",
            target={"protocol": "fixed"},
            storage=f"sqlite:///{Path(folder) / 'studies.db'}",
        )
        watch = Stopwatch()
        study.optimize(trials=trials, progress=watch)
        wall = watch.last - (watch.first or 0.0)
        entries = study.opened().ledger.entries()
        work = sum(sum(e.outcome.seconds.values()) for e in entries if e.outcome is not None)
    steps: dict[str, float] = {}
    for entry in entries:
        for step, seconds in (entry.outcome.seconds if entry.outcome else {}).items():
            steps[step] = steps.get(step, 0.0) + seconds
    for step, seconds in steps.items():
        print(f"{step:>10} {1000 * seconds / trials:8.1f} ms a trial")
    overhead = 1000 * (wall - work) / trials
    print(f"{'overhead':>10} {overhead:8.1f} ms a trial")
    print(json.dumps({"overhead_ms_per_trial": round(overhead, 2), "trials": trials}))


if __name__ == "__main__":
    main()
