"""Which candidates are worth measuring again."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence

import numpy as np
import pandas as pd

from parefront.objectives.front_probability import probability_on_front
from parefront.objectives.measurement import Direction
from parefront.search.settle import gains
from parefront.search.summary import ObjectiveSummary, of_target

NOISY = {"latency", "latency_pi"}
ACCURACY = ObjectiveSummary(
    name="accuracy", column="accuracy", unit="", direction=Direction.MAXIMIZE, label="accuracy"
)
LATENCY = ObjectiveSummary(
    name="latency",
    column="latency_ms",
    unit="ms",
    direction=Direction.MINIMIZE,
    label="latency",
    on_device=True,
)
ON_PI = ObjectiveSummary(
    name="latency_pi",
    column="latency_ms_pi",
    unit="ms",
    direction=Direction.MINIMIZE,
    label="latency pi",
    on_device=True,
    target="pi",
)
SIZE = ObjectiveSummary(
    name="size", column="size_bytes", unit="B", direction=Direction.MINIMIZE, label="size"
)
OBJECTIVES = (ACCURACY, LATENCY)

Point = tuple[float, float, float]


def with_fronts(rows: pd.DataFrame, objectives: Sequence[ObjectiveSummary]) -> pd.DataFrame:
    for target in {each.target for each in objectives} | {None}:
        used = of_target(objectives, target)
        values, low, high = (
            rows[[f"{each.column}{end}" for each in used]].to_numpy(dtype=float)
            for end in ("", "_low", "_high")
        )
        found = probability_on_front(values, low, high, [each.maximize for each in used])
        rows[f"front_probability_{target}" if target else "front_probability"] = found
    return rows


def frame(*points: Point, half: float = 0.001) -> pd.DataFrame:
    """Points of accuracy, latency, and the half-width of the latency's interval."""
    accuracy, latency, width = np.array(points).T
    rows = pd.DataFrame({"trial": 10 + np.arange(len(points))})
    for column, values, of in (("accuracy", accuracy, half), ("latency_ms", latency, width)):
        rows[column], rows[f"{column}_low"] = values, values - of
        rows[f"{column}_high"] = values + of
    return with_fronts(rows, OBJECTIVES)


def test_two_that_only_noise_keeps_apart_are_both_worth_it() -> None:
    found = gains(frame((0.9, 1.0, 0.2), (0.88, 1.02, 0.2), (0.2, 0.1, 0.0)), OBJECTIVES, NOISY)
    assert set(found) == {10, 11}
    assert list(found.values()) == sorted(found.values(), reverse=True)


def test_what_is_decided_is_left_alone() -> None:
    apart = frame((0.9, 1.0, 0.04), (0.88, 1.2, 0.04))
    trade = frame((0.9, 1.2, 0.04), (0.88, 1.0, 0.04))
    exact = frame((0.9, 1.0, 0.0), (0.9, 1.0, 0.0))
    for each in (apart, trade, exact, apart.iloc[:0]):
        assert gains(each, OBJECTIVES, NOISY) == {}


def test_accuracy_is_not_measured_again() -> None:
    # Open in accuracy alone, which no second look at the same examples will change.
    rows = frame((0.905, 1.0, 0.02), (0.9, 1.1, 0.02), half=0.01)
    assert 0.05 < rows["front_probability"].iloc[1] < 0.95
    assert gains(rows, OBJECTIVES, NOISY) == {}
    assert gains(rows, OBJECTIVES, ()) == {}


def test_what_has_no_place_on_the_front_does_not_count() -> None:
    rows = frame((0.9, 1.0, 0.2), (0.88, 1.02, 0.2))
    assert gains(rows.assign(front_probability=[0.0, 1.0]), OBJECTIVES, NOISY) == {}
    assert gains(rows, (), NOISY) == {}


def test_the_one_on_which_most_depends_comes_first() -> None:
    # The first may beat three, the vague one at the end beats none and is beaten by none.
    rows = frame(
        (0.9, 1.0, 0.2), (0.88, 1.02, 0.05), (0.87, 1.0, 0.05), (0.86, 0.98, 0.05), (0.5, 0.1, 0.09)
    )
    found = gains(rows, OBJECTIVES, NOISY)
    assert next(iter(found)) == 10
    assert 14 not in found


def test_what_is_open_on_any_target_counts() -> None:
    rows = frame((0.9, 1.0, 0.01), (0.88, 2.0, 0.01))  # decided on the main target
    for end, values in (("", [1.0, 1.0]), ("_low", [0.8, 0.8]), ("_high", [1.2, 1.2])):
        rows[f"latency_ms_pi{end}"] = values
    assert gains(rows, OBJECTIVES, NOISY) == {}
    everything = (*OBJECTIVES, ON_PI)
    assert set(gains(with_fronts(rows, everything), everything, NOISY)) == {10, 11}


class World:
    """A study that knows what its candidates are truly worth."""

    ROUGH, FINE = 0.08, 0.08 / 3
    OBJECTIVES = (*OBJECTIVES, SIZE)

    def __init__(self, seed: int, count: int = 40) -> None:
        generator = np.random.default_rng(seed)
        kept = generator.uniform(0.1, 1, count)
        latency = kept * np.exp(generator.normal(0, 0.12, count))
        self.size = kept * np.exp(generator.normal(0, 0.12, count))
        self.accuracy = 0.95 - 0.12 * (1 - kept) ** 2 + generator.normal(0, 0.004, count)
        noise = generator.normal(0, 1 / 1.96, (2, count))
        self.rough = latency * (1 + self.ROUGH * noise[0])
        self.fine = latency * (1 + self.FINE * noise[1])

    def frame(self, again: Collection[int]) -> pd.DataFrame:
        """The trials, some of them measured again."""
        sharp = np.isin(10 + np.arange(len(self.rough)), list(again))
        latency = np.where(sharp, self.fine, self.rough)
        half = latency * np.where(sharp, self.FINE, self.ROUGH)
        rows = frame(*zip(self.accuracy, latency, half, strict=True))
        return with_fronts(
            rows.assign(**{f"size_bytes{end}": self.size for end in ("", "_low", "_high")}),
            self.OBJECTIVES,
        )

    def open_questions(
        self, choose: Callable[[pd.DataFrame], Sequence[int]], times: int
    ) -> list[float]:
        """How open the front is before and after each time that what is chosen is measured."""
        again: list[int] = []
        found = []
        for _ in range(times + 1):
            rows = self.frame(again)
            probability = rows["front_probability"]
            found.append(float((probability * (1 - probability)).sum()))
            again += [trial for trial in choose(rows) if trial not in again][:1]
        return found

    def by_gain(self, rows: pd.DataFrame) -> Sequence[int]:
        return list(gains(rows, self.OBJECTIVES, NOISY))


def in_random_order(seed: int) -> Callable[[pd.DataFrame], Sequence[int]]:
    generator = np.random.default_rng(seed)

    def choose(rows: pd.DataFrame) -> Sequence[int]:
        undecided = rows.loc[rows["front_probability"].between(0.05, 0.95), "trial"]
        return [int(each) for each in generator.permutation(undecided.to_numpy())]

    return choose


def test_the_same_effort_settles_more_than_in_random_order() -> None:
    differences = []
    for seed in range(8):  # the same study and noise for both
        world = World(seed)
        chosen = world.open_questions(world.by_gain, 4)
        shuffled = world.open_questions(in_random_order(seed), 4)
        assert chosen[0] == shuffled[0]
        differences.append(np.mean(shuffled) - np.mean(chosen))
    error = np.std(differences, ddof=1) / np.sqrt(len(differences))
    assert np.mean(differences) > 2 * error


def test_measuring_again_settles() -> None:
    world = World(3)
    found = world.open_questions(world.by_gain, 6)
    assert found[-1] < 0.9 * found[0]
