"""The simulation of many workers behind `benchmarks.scale`."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from benchmarks.ray_trials import between
from benchmarks.thousand_workers import Workers, percentile, simulate
from benchmarks.watched_driver import driver, fill
from parefront.search.records import Status


def test_workers_are_kept_busy_and_nothing_is_tried_twice(tmp_path: Path) -> None:
    made = driver(f"sqlite:///{tmp_path}/studies.db")
    fill(made, 10, seed=1)
    workers = Workers(made, seed=0)
    for _ in range(18):
        workers.begin()
    ended = 0
    while ended < 6:
        ended += workers.step()
    entries = made.ledger.entries()
    statuses = Counter(entry.status for entry in entries)
    assert statuses[Status.RUNNING] == len(workers) == 18
    assert len(entries) == 10 + 18 + 6
    assert len({entry.record.candidate_id for entry in entries}) == len(entries)
    asked = made.watch.seconds["ask"]
    assert len(asked) == 24
    assert len(made.watch.seconds["finish"]) == 6
    assert sum(asked) >= sum(made.watch.seconds["propose"])
    workers.leave()
    assert not any(entry.status == Status.RUNNING for entry in made.ledger.entries())


@pytest.mark.slow
def test_a_growing_study_is_watched_at_postgresql(postgres: str) -> None:
    cells = list(simulate(postgres, widths=(2, 4), lengths=(0, 20), steps=3))
    assert [(cell.workers, cell.trials) for cell in cells] == [(2, 0), (4, 3), (2, 20), (4, 23)]
    for cell in cells:
        assert cell.trials_per_s > 0
        assert cell.transactions >= 3  # begun, its result, its end
        assert cell.rows_written >= 3
        assert cell.milliseconds["ask"][0] <= cell.milliseconds["ask"][1]


def test_percentiles() -> None:
    values = [float(value) for value in range(1, 101)]
    assert percentile(values, 0.5) == 50.0
    assert percentile(values, 0.99) == 99.0
    assert percentile([7.0], 0.99) == 7.0


def test_the_first_and_the_last_trials_are_left_out() -> None:
    assert between([0.0, 9.0, 10.0, 12.0, 20.0], skip=1, leave=1) == 1.5
