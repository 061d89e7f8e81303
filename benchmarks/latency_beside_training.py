"""Whether a training beside it changes what a latency is measured to be.

Convolutional networks of different widths, untrained, are timed against the widest of them, as
trials of a search are: by a measuring actor of a Ray that runs on this machine, which keeps to the
cores that no trial trains on. Each is timed three times, in an order that is drawn: alone, while a
worker trains without a rest on the other cores, and alone once more. The second alone is the
control: two measurements of one file differ without any training, too. A latency here is the ratio
to the widest network's, as a search has it before it multiplies by one calibrated time.

    python -m benchmarks.latency_beside_training [--quick]

The last line is a JSON object. `rank_correlation` is Spearman's, of the latencies alone and beside
the training; `worst_difference_percent` and `median_difference_percent` are of a candidate's
latency beside the training, relative to that alone, whatever its sign; `shift_percent` is the
median with its sign, `shift_low_percent` and `shift_high_percent` the ends of its 95 % interval
(bootstrap over the candidates). `within_percent` is how many candidates have intervals that
overlap. What begins with `control_` compares the two passes alone. Each timing takes 6 s at most,
twice a search's. Quick: fewer candidates, shorter timings. The machine needs two cores, and nothing
else to do; on one core, measuring and training share it.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import secrets
import shutil
import tempfile
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import ray
import torch
from numpy.typing import ArrayLike
from torch import nn

from parefront.objectives.targets.device import Effort, Timing
from parefront.objectives.targets.onnx_runtime import OnnxRuntime
from parefront.objectives.targets.target import Target
from parefront.search.engines.ray.cores import pin
from parefront.search.engines.ray.devices import (
    open_devices,
    own_resources,
    own_split,
    training_cores,
)
from parefront.search.engines.ray.measuring import MeasuringDevice

NARROWEST, WIDEST = 6, 64
RESAMPLES = 2000


@dataclass(frozen=True)
class Agreement:
    """How far latencies beside a training agree with those alone.

    Attributes:
        rank_correlation: Spearman's, of the candidates' latencies.
        worst_difference: Largest relative difference of a candidate's latency.
        median_difference: Median over the candidates of the relative difference.
        candidates: How many there were.
        shift: Median of the differences with their signs.
        shift_low: Lower end of its 95 % interval.
        shift_high: Upper end of its 95 % interval.
        within: Share of the candidates whose two intervals overlap.
        training_steps: Steps that the training made meanwhile.
        control_rank_correlation: As above, of two passes alone.
        control_worst_difference: As above, of two passes alone.
        control_median_difference: As above, of two passes alone.
    """

    rank_correlation: float
    worst_difference: float
    median_difference: float
    candidates: int
    shift: float
    shift_low: float
    shift_high: float
    within: float
    training_steps: int
    control_rank_correlation: float
    control_worst_difference: float
    control_median_difference: float


class ConvNet(nn.Module):
    """A small network for 28x28 images."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(1, width, 3, padding=1),
            nn.BatchNorm2d(width),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Conv2d(width, 2 * width, 3, padding=1),
            nn.BatchNorm2d(2 * width),
            nn.ReLU(),
            nn.AdaptiveAvgPool2d(4),
            nn.Flatten(),
            nn.Linear(32 * width, 10),
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Scores of ten classes."""
        return self.layers(x)  # type: ignore[no-any-return]


class Trainer:
    """Trains, as a worker of a search does, on the cores that are left for it."""

    def __init__(self, device: MeasuringDevice) -> None:
        cores = training_cores([device])
        pin(cores)
        torch.set_num_threads(len(cores))
        self._over = threading.Event()
        self._steps = 0
        self._thread: threading.Thread | None = None

    def start(self) -> list[int]:
        """Begins; returns the cores it trains on."""
        self._over.clear()
        self._thread = threading.Thread(target=self._train)
        self._thread.start()
        return sorted(os.sched_getaffinity(0))

    def stop(self) -> int:
        """Ends; returns how many steps it has made in all."""
        self._over.set()
        if self._thread is not None:
            self._thread.join()
        return self._steps

    def _train(self) -> None:
        model = ConvNet(32).train()
        optimizer = torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9)
        inputs, targets = torch.randn(2048, 1, 28, 28), torch.randint(10, (2048,))
        while not self._over.is_set():
            rows = torch.randint(len(inputs), (64,))
            optimizer.zero_grad()
            loss = nn.functional.cross_entropy(model(inputs[rows]), targets[rows])
            torch.autograd.backward(loss)
            optimizer.step()
            self._steps += 1


def candidates_of(count: int, folder: Path) -> list[Path]:
    """Files of untrained networks, from narrow to wide."""
    torch.manual_seed(0)
    widths = np.unique(np.geomspace(NARROWEST, WIDEST, count).round().astype(int))
    assert len(widths) == count, "two candidates of one width"
    paths = []
    for width in widths.tolist():
        path = folder / f"width-{width}.onnx"
        OnnxRuntime().build(ConvNet(width).eval(), (torch.randn(1, 1, 28, 28),), ["x"], path)
        paths.append(path)
    return paths


@contextmanager
def apart(target: Target) -> Iterator[tuple[MeasuringDevice, Any]]:
    """A measuring actor and a worker that trains, on a Ray of their own; this process beside it."""
    targets: dict[str | None, Target] = {None: target}
    split = own_split(targets)
    folder = tempfile.mkdtemp(prefix="pf-")  # sockets need a short path
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    os.environ.setdefault("RAY_AUTH_TOKEN", secrets.token_hex(32))
    ray.init(
        num_cpus=len(split.training),
        resources=own_resources(targets),
        include_dashboard=False,
        log_to_driver=False,
        logging_level=logging.ERROR,
        _temp_dir=folder,
    )
    before = sorted(os.sched_getaffinity(0))
    pin(split.training)
    try:
        device = open_devices(targets)[None]
        assert isinstance(device, MeasuringDevice)
        kind: Any = ray.remote(num_cpus=len(split.training))(Trainer)
        yield device, kind.remote(device)
    finally:
        ray.shutdown()
        pin(before)
        shutil.rmtree(folder, ignore_errors=True)


def latency_agreement(candidates: int = 20, quick: bool = False) -> Agreement:
    """Times candidates alone, beside a training, and alone again, in a process of its own.

    Args:
        candidates: How many.
        quick: Whether each timing is short.
    """
    # Whoever asks may use Ray already, and shall not be pinned.
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        return pool.submit(timed, candidates, quick).result()


def timed(candidates: int, quick: bool) -> Agreement:
    """As `latency_agreement`, in this very process."""
    # Finer than a search needs, so that what is seen is less the measurement's own error.
    effort = Effort(runs=100, seconds=1.0) if quick else Effort(precision=0.01, seconds=6.0)
    target = Target()
    rng = np.random.default_rng(0)
    found: dict[str, list[Timing | None]] = {
        name: [None] * candidates for name in ("alone", "beside", "again")
    }
    steps = 0
    feeds: Any = {"x": rng.standard_normal((1, 1, 28, 28)).astype(np.float32)}
    with tempfile.TemporaryDirectory() as folder, apart(target) as (device, trainer):
        files = candidates_of(candidates, Path(folder))
        for index in rng.permutation(candidates).tolist():
            for name in rng.permutation(list(found)).tolist():
                if name == "beside":
                    ray.get(trainer.start.remote())
                try:
                    found[name][index] = device.time(
                        files[index],
                        files[-1],
                        feeds,
                        runtime=target.runtime,
                        threads=target.threads,
                        effort=effort,
                    )
                finally:
                    steps = ray.get(trainer.stop.remote())
    timings = {name: [t for t in each if t is not None] for name, each in found.items()}
    return agreement(timings["alone"], timings["beside"], timings["again"], steps)


def agreement(
    alone: Sequence[Timing], beside: Sequence[Timing], again: Sequence[Timing], steps: int
) -> Agreement:
    """What three passes say.

    Args:
        alone: A timing for each candidate.
        beside: The same while a worker trained.
        again: The same as the first, later.
        steps: Steps that the training made.
    """
    first, other, second = (
        np.array([timing.ratio for timing in timings]) for timings in (alone, beside, again)
    )
    signed, control = other / first - 1, second / first - 1
    rng = np.random.default_rng(0)
    medians = np.median(rng.choice(signed, (RESAMPLES, len(signed))), axis=1)
    low, high = np.quantile(medians, [0.025, 0.975])
    within = [
        a.ratio_low <= b.ratio_high and b.ratio_low <= a.ratio_high
        for a, b in zip(alone, beside, strict=True)
    ]
    return Agreement(
        rank_correlation=spearman(first, other),
        worst_difference=float(np.abs(signed).max()),
        median_difference=float(np.median(np.abs(signed))),
        candidates=len(first),
        shift=float(np.median(signed)),
        shift_low=float(low),
        shift_high=float(high),
        within=float(np.mean(within)),
        training_steps=steps,
        control_rank_correlation=spearman(first, second),
        control_worst_difference=float(np.abs(control).max()),
        control_median_difference=float(np.median(np.abs(control))),
    )


def spearman(one: ArrayLike, other: ArrayLike) -> float:
    """Spearman's rank correlation of numbers without ties."""
    first, second = (np.argsort(np.argsort(each)) for each in (one, other))
    return float(np.corrcoef(first, second)[0, 1])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="about a minute")
    parser.add_argument("--candidates", type=int, help="how many (20; quick: 8)")
    arguments = parser.parse_args()
    count = arguments.candidates or (8 if arguments.quick else 20)
    found = timed(count, quick=arguments.quick)
    print(f"{found.candidates} candidates; {found.training_steps} steps of training meanwhile")
    values = asdict(found)
    for name, prefix in (("beside", ""), ("control", "control_")):
        rank, median, worst = (
            values[f"{prefix}{key}"]
            for key in ("rank_correlation", "median_difference", "worst_difference")
        )
        print(
            f"{name:>8}: rank correlation {rank:.4f}, difference {100 * median:.2f} % in the "
            f"median, {100 * worst:.2f} % at worst"
        )
    plain = {"candidates", "training_steps", "rank_correlation", "control_rank_correlation"}
    shown = {name: round(value, 4) for name, value in values.items() if name in plain}
    percent = {
        f"{name}_percent": round(100 * value, 2)
        for name, value in values.items()
        if name not in plain
    }
    print(json.dumps(shown | percent))


if __name__ == "__main__":
    main()
