"""Runs a session on many examples, a batch at a time."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from parefront.errors import MeasurementError
from parefront.objectives.targets.runtime import Array, Feeds, Session


def run_batches(session: Session, feeds: Feeds, batch_size: int) -> Sequence[Array]:
    """Runs a session on all examples.

    Args:
        session: Session to run. One with a batch of its own is fed that batch instead of
            `batch_size`, and a short last batch is filled up with its last example.
        feeds: All examples, batch first.
        batch_size: Examples in one run.

    Returns:
        The outputs of all examples in order, batch first.

    Raises:
        MeasurementError: If there are no examples, the inputs have different numbers of them,
            or the session fails.
    """
    counts = {name: len(array) for name, array in feeds.items()}
    if len(set(counts.values())) != 1 or 0 in counts.values():
        raise MeasurementError(f"expected as many examples in each input, at least 1, got {counts}")
    total = next(iter(counts.values()))
    step = session.batch or batch_size
    parts: list[Sequence[Array]] = []
    for start in range(0, total, step):
        batch = {name: array[start : start + step] for name, array in feeds.items()}
        size = min(step, total - start)
        if session.batch and size < step:
            batch = {name: _filled(array, step) for name, array in batch.items()}
        parts.append([output[:size] for output in session.run(batch)])
    return [np.concatenate(outputs) for outputs in zip(*parts, strict=True)]


def _filled(array: Array, length: int) -> Array:
    return np.concatenate([array, np.repeat(array[-1:], length - len(array), axis=0)])
