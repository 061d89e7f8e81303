"""Figures that papers report, tried on what can run here.

    python -m benchmarks.headlines [--only NAME ...] [--quick]

| name | reported |
|---|---|
| `pruned` | ResNet-56, CIFAR-10: 2.13 times fewer operations, nothing lost (Torch-Pruning) |
| `distilled` | a student 40 % smaller keeps 97 % of its teacher (DistilBERT, Sanh et al. 2019) |
| `int8` | a transformer classifier in int8, at most 0.8 points lost (NNCF) |
| `lenet` | LeNet-300-100, its file 40 times smaller, nothing lost (Deep Compression) |

Here all are on 5,000 MNIST digits, of which 3,000 train and 1,980 tell the accuracy, to about
0.6 points. Every candidate is one of a study with a config of its own; what counts is the exported
file. Prints a JSON object for each: `better`, how many times smaller or with how many times fewer
operations, higher is better; `accuracy`, and `lost`, points less than the baseline, lower is
better; `bar` and `reached`. The last line counts `headlines` and those `reached`.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.nn import functional

import parefront as pf
from benchmarks.jobs import cnn_job, lenet_job, transformer_job

Configs = Mapping[str, Mapping[str, Any]]


class Block(nn.Module):
    """A residual block of two convolutions; a wider one halves the map."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        stride = 1 if inputs == outputs else 2
        self.first = nn.Conv2d(inputs, outputs, 3, stride, padding=1, bias=False)
        self.first_norm = nn.BatchNorm2d(outputs)
        self.second = nn.Conv2d(outputs, outputs, 3, padding=1, bias=False)
        self.second_norm = nn.BatchNorm2d(outputs)
        self.shortcut: nn.Module = nn.Identity()
        if stride == 2:
            shortcut = nn.Conv2d(inputs, outputs, 1, stride, bias=False)
            self.shortcut = nn.Sequential(shortcut, nn.BatchNorm2d(outputs))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Features, `(n, outputs, h, w)`."""
        inner = functional.relu(self.first_norm(self.first(x)))
        return functional.relu(self.second_norm(self.second(inner)) + self.shortcut(x))


def resnet56() -> nn.Module:
    """ResNet-56 of He et al. 2016 for small images, with one channel."""
    widths = [16] * 9 + [32] * 9 + [64] * 9
    blocks = [Block(a, b) for a, b in zip([16, *widths], widths, strict=False)]
    return nn.Sequential(
        nn.Conv2d(1, 16, 3, padding=1, bias=False),
        nn.BatchNorm2d(16),
        nn.ReLU(),
        *blocks,
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(64, 10),
    )


def told_on_more(task: pf.Task) -> pf.Task:
    """The same task, with accuracy told by the test digits as well; a few are left for the test."""
    told, more = pf.Split.of(task.validation), pf.Split.of(task.test)
    images = torch.cat([told.inputs[0], more.inputs[0][20:]])
    labels = torch.cat([told.targets, more.targets[20:]])
    return replace(task, validation=(images, labels), test=(more.inputs[0][:20], more.targets[:20]))


@dataclass(frozen=True)
class Headline:
    """A figure of a paper.

    Attributes:
        job: The task.
        space: Ranges that hold all candidates.
        candidates: What is tried; the best that counts is told.
        measure: What becomes smaller, a measurement of the file.
        times: How many times smaller it has to become.
        lost: Points of accuracy that may be lost; of the baseline's percent if `relative`.
        relative: Whether `lost` is a share of the baseline's accuracy, in percent.
    """

    job: Callable[[], pf.Task]
    space: Mapping[str, Mapping[str, Any]]
    candidates: tuple[Configs, ...]
    measure: str
    times: float
    lost: float
    relative: bool = False


def _recover(epochs: int, rate: float = 0.003) -> Mapping[str, Any]:
    soft = {"soft_weight": 0.7, "temperature": 4.0}
    return {"epochs": epochs, "learning_rate": rate, "batch_size": 64, **soft}


def _sparse(sparsity: float) -> Mapping[str, Any]:
    how = {"pattern": "free", "scope": "global", "saliency": "magnitude", "schedule": "cubic"}
    return {"sparsity": sparsity, **how}


INT8 = {"calibration": "minmax", "per_channel": True, "equalize": False}
HEADLINES: Mapping[str, Headline] = {
    "pruned": Headline(
        lambda: replace(cnn_job(), model=resnet56, pretrain=pf.Pretrain(epochs=6)),
        {"prune": {"multiple": 4}, "recover": {"epochs": [1, 10]}},
        tuple(
            {
                "prune": {"ratio": ratio, "importance": "l2", "scope": "uniform", "multiple": 4},
                "recover": _recover(5),
            }
            for ratio in (0.4, 0.5)
        ),
        "macs",
        2.1,
        0.2,
    ),
    "distilled": Headline(
        transformer_job,
        {"drop": {}, "recover": {"epochs": [1, 40]}},
        ({"drop": {"share": 0.5, "importance": "similarity"}, "recover": _recover(20)},),
        "size",
        1 / 0.6,
        3.0,
        relative=True,
    ),
    "int8": Headline(
        transformer_job,
        {"quantize": {}},
        (
            {"quantize": {"method": "static", "correct_bias": False, **INT8}},
            {"quantize": {"method": "dynamic", **INT8, "calibration": None}},
        ),
        "size",
        2.0,
        0.8,
    ),
    "lenet": Headline(
        lenet_job,
        {
            "sparsify": {"sparsity": [0.5, 0.99]},
            "cluster": {"bits": [1, 8]},
            "round": {},
            "recover": {"epochs": [1, 120]},
        },
        (
            {
                "sparsify": _sparse(0.93),
                "round": {"levels": "ternary", "ends": True},
                "recover": _recover(100),
                "pack": {},
            },
            {
                "sparsify": _sparse(0.93),
                "cluster": {"bits": 3},
                "recover": _recover(80),
                "pack": {},
            },
        ),
        "size",
        35.0,
        0.0,
    ),
}


def measure(name: str, folder: Path) -> dict[str, Any]:
    """What comes out of one headline.

    Args:
        name: Its name.
        folder: Where its study is kept.
    """
    headline = HEADLINES[name]
    study = pf.Study(
        told_on_more(headline.job()),
        name=name,
        trials=1 + len(headline.candidates),
        start=headline.candidates,
        space=headline.space,
        objectives={"accuracy": {}, "latency": {}, "size": {}, "macs": {"optimize": False}},
        target={"seconds": 2.0},
        sampler="random",
        siblings=False,
        gate=False,
        early_stop=False,
        settle=0,
        storage=f"sqlite:///{folder / name}.db",
    ).optimize()
    baseline, *trials = [entry.outcome for entry in study.opened().entries()]
    rows = []
    for trial in trials:
        if trial is None or trial.status != "complete" or baseline is None:
            raise SystemExit(f"{name}: {trial and trial.reason}")
        before, after = (
            {key: found.value for key, found in each.measurements.items()}
            for each in (baseline, trial)
        )
        lost = 100 * (before["accuracy"] - after["accuracy"])
        lost /= before["accuracy"] if headline.relative else 1.0
        better = before[headline.measure] / after[headline.measure]
        rows.append(
            {
                "headline": name,
                "better": round(better, 2),
                "accuracy": round(after["accuracy"], 4),
                "lost": round(lost, 2),
                "latency_ratio": round(after["latency"] / before["latency"], 3),
                "bar": {headline.measure: round(headline.times, 2), "lost": headline.lost},
                "reached": better >= headline.times and lost <= headline.lost,
            }
        )
    for row in rows:
        print(json.dumps(row), flush=True)
    return max(rows, key=lambda row: (row["reached"], -row["lost"]))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", nargs="+", choices=HEADLINES, help="these alone")
    parser.add_argument("--quick", action="store_true", help="int8 alone")
    arguments = parser.parse_args()
    names = ["int8"] if arguments.quick else arguments.only or list(HEADLINES)
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        rows = [measure(name, Path(folder)) for name in names]
    reached = [row["headline"] for row in rows if row["reached"]]
    print(json.dumps({"headlines": len(rows), "reached": len(reached), "which": reached}))


if __name__ == "__main__":
    main()
