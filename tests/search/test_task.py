from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import parefront as pf
from parefront.errors import TaskError
from parefront.search.loading import load_task
from parefront.search.task import cross_entropy, prepare

X, Y = torch.randn(20, 4), torch.arange(20) % 3


def task(**changes: Any) -> pf.Task:
    parts: dict[str, Any] = {
        "model": lambda: nn.Linear(4, 3),
        "train": pf.Split(X, Y, indices=range(10)),
        "validation": pf.Split(X, Y, indices=range(10, 15)),
        "test": pf.Split(X, Y, indices=range(15, 20)),
    }
    return pf.Task(**(parts | changes))


def thirds(x: Any, y: torch.Tensor) -> dict[str, Any]:
    """Three disjoint splits."""
    third = len(y) // 3
    return {
        name: pf.Split(x, y, indices=range(start * third, (start + 1) * third))
        for start, name in enumerate(("train", "validation", "test"))
    }


def test_defaults_of_classification() -> None:
    prepared = prepare(task())
    assert prepared.metric is pf.metrics.accuracy
    assert prepared.loss is cross_entropy
    assert prepared.example[0].shape == (1, 4)
    assert len(prepared.calibration) == 10


def test_defaults_of_regression() -> None:
    prepared = prepare(task(model=lambda: nn.Linear(4, 1), **thirds(X, X[:, :1])))
    assert prepared.metric is pf.metrics.mean_squared_error


def test_token_models_are_expressible() -> None:
    tokens, tags = torch.randint(0, 9, (6, 5)), torch.randint(0, 3, (6, 5))
    tags[0, 3:] = -100

    class Tagger(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.embed, self.out = nn.Embedding(9, 8), nn.Linear(8, 3)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.out(self.embed(x))  # type: ignore[no-any-return]

    prepared = prepare(task(model=Tagger, **thirds(tokens, tags)))
    outputs = prepared.baseline(tokens)
    expected = nn.functional.cross_entropy(outputs.transpose(1, 2), tags)
    assert torch.allclose(prepared.loss(outputs, tags), expected)


def test_models_with_several_inputs_are_expressible() -> None:
    class Two(nn.Module):
        def forward(self, a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
            return torch.cat([a, b[:, :1]], dim=1)[:, :3]

    prepared = prepare(task(model=Two, **thirds((X, X), Y)))
    assert prepared.input_names == ("input_0", "input_1")


def test_an_untrained_model_is_the_same_for_the_same_seed() -> None:
    first, again, other = (
        prepare(task(), seed=seed).baseline.state_dict()["weight"] for seed in (1, 1, 2)
    )
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def failing() -> nn.Module:
    raise RuntimeError("no weights")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model": nn.Linear(4, 3)}, "model is a function .* got Linear; write model=lambda"),
        ({"model": lambda: 3}, "builds a torch.nn.Module, got int"),
        ({"model": failing}, "building the model failed: RuntimeError: no weights"),
        ({"model": lambda: nn.Linear(5, 3)}, "does not accept the example input of shape .1, 4."),
        ({"example": torch.zeros(1, 7)}, "does not accept the example input of shape .1, 7."),
        ({"model": lambda: nn.Linear(4, 2)}, r"labels .* 0 to 2, but .* 2 outputs"),
        ({"metric": max}, "metric is a parefront.Metric"),
        ({"metric": pf.Metric("f", lambda y, t: y.wrong)}, "'f' does not accept arrays"),
        ({"loss": lambda y, t: y}, "the loss returns a tensor with one number"),
        ({"loss": lambda y: y}, "the loss does not accept outputs"),
        ({"test": pf.Split(X, Y, indices=range(9, 12))}, "shares 1 examples with the train split"),
        ({"train": (X, Y), "test": (X, Y)}, "shares 20 examples with the train split"),
        ({"validation": (X[:0], Y[:0])}, "the validation split is empty"),
        ({"train": 5}, "train split: expected a split"),
        ({"train": (X, Y[:3])}, "train split: .*one example each"),
        ({"test": (X.clone(), Y.float())}, "test split has floating-point targets"),
        ({"teachers": [lambda: nn.Linear(4, 2)]}, "teacher's outputs have the baseline's shape"),
        ({"model": lambda: nn.LSTM(4, 3)}, "returns one tensor, batch first, got tuple"),
        ({"model": lambda: Summed()}, "keeps the batch first"),
    ],
)
def test_a_wrong_task_is_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(TaskError, match=message):
        prepare(task(**changes))


class Summed(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.sum(dim=0)


def test_regression_targets_must_not_broadcast() -> None:
    with pytest.raises(TaskError, match="outputs and targets have one shape"):
        prepare(task(model=lambda: nn.Linear(4, 1), **thirds(X, X[:, 0])))


@pytest.mark.parametrize("value", [{"epochs": 0}, {"learning_rate": 0.0}, {"batch_size": 0}])
def test_impossible_pretraining_is_refused(value: dict[str, Any]) -> None:
    with pytest.raises(TaskError, match="pretraining needs"):
        pf.Pretrain(**value)


FILE = """
import torch
import parefront as pf
from torch import nn
x = torch.zeros(4, 2)
y = torch.zeros(4, dtype=torch.long)
task = pf.Task(model=lambda: nn.Linear(2, 2), train=(x, y), validation=(x, y), test=(x, y))
other = 3
"""


def test_a_task_is_found_beside_the_study_file(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(FILE)
    assert isinstance(load_task("mine.py:task", tmp_path), pf.Task)


@pytest.mark.parametrize(
    ("reference", "message"),
    [
        ("mine.py", "named as path/to/file.py:name"),
        ("none.py:task", "there is no task file .*none.py"),
        ("mine.py:tsk", "has no 'tsk'; did you mean 'task'"),
        ("mine.py:other", "is of type int, expected a parefront.Task"),
        ("broken.py:task", "importing .*broken.py failed: SyntaxError"),
        ("no.such.module:task", "importing module no.such.module failed"),
    ],
)
def test_a_task_that_cannot_be_loaded_is_refused(
    tmp_path: Path, reference: str, message: str
) -> None:
    (tmp_path / "mine.py").write_text(FILE)
    (tmp_path / "broken.py").write_text("def (:")
    with pytest.raises(TaskError, match=message):
        load_task(reference, tmp_path)


def test_two_files_of_one_name_are_two_tasks(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "mine.py").write_text(FILE + f"\nname = '{name}'\n")
    first = load_task("mine.py:task", tmp_path / "a")
    second = load_task("mine.py:task", tmp_path / "b")
    assert first is not second


def test_metrics_take_arrays_not_tensors() -> None:
    seen: list[type] = []

    def record(y: Any, t: Any) -> float:
        seen.extend([type(y), type(t)])
        return 0.0

    prepare(task(metric=pf.Metric("seen", record)))
    assert set(seen) == {np.ndarray}
