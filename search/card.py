"""The model card of a bundle."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from parefront.objectives.measurement import Measurement
from parefront.search.data import Split
from parefront.search.study_record import StudyRecord


def model_card(
    *,
    study: StudyRecord,
    trial: int,
    artifact: str,
    candidate: Mapping[str, Mapping[str, Any]],
    validation: Mapping[str, Measurement],
    test: Measurement,
    baseline: Mapping[str, Measurement],
    baseline_test: Measurement,
    inputs: Mapping[str, Sequence[object]],
    splits: Mapping[str, Split],
) -> str:
    """A model card in Markdown, after Mitchell et al. 2019, of what is known and nothing else.

    Args:
        study: The study.
        trial: Number of the trial.
        artifact: Name of the artifact's file.
        candidate: Configs by stage name.
        validation: Measurements by objective name, accuracy on the validation split.
        test: Accuracy on the test split.
        baseline: Measurements of the baseline.
        baseline_test: Accuracy of the baseline on the test split.
        inputs: Type and shape of one example of each input, by name.
        splits: The splits of the task, by name.
    """
    rows = [
        f"| {_label(name, study)} | {_text(validation[name])} | {_text(baseline[name])} |"
        for name in validation
        if name in baseline
    ]
    rows.insert(1, f"| {study.metric} (test) | {_text(test)} | {_text(baseline_test)} |")
    stages = [
        f"- **{name}**: " + ", ".join(f"{key} {value}" for key, value in config.items())
        for name, config in candidate.items()
    ]
    return "\n".join(
        [
            f"# {study.settings.study.name}, trial {trial}",
            "",
            f"`{artifact}` is a compressed model found by parefront. Every figure below was "
            "measured on this very file.",
            "",
            "| | this model | baseline |",
            "|---|---|---|",
            *rows,
            "",
            "Intervals are 95 %. Latency is for a batch of "
            f"{study.settings.target.batch_size} with {study.settings.target.threads} thread(s) of "
            f"{study.settings.target.runtime} on the device in `environment.json`; on another "
            "device it differs.",
            "",
            "## How it was made",
            "",
            *(stages or ["- the unchanged baseline"]),
            "",
            "## Data",
            "",
            *(f"- {name}: {split!r}" for name, split in splits.items()),
            "",
            "The search used the training, calibration and validation splits. The test split was "
            "first used when this bundle was written.",
            "",
            "## Use",
            "",
            *(f"- input `{name}`: {kind} {shape}" for name, (kind, shape) in inputs.items()),
            "",
            "`python run.py` replays `check.npz` and says whether the outputs agree. "
            "`sha256sum -c SHA256SUMS` checks the files; `parefront verify` measures again.",
            "",
            "Intended use, ethical considerations and caveats beyond these figures are the task "
            "owner's to state.",
            "",
        ]
    )


def _label(name: str, study: StudyRecord) -> str:
    return f"{study.metric} (validation)" if name == "accuracy" else name


def _text(m: Measurement) -> str:
    interval = "" if m.low == m.high else f" [{m.low:.4g}, {m.high:.4g}]"
    value = f"{m.value:.0f}" if m.value == round(m.value) and abs(m.value) > 1 else f"{m.value:.4g}"
    return f"{value} {m.unit}".rstrip() + interval
