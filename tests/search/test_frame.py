"""The trials frame: what is on the front, and how sure that is."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import get_args

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from optuna.trial import TrialState, create_trial

from parefront.objectives.measurement import Direction, Measurement
from parefront.search.entry import Entry
from parefront.search.frame import Which, front_rows, trials_frame
from parefront.search.records import Origin, Outcome, Owner, Status, TrialRecord
from parefront.search.summary import ObjectiveSummary

MINIMIZE = Direction.MINIMIZE
OBJECTIVES = (
    ObjectiveSummary(
        name="accuracy", column="accuracy", unit="", direction=Direction.MAXIMIZE, label="accuracy"
    ),
    *(
        ObjectiveSummary(
            name=f"latency{end}",
            column=f"latency_ms{end}",
            unit="ms",
            direction=MINIMIZE,
            label=f"latency{end}",
            target=end.removeprefix("_") or None,
            on_device=True,
        )
        for end in ("", "_pi")
    ),
    ObjectiveSummary(
        name="size", column="size_bytes", unit="B", direction=MINIMIZE, label="size"
    ),
)  # fmt: skip


def entry(
    accuracy: float, here: float, on_pi: float, *, half: float = 0.1, broken: float = 0.0
) -> Entry:
    def timed(value: float) -> Measurement:
        return Measurement(value=value, low=value - half, high=value + half, protocol="made up")

    began = datetime(2026, 1, 1)
    record = TrialRecord(candidate_id="c", candidate={}, origin=Origin.SAMPLED, owner=Owner.me())
    outcome = Outcome(
        status=Status.COMPLETE,
        measurements={
            "accuracy": Measurement.exact(accuracy, "", "made up"),
            "latency": timed(here),
            "latency_pi": timed(on_pi),
            "size": Measurement.exact(1000.0, "B", "made up"),
        },
        violations={"size": broken},
    )
    trial = create_trial(state=TrialState.COMPLETE, value=0.0)
    trial.datetime_start, trial.datetime_complete = began, began + timedelta(seconds=1)
    return Entry(trial, record, outcome)


def test_every_target_has_its_probabilities() -> None:
    # The second is as good for all we know on the main target, and far slower on the other.
    frame = trials_frame([entry(0.9, 1.0, 1.0), entry(0.9, 1.0, 2.0)], OBJECTIVES)
    assert frame["front_probability"].tolist() == pytest.approx([0.5, 0.5], abs=0.06)
    assert frame["front_probability"].sum() == pytest.approx(1.0, abs=0.01)
    assert frame["front_probability_pi"].tolist() == [1.0, 0.0]
    assert front_rows(frame).tolist() == [True, True]
    assert front_rows(frame, "certain").tolist() == [False, False]
    assert front_rows(frame, "certain", "pi").tolist() == [True, False]
    assert front_rows(frame, "possible", "pi").tolist() == [True, False]


def test_what_breaks_a_bound_is_on_no_front_and_beats_nothing() -> None:
    frame = trials_frame([entry(0.9, 1.0, 1.0, broken=5.0), entry(0.8, 2.0, 2.0)], OBJECTIVES)
    assert frame["front_probability"].tolist() == [0.0, 1.0]
    assert front_rows(frame, "possible").tolist() == [False, True]


def test_a_study_without_trials_has_the_columns() -> None:
    frame = trials_frame([], OBJECTIVES)
    for which in get_args(Which):
        assert front_rows(frame, which, "pi").shape == (0,)


def test_among_many_ties_none_is_likely_but_all_are_on_the_front() -> None:
    frame = trials_frame([entry(0.9, 1.0, 1.0) for _ in range(40)], OBJECTIVES)
    assert (frame["front_probability"] < 0.05).all()
    assert front_rows(frame).all()
    assert front_rows(frame, "possible").all()


@given(st.lists(st.tuples(st.booleans(), st.floats(0, 1)), max_size=12))
def test_certain_is_on_the_front_and_what_is_on_it_is_possible(
    rows: list[tuple[bool, float]],
) -> None:
    on_front, probability = [each[0] for each in rows], [each[1] for each in rows]
    frame = pd.DataFrame(
        {"on_front": np.array(on_front, dtype=bool), "front_probability": probability}
    )
    certain, on, possible = (front_rows(frame, which) for which in ("certain", "on", "possible"))
    assert (~certain | on).all()
    assert (~on | possible).all()
    assert (certain == (on & (np.array(probability) >= 0.95))).all()
