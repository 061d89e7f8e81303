"""Which cores train and which measure, by closed form."""

from __future__ import annotations

import os
import threading
from pathlib import Path

import pytest

pytest.importorskip("ray")

from parefront.search.engines.ray.cores import own_cores, pin, split


@pytest.mark.parametrize("count", [1, 2, 4, 8])
@pytest.mark.parametrize("threads", [0, 1, 2, 3, 4])
def test_the_last_cores_measure_and_the_others_train(count: int, threads: int) -> None:
    cores = [10 + 2 * index for index in range(count)]
    found = split(cores[::-1], threads)
    trained = max(1, count - threads)
    assert found.training == tuple(cores[:trained])
    assert found.measuring == tuple(cores[max(0, count - threads) :])
    both = set(found.training) & set(found.measuring)
    assert len(both) == (0 < threads >= count)
    assert {*found.training, *found.measuring} == set(cores)


def test_all_threads_are_pinned_and_those_they_start() -> None:
    before = own_cores()
    over = threading.Event()
    early = threading.Thread(target=over.wait)
    early.start()
    try:
        pin(before[:1])
        late = threading.Thread(target=over.wait)
        late.start()
        for task in Path("/proc/self/task").iterdir():
            assert os.sched_getaffinity(int(task.name)) == {before[0]}
        assert own_cores() == before
    finally:
        pin(before)
        over.set()
        early.join()
        late.join()
