"""Whether searching all techniques together finds more than any family of them alone.

On each job every arm is a study with the default sampler and the same wall-clock time: all
techniques, and each family with the recovery training that belongs to it. What an arm found is the
hypervolume of its front: of the error up to 33 %, and of the logarithms of latency and size over
those of the baseline; latency up to 1.2 times its own, so that what only makes the file smaller
counts.

    python -m benchmarks.joint [--seconds S] [--seeds N] [--job NAME ...] [--quick]

The last line is a JSON object: `hypervolume_joint_over_best_family`, the smallest over the jobs of
the joint search's hypervolume over that of the best family, larger is better; `ratio_JOB` of each
job; and `hypervolume_JOB_ARM`. Means over the seeds.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

# As on the command line, and before torch loads: threads that wait must not spin.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import numpy as np

import parefront as pf
from benchmarks.jobs import JOBS
from benchmarks.volumes import Volume

WORST_ERROR = 0.33
WORST_LATENCY = 1.2
RECOVER: Mapping[str, Any] = {"epochs": [2, 5]}
FAMILIES: Mapping[str, tuple[str, ...]] = {
    "pruning": ("prune", "sparsify"),
    "lowrank": ("factorize",),
    "sharing": ("cluster",),
    "quantization": ("round", "half", "quantize"),
}


def hypervolume(job: str, stages: tuple[str, ...], seconds: float, seed: int, url: str) -> float:
    """What a search with some stages finds.

    Args:
        job: Name of the job.
        stages: Stages beside recovery training.
        seconds: Time of the search.
        seed: Its seed.
        url: Where it is kept.
    """
    study = pf.Study(
        JOBS[job](),
        name=f"{job}-{seed}-{'-'.join(stages)}",
        space={name: {} for name in stages} | {"recover": dict(RECOVER)},
        target={"seconds": 1.5},
        time=seconds,
        seed=seed,
        settle=0,
        storage=url,
    ).optimize()
    entries = study.opened().entries()
    baseline = entries[0].outcome
    if baseline is None:
        raise SystemExit("the baseline was not measured")
    volume = Volume(baseline, worst_error=WORST_ERROR, worst_latency=WORST_LATENCY)
    for entry in entries:
        if entry.outcome is not None:
            volume.add(entry.outcome)
    print(f"{study.name:<60} {len(entries):>3} trials  volume {volume.now:.4f}", flush=True)
    return volume.now


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=180.0, help="time of each search")
    parser.add_argument("--seeds", type=int, default=3, help="searches of each arm")
    parser.add_argument("--job", nargs="+", choices=JOBS, default=["cnn", "transformer"])
    parser.add_argument("--quick", action="store_true", help="40 seconds, one seed, one job")
    arguments = parser.parse_args()
    seconds, seeds, jobs = arguments.seconds, arguments.seeds, arguments.job
    if arguments.quick:
        seconds, seeds, jobs = 40.0, 1, jobs[:1]
    everything = tuple(stage for family in FAMILIES.values() for stage in family)
    arms = {"joint": everything, **FAMILIES}
    results: dict[str, float] = {}
    for job in jobs:
        for arm, stages in arms.items():
            found = []
            for seed in range(seeds):
                with tempfile.TemporaryDirectory() as folder:  # nothing is shared between arms
                    url = f"sqlite:///{Path(folder) / 'studies.db'}"
                    found.append(hypervolume(job, stages, seconds, seed, url))
            results[f"hypervolume_{job}_{arm}"] = round(float(np.mean(found)), 4)
        best = max(results[f"hypervolume_{job}_{family}"] for family in FAMILIES)
        results[f"ratio_{job}"] = round(results[f"hypervolume_{job}_joint"] / best, 4)
    smallest = min(results[f"ratio_{job}"] for job in jobs)
    print(json.dumps({"hypervolume_joint_over_best_family": smallest, **results}))


if __name__ == "__main__":
    main()
