"""Models with named inputs and several outputs."""

from __future__ import annotations

import copy
from collections import namedtuple
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import onnxruntime
import pytest
import torch
from torch import nn
from torch.utils.data import TensorDataset

import parefront as pf
from parefront.errors import TaskError
from parefront.search.adapter import Adapted, adapted, outputs_of, picked
from parefront.search.data import Split
from parefront.search.task import PreparedTask, prepare
from tests.search.pipelines import pipeline

Pair = namedtuple("Pair", ["logits", "hidden"])
LOGITS, HIDDEN = torch.zeros(2, 3), torch.zeros(2, 5, 4)


@dataclass
class Fields:
    logits: torch.Tensor
    hidden: torch.Tensor


@pytest.mark.parametrize(
    ("answer", "output"),
    [
        ({"logits": LOGITS, "hidden": HIDDEN}, "logits"),
        (Pair(LOGITS, HIDDEN), "logits"),
        (Pair(LOGITS, HIDDEN), 0),
        (Fields(LOGITS, HIDDEN), "logits"),
        ((HIDDEN, LOGITS), 1),
        ([HIDDEN, LOGITS], -1),
    ],
)
def test_an_output_is_picked(answer: object, output: str | int) -> None:
    assert picked(answer, output) is LOGITS


@pytest.mark.parametrize(
    ("answer", "output", "message"),
    [
        ({"logits": LOGITS}, "logit", r"no output 'logit': it returns dict with 'logits' \(2, 3\)"),
        ({"logits": LOGITS}, 0, "no output 0: .*write output='logits'"),
        ((LOGITS, HIDDEN), 2, r"0 \(2, 3\), 1 \(2, 5, 4\); write output=0"),
        ((LOGITS,), "index", "no output 'index': it returns tuple with 0"),
        (LOGITS, "logits", "returns one tensor of shape .2, 3.; leave output out"),
        ({"states": (LOGITS,)}, "x", "'states' .tuple of 1.; wrap the model"),
    ],
)
def test_an_output_that_is_not_there_is_refused(
    answer: object, output: str | int, message: str
) -> None:
    with pytest.raises(TaskError, match=message):
        picked(answer, output)


def test_what_a_model_returns_is_listed() -> None:
    said = outputs_of({"hidden": HIDDEN, "logits": LOGITS})
    assert said == (
        "it returns dict with 'hidden' (2, 5, 4), 'logits' (2, 3); "
        "write output='logits' in pf.Task, or another of these names"
    )
    assert outputs_of(3) == (
        "it returns int; wrap it in a module that returns the tensor that counts, batch first"
    )


class Reader(nn.Module):
    """Tokens with a mask to a mapping, as encoders have it."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(50, 32)
        self.lstm = nn.LSTM(32, 32, batch_first=True)
        self.hidden = nn.Linear(32, 32)
        self.out = nn.Linear(32, 3)

    def forward(
        self, ids: torch.Tensor, mask: torch.Tensor, scale: float = 1.0
    ) -> dict[str, torch.Tensor]:
        states, _ = self.lstm(self.embed(ids))
        weights = mask[..., None].to(states.dtype)
        mean = (states * weights).sum(dim=1) / weights.sum(dim=1)
        return {"logits": scale * self.out(torch.relu(self.hidden(mean))), "states": states}


def padded(count: int, seed: int, length: int = 8) -> tuple[dict[str, torch.Tensor], torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    ids = torch.randint(1, 50, (count, length), generator=generator)
    lengths = torch.randint(2, length + 1, (count,), generator=generator)
    mask = (torch.arange(length) < lengths[:, None]).long()
    return {"ids": ids * mask, "mask": mask}, ids[:, 0] % 3


def task(**changes: Any) -> pf.Task:
    parts: dict[str, Any] = {
        "model": Reader,
        "train": padded(48, 0),
        "validation": padded(24, 1),
        "test": padded(24, 2),
        "output": "logits",
    }
    return pf.Task(**(parts | changes))


def answer(prepared: PreparedTask, split: Split) -> torch.Tensor:
    with torch.no_grad():
        outputs: torch.Tensor = prepared.baseline(*split.inputs)
    return outputs


def test_names_become_keywords_and_inputs_of_the_file() -> None:
    prepared = prepare(task())
    assert prepared.input_names == ("ids", "mask")
    assert isinstance(prepared.baseline, Adapted)
    model = prepared.baseline.model
    inputs, _ = padded(24, 1)
    torch.testing.assert_close(answer(prepared, prepared.validation), model(**inputs)["logits"])
    assert all(name.startswith("model.") for name, _ in prepared.baseline.named_parameters())


def test_the_order_of_names_does_not_matter() -> None:
    inputs, labels = padded(24, 1)
    turned = {"mask": inputs["mask"], "ids": inputs["ids"]}
    prepared, plain = prepare(task(validation=(turned, labels))), prepare(task())
    assert torch.equal(prepared.validation.inputs[0], inputs["ids"])
    assert torch.equal(answer(prepared, prepared.validation), answer(plain, plain.validation))


def test_a_model_that_needs_no_adapter_is_left_as_it_is() -> None:
    module = nn.Linear(2, 2)
    assert adapted(module, None, None) is module


def test_an_adapter_can_be_copied_and_keeps_the_mode() -> None:
    wrapped = adapted(Reader().eval(), ("ids", "mask"), "logits")
    assert not wrapped.training
    inputs = tuple(padded(3, 0)[0].values())
    assert torch.equal(copy.deepcopy(wrapped)(*inputs), wrapped(*inputs))


def test_an_output_is_picked_of_a_model_without_names() -> None:
    class Twice(nn.Linear):
        def forward(self, x: torch.Tensor) -> Any:
            return super().forward(x), x

    x, y = torch.randn(9, 4), torch.arange(9) % 3
    splits: dict[str, Any] = dict.fromkeys(("train", "validation"), (x, y))
    given = pf.Task(model=lambda: Twice(4, 3), **splits, test=(x.clone(), y), output=0)
    assert answer(prepare(given), prepare(given).validation).shape == (9, 3)


def test_teachers_are_adapted_too() -> None:
    (teacher,) = prepare(task(teachers=[Reader])).teachers
    assert isinstance(teacher, Adapted)


class Named(TensorDataset):
    """Yields inputs by name."""

    def __getitem__(self, index: int) -> Any:
        ids, mask, label = (each[index] for each in self.tensors)
        return {"ids": ids, "mask": mask}, label


def test_a_data_set_may_yield_inputs_by_name() -> None:
    inputs, labels = padded(48, 0)
    split = Split.of(Named(*inputs.values(), labels))
    assert split.names == ("ids", "mask")
    assert split.digest() == Split(inputs, labels).digest()
    assert split.head(3).names == split.names
    assert repr(split) == (
        "Split(48 examples, inputs ids (8,) int64, mask (8,) int64, targets int64)"
    )


INPUTS, LABELS = padded(24, 1)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"output": None},
            r"got dict: it returns dict with 'logits' \(2?1?, 3\), .*output='logits'",
        ),
        ({"output": "logit"}, "the model has no output 'logit': it returns dict with 'logits'"),
        (
            {"train": ({"ids": INPUTS["ids"], "masks": INPUTS["mask"]}, LABELS)},
            "validation split: its inputs have the names ids, mask, those of the training split "
            "the names ids, masks",
        ),
        ({"validation": (INPUTS["ids"], LABELS)}, "validation split: its inputs have no names"),
        (
            {
                name: ({"ids": INPUTS["ids"], "masks": INPUTS["mask"]}, LABELS)
                for name in ("train", "validation", "test")
            },
            "takes no input 'masks'; .* which are ids, mask, scale",
        ),
        ({"example": {"ids": INPUTS["ids"]}}, "example has inputs of the names ids, the training"),
        ({"test": padded(24, 2, length=5)}, r"test split has 'ids' of shape .*5.*dynamic="),
        (
            {
                name: ({"ids": INPUTS["ids"], "output": INPUTS["mask"]}, LABELS)
                for name in ("train", "validation", "test")
            },
            "an input cannot have the name 'output'",
        ),
        ({"test": padded(24, 2, length=5)}, r"dynamic=\{'ids': \[1\]\}"),
        ({"dynamic": {"tokens": [1]}}, "dynamic names the input 'tokens'; there are ids, mask"),
        ({"dynamic": {"ids": [0]}}, r"lie in \[1, 2\), for the batch is dynamic anyway, got 0"),
        ({"dynamic": {"ids": [2]}}, r"lie in \[1, 2\), .* got 2"),
        ({"dynamic": {"ids": {1: "batch"}}}, "a name other than 'batch'"),
        (
            {
                "dynamic": {"ids": {1: "n"}, "mask": {1: "n"}},
                "example": {"ids": INPUTS["ids"], "mask": INPUTS["mask"][:, :4]},
            },
            "'n' has 8 and 4",
        ),
    ],
)
def test_a_wrong_task_is_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(TaskError, match=message):
        prepare(task(**changes))


def test_dimensions_of_one_size_vary_together() -> None:
    assert prepare(task(dynamic={"ids": [1], "mask": [1]})).dynamic == {
        "ids": {1: "length"},
        "mask": {1: "length"},
    }


def test_splits_may_have_other_lengths_where_they_vary(tmp_path: Path) -> None:
    given = task(dynamic={"ids": [1], "mask": [1]}, validation=padded(24, 1, length=5))
    made = pipeline(tmp_path, given, {"prune": {}, "quantize": {"method": "dynamic"}})
    space, task_ = made.builder.space, made.builder.task
    for stage in space.stages:
        path = tmp_path / f"{stage.name}.onnx"
        made.builder.build(space.completed({stage.name: stage.anchors()[0]}), path, trained=False)
        session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
        for length in (2, 5, 30):
            inputs, _ = padded(4, 3, length=length)
            feeds = {name: x.numpy() for name, x in inputs.items()}
            (output,) = session.run(None, feeds)
            assert output.shape == (4, 3)
    assert task_.validation.inputs[0].shape == (24, 5)
