"""What each technique is worth by itself, measured on the file it ends in.

Each is a candidate of a study of its own config, with the recovery training it needs, on the MNIST
digits of `examples/`: the convolutional network, a small transformer encoder and LeNet-300-100.

    python -m benchmarks.techniques [--quick] [--model NAME ...] [--only TEXT ...]

Prints a JSON object for each technique and model: `size_ratio` and `latency_ratio` to the
baseline, lower is better; `accuracy_drop` on the validation split, in points, lower is better;
`seconds` the trial took. Where a technique has nothing to do, or fails, `reason` takes their place.
The last line counts `techniques`, and how many are `smaller`: those of which the file was smaller
than the baseline's on each model where they had something to do.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

import parefront as pf
from benchmarks.jobs import JOBS

Configs = Mapping[str, Mapping[str, Any]]

RECOVER = {
    "epochs": 5,
    "learning_rate": 0.003,
    "soft_weight": 0.7,
    "soft_loss": "kl",
    "temperature": 4.0,
    "batch_size": 64,
    "schedule": "one_cycle",
    "patience": 0,
    "mutual": False,
}


def _trained(**stages: Mapping[str, Any]) -> Configs:
    return {**stages, "recover": RECOVER}


def _halved(**recovery: object) -> Configs:
    """Half of the layers, recovered in another way."""
    return {"drop": {"share": 0.5, "importance": "loss"}, "recover": {**RECOVER, **recovery}}


def _packed(**stages: Mapping[str, Any]) -> Configs:
    return {**_trained(**stages), "pack": {}}


def _int8(method: str, calibration: str | None, **config: bool | int) -> Configs:
    plain: dict[str, object] = {"equalize": False, "activation_bits": 8, "weight_bits": 8}
    if method == "static":
        plain |= {"correct_bias": False, "symmetric_activations": False, "symmetric_weights": True}
    return {"quantize": {"method": method, "calibration": calibration, **plain, **config}}


def _sparse(**config: object) -> Mapping[str, Any]:
    plain = {"pattern": "free", "scope": "global", "saliency": "magnitude", **config}
    return {"schedule": "once", **plain} if plain["saliency"] == "magnitude" else plain


def _low_rank(**config: object) -> Configs:
    plain = {"rank": "ratio", "convolution": "spatial", "embeddings": False, "layerwise": False}
    share = {} if "energy" in config else {"ratio": 0.5}
    return _trained(factorize={**plain, **share, **config})


def _levels(levels: str, bits: int | None, **config: object) -> Configs:
    plain = {"levels": levels, "bits": bits, "ends": True, "rounding": "nearest", **config}
    return _packed(round={"allocation": "even", **plain} if levels == "uniform" else plain)


PRUNE = {"ratio": 0.5, "importance": "l2", "scope": "global", "multiple": 8}
HEADS = {"ratio": 0.5, "importance": "l2", "scope": "global"}
STATIC = _int8("static", "minmax", per_channel=True)["quantize"]
TECHNIQUES: Mapping[str, Configs] = {
    "half the layers, by loss": _trained(drop={"share": 0.5, "importance": "loss"}),
    "half the layers, by similarity": _trained(drop={"share": 0.5, "importance": "similarity"}),
    "half the heads, l2": _trained(heads=HEADS),
    "half the heads, taylor": _trained(heads={**HEADS, "importance": "taylor"}),
    "half the heads, random": _trained(heads={**HEADS, "importance": "random"}),
    "half the heads and channels": _trained(heads=HEADS, prune=PRUNE),
    "half the layers, labels alone": _halved(soft_weight=0.0, soft_loss=None, temperature=None),
    "half the layers, hard labels": _halved(soft_loss="hard", temperature=None, soft_weight=0.5),
    "half the layers, two students": _halved(mutual=True, temperature=1.0, soft_weight=0.5),
    "half the layers, 20 epochs": _halved(epochs=20),
    "half the layers, early stop": _halved(epochs=20, patience=3, schedule="constant"),
    "channels, l2": _trained(prune=PRUNE),
    "channels, l1": _trained(prune={**PRUNE, "importance": "l1"}),
    "channels, taylor": _trained(prune={**PRUNE, "importance": "taylor"}),
    "channels, batch-norm scale": _trained(prune={**PRUNE, "importance": "bn_scale"}),
    "channels, geometric median": _trained(prune={**PRUNE, "importance": "median"}),
    "channels, each layer alike": _trained(prune={**PRUNE, "scope": "uniform"}),
    "channels, by sensitivity": _trained(prune={**PRUNE, "scope": "sensitivity"}),
    "channels, random": _trained(prune={**PRUNE, "importance": "random"}),
    "low rank": _low_rank(),
    "low rank, separable": _low_rank(convolution="separable"),
    "low rank, Tucker-2": _low_rank(convolution="tucker"),
    "low rank, grouped": _low_rank(convolution="grouped"),
    "low rank, bottleneck": _low_rank(convolution="bottleneck"),
    "low rank, by energy": _low_rank(rank="energy", energy=0.7, convolution="tucker"),
    "low rank, by sensitivity": _low_rank(rank="sensitivity"),
    "low rank, half the latency": _low_rank(rank="latency"),
    "low rank, layer by layer": _low_rank(layerwise=True),
    "low rank, embeddings too": _low_rank(embeddings=True),
    "blocks shared in pairs": _trained(share={"group": 2, "start": "first"}),
    "blocks shared in pairs, mean": _trained(share={"group": 2, "start": "mean"}),
    "sparse 80 %": _packed(sparsify=_sparse(sparsity=0.8)),
    "sparse 95 %": _packed(sparsify=_sparse(sparsity=0.95)),
    "sparse 95 %, step by step": _packed(sparsify=_sparse(sparsity=0.95, schedule="cubic")),
    "sparse 95 %, three rounds": _packed(
        sparsify=_sparse(sparsity=0.95, schedule="rounds", rounds=3, rewind=False)
    ),
    "sparse 95 %, three rounds, rewound": _packed(
        sparsify=_sparse(sparsity=0.95, schedule="rounds", rounds=3, rewind=True)
    ),
    "sparse 95 %, movement": _packed(sparsify=_sparse(sparsity=0.95, saliency="movement")),
    "sparse 95 %, by sensitivity": _packed(sparsify=_sparse(sparsity=0.95, scope="sensitivity")),
    "sparse 95 %, step by step, by sensitivity": _packed(
        sparsify=_sparse(sparsity=0.95, schedule="cubic", scope="sensitivity")
    ),
    "sparse 95 %, gradient": _packed(sparsify=_sparse(sparsity=0.95, saliency="gradient")),
    "sparse 95 %, random": _packed(sparsify=_sparse(sparsity=0.95, saliency="random")),
    "sparse 2:4": _packed(sparsify={"pattern": "2:4", "saliency": "magnitude"}),
    "clusters, 4 bits": _packed(cluster={"bits": 4}),
    "clusters, 2 bits": _packed(cluster={"bits": 2}),
    "sparse 90 % and clusters, 4 bits": _packed(
        sparsify=_sparse(sparsity=0.9), cluster={"bits": 4}
    ),
    "sparse 95 % and clusters, 4 bits": _packed(
        sparsify=_sparse(sparsity=0.95, schedule="cubic"), cluster={"bits": 4}
    ),
    "uniform, 4 bits": _levels("uniform", 4),
    "uniform, 3 bits": _levels("uniform", 3),
    "uniform, 3 bits on average": _levels("uniform", 3, allocation="sensitivity"),
    "uniform, 3 bits, adaptive": _levels("uniform", 3, rounding="adaptive"),
    "powers of two, 4 bits": _levels("power_of_two", 4),
    "additive powers, 4 bits": _levels("additive", 4),
    "ternary": _levels("ternary", None),
    "ternary, but for the ends": _levels("ternary", None, ends=False),
    "binary": _levels("binary", None),
    "binary, but for the ends": _levels("binary", None, ends=False),
    "float16": {"half": {"format": "float16"}, "pack": {}},
    "bfloat16": {"half": {"format": "bfloat16"}, "pack": {}},
    "fixed point, 16 bits": {"half": {"format": "fixed16"}, "pack": {}},
    "4 bits in blocks of 32": {"blocks": {"size": 32, "symmetric": False}},
    "4 bits in blocks of 128": {"blocks": {"size": 128, "symmetric": False}},
    "int8 static, minmax": _int8("static", "minmax", per_channel=True),
    "int8 static, entropy": _int8("static", "entropy", per_channel=True),
    "int8 static, percentile": _int8("static", "percentile", per_channel=True),
    "int8 static, average": _int8("static", "average", per_channel=True),
    "int8 static, mse": _int8("static", "mse", per_channel=True),
    "int8 static, a scale a tensor": _int8("static", "minmax", per_channel=False),
    "int8, a scale a tensor, equalised": _int8(
        "static", "minmax", per_channel=False, equalize=True
    ),
    "int8, a scale a tensor, biases corrected": _int8(
        "static", "minmax", per_channel=False, correct_bias=True
    ),
    "int8 static, symmetric activations": _int8(
        "static", "minmax", per_channel=True, symmetric_activations=True
    ),
    "int8 static, asymmetric weights": _int8(
        "static", "minmax", per_channel=False, symmetric_weights=False
    ),
    "16 bits, weights of 8": _int8("static", "minmax", per_channel=True, activation_bits=16),
    "16 bits, weights too": _int8(
        "static", "minmax", per_channel=True, activation_bits=16, weight_bits=16
    ),
    "int8 dynamic": _int8("dynamic", None, per_channel=True),
    "4 bits, computed in int8": {**_levels("uniform", 4), "quantize": STATIC},
}
QUICK = ("low rank", "sparse 95 %", "clusters, 4 bits", "binary", "float16", "int8 dynamic")
SPACE: Mapping[str, Any] = {
    "drop": {},
    "heads": {"importance": ["l2", "taylor", "random"]},
    "prune": {
        "ratio": [0.1, 0.9],
        "importance": ["l2", "l1", "taylor", "bn_scale", "median", "random"],
        "scope": ["uniform", "global", "sensitivity"],
        "multiple": 8,
    },
    "factorize": {
        "rank": ["ratio", "sensitivity", "latency", "energy"],
        "convolution": ["spatial", "tucker", "separable", "grouped", "bottleneck"],
        "embeddings": [False, True],
        "layerwise": [False, True],
    },
    "share": {},
    "sparsify": {
        "pattern": ["free", "2:4"],
        "sparsity": [0.5, 0.99],
        "scope": ["global", "layer", "sensitivity"],
        "saliency": ["magnitude", "gradient", "movement", "random"],
        "schedule": ["once", "cubic", "rounds"],
    },
    "cluster": {"bits": [1, 8]},
    "round": {
        "levels": ["uniform", "power_of_two", "additive", "ternary", "binary"],
        "bits": [2, 4],
        "allocation": ["even", "sensitivity"],
        "rounding": ["nearest", "adaptive"],
    },
    "recover": {
        "epochs": [1, 20],
        "soft_loss": ["kl", "hard"],
        "mutual": [False, True],
        "patience": [0, 3],
        "schedule": ["one_cycle", "constant"],
    },
    "half": {"format": ["float16", "bfloat16", "fixed16"]},
    "blocks": {},
    "quantize": {
        "calibration": ["minmax", "average", "entropy", "percentile", "mse"],
        "equalize": [False, True],
        "correct_bias": [False, True],
        "activation_bits": [8, 16],
        "weight_bits": [8, 16],
        "symmetric_activations": [False, True],
        "symmetric_weights": [True, False],
    },
}


def measure(model: str, names: list[str], folder: Path) -> list[dict[str, Any]]:
    """One row a technique, from one study of all of them.

    Args:
        model: Name of the job.
        names: Techniques to try.
        folder: Where the study is kept.
    """

    def study(trials: int, start: list[Configs]) -> pf.Study:
        return pf.Study(
            JOBS[model](),
            name=model,
            trials=trials,
            start=start,
            space=dict(SPACE),
            target={"seconds": 2.0},
            sampler="random",
            siblings=False,
            gate=False,
            early_stop=False,
            settle=0,
            storage=f"sqlite:///{folder / model}.db",
        ).optimize()

    rows: list[dict[str, Any]] = []
    row: dict[str, Any]
    left_out = study(1, []).summary().stages_left_out
    for name in names:
        for stage in left_out.keys() & TECHNIQUES[name].keys():
            row = {"technique": name, "model": model, "reason": left_out[stage]}
            rows.append(row)
            print(json.dumps(row), flush=True)
    tried = [name for name in names if not left_out.keys() & TECHNIQUES[name].keys()]
    frame = study(1 + len(tried), [TECHNIQUES[name] for name in tried]).frame()
    baseline = frame.iloc[0]
    for name, (_, trial) in zip(tried, frame.iloc[1:].iterrows(), strict=True):
        row = {"technique": name, "model": model}
        if trial["state"] == "complete":
            row |= {
                "size_ratio": round(1 / trial["shrink"], 4),
                "latency_ratio": round(1 / trial["speedup"], 3),
                "accuracy_drop": round(100 * (baseline["accuracy"] - trial["accuracy"]), 2),
                "seconds": round(trial["seconds"], 1),
            }
        else:
            row["reason"] = trial["reason"]
        rows.append(row)
        print(json.dumps(row), flush=True)
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="six techniques on one model")
    parser.add_argument("--model", nargs="+", choices=JOBS, help="these models alone")
    parser.add_argument("--only", nargs="+", help="techniques with one of these in their name")
    arguments = parser.parse_args()
    models = arguments.model or (["cnn"] if arguments.quick else list(JOBS))
    names = list(QUICK if arguments.quick else TECHNIQUES)
    if arguments.only:
        names = [name for name in names if any(text in name for text in arguments.only)]
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        rows = [row for model in models for row in measure(model, names, Path(folder))]
    smaller = [
        name
        for name in names
        if (
            ratios := [
                r["size_ratio"] for r in rows if r["technique"] == name and "size_ratio" in r
            ]
        )
        and max(ratios) < 1
    ]
    print(json.dumps({"techniques": len(names), "smaller": len(smaller)}))


if __name__ == "__main__":
    main()
