"""What a study's surrogate proposes, gates and expects, on stages that cost nothing."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from random import Random

import pytest
from optuna.trial import TrialState, create_trial

from parefront.objectives.measurement import Direction, Measurement
from parefront.objectives.objective import Bound
from parefront.search.entry import Entry
from parefront.search.guide import Drawn
from parefront.search.records import Origin, Outcome, Owner, Rung, Status, TrialRecord, state_of
from parefront.search.samplers.screening.drawn_space import DrawnSpace
from parefront.search.surrogate import LEAST, Axis, Surrogate
from parefront.spaces.space import Candidate
from tests.search.fakes import space

SPACE = space()


def axes(limit: float | None = None, accuracy: Bound | None = None) -> list[Axis]:
    return [
        Axis(
            name="accuracy", direction=Direction.MAXIMIZE, log=False, target=None,
            everywhere=True, bound=accuracy or Bound(), limit=limit,
        ),
        Axis(
            name="latency", direction=Direction.MINIMIZE, log=True, target=None,
            everywhere=False, bound=Bound(),
        ),
        Axis(
            name="size", direction=Direction.MINIMIZE, log=True, target=None,
            everywhere=True, bound=Bound(),
        ),
    ]  # fmt: skip


def truth(candidate: Candidate) -> dict[str, float]:
    """Wider cuts cost accuracy, longer repair wins some back; kind `b` is better than `a`."""
    configs = candidate.as_dict()
    ratio = configs.get("width", {}).get("ratio", 0.0)
    kind = 0.1 if configs.get("width", {}).get("kind") == "a" else 0.0
    repair = 0.02 * configs.get("repair", {}).get("steps", 0.0)
    return {
        "accuracy": 0.95 - 0.4 * ratio**2 - kind + repair * ratio,
        "latency": 1.0 - 0.8 * ratio,
        "size": 1000.0 * (1.0 - 0.9 * ratio),
    }


def exact(values: dict[str, float]) -> dict[str, Measurement]:
    return {name: Measurement.exact(value, "", "made up") for name, value in values.items()}


def drawn(seed: int) -> Candidate:
    trial = DrawnSpace(SPACE.suggest).draw(Random(seed), {})
    configs: list[Candidate] = []
    DrawnSpace(lambda t: configs.append(SPACE.suggest(t))).draw(Random(0), trial.params)
    return configs[0]


def entry(candidate: Candidate, number: int, outcome: Outcome | None = None) -> Entry:
    outcome = outcome or Outcome(status=Status.COMPLETE, measurements=exact(truth(candidate)))
    known = Drawn.of(candidate, SPACE)
    state = state_of(outcome)
    values = (
        [outcome.measurements[a.name].value for a in axes()]
        if state == TrialState.COMPLETE
        else None
    )
    trial = create_trial(
        state=state, params=dict(known.parameters), distributions=dict(known.distributions),
        values=values, constraints=dict(outcome.violations),
    )  # fmt: skip
    trial.number = number
    record = TrialRecord(
        candidate_id=candidate.id, candidate=candidate.as_dict(), origin=Origin.SAMPLED,
        owner=Owner.me(),
    )  # fmt: skip
    return Entry(trial, record, outcome)


def taught(count: int = 30, *, by: Callable[[], Surrogate] | None = None) -> Surrogate:
    made = by() if by else Surrogate(SPACE, axes(), 0)
    for number in range(count):
        made.tell(entry(drawn(number), number))
    return made


def width(ratio: float, kind: str = "b", steps: float = 1.5) -> Candidate:
    return SPACE.candidate({"width": {"ratio": ratio, "kind": kind}, "repair": {"steps": steps}})


class TestGate:
    def test_what_is_beaten_in_everything_whatever_its_accuracy_is_hopeless(self) -> None:
        reason = taught().hopeless(width(0.3, "a"), exact({"latency": 2.0, "size": 2000.0}))
        assert reason is not None
        assert reason.startswith("could not reach the front even at the best to expect: accuracy")

    def test_what_may_be_on_the_front_is_not(self) -> None:
        made = taught()
        for ratio in (0.0, 0.35, 0.7, 0.99):
            candidate = width(ratio, steps=2.0)
            values = truth(candidate)
            cheap = exact({name: values[name] for name in ("latency", "size")})
            assert made.hopeless(candidate, cheap) is None

    def test_it_is_not_wrong_about_what_comes_to_the_front(self) -> None:
        # Whatever is gated must not beat anything that was known when it was gated.
        made = taught(30)
        seen = [truth(drawn(number)) for number in range(30)]
        gated = 0
        for number in range(100, 220):
            candidate = drawn(number)
            values = truth(candidate)
            cheap = exact({name: values[name] for name in ("latency", "size")})
            if made.hopeless(candidate, cheap) is not None:
                gated += 1
                assert any(
                    other["accuracy"] >= values["accuracy"]
                    and other["latency"] <= values["latency"]
                    and other["size"] <= values["size"]
                    for other in seen
                )
        assert gated > 5

    def test_what_is_not_measured_may_be_as_good_as_predicted(self) -> None:
        made = taught()
        assert made.hopeless(width(0.9, steps=2.0), {}) is None

    def test_nothing_is_hopeless_before_enough_is_known(self) -> None:
        cheap = exact({"latency": 9.0, "size": 9e9})
        assert taught(LEAST - 1).hopeless(width(0.3, "a"), cheap) is None
        assert taught(30).hopeless(width(0.3, "a"), cheap) is not None

    def test_no_accuracy_beyond_its_limit_is_hoped_for(self) -> None:
        # A model that is perfect already, a little smaller than the candidate.
        perfect = Outcome(
            status=Status.COMPLETE,
            measurements=exact({"accuracy": 1.0, "latency": 0.4, "size": 400.0}),
        )
        cheap = exact({"latency": 0.41, "size": 410.0})
        for limit, hopeless in ((None, False), (1.0, True)):
            made = taught(12, by=partial(Surrogate, SPACE, axes(limit), 0))
            made.tell(entry(width(0.66, steps=1.9), 12, perfect))
            made.tell(entry(width(0.68, steps=1.8), 13, perfect))
            assert (made.hopeless(width(0.67, steps=1.85), cheap) is not None) == hopeless

    def test_a_bound_on_accuracy_that_cannot_be_kept(self) -> None:
        made = taught(by=lambda: Surrogate(SPACE, axes(accuracy=Bound(at_least=0.9)), 0))
        reason = made.hopeless(width(0.99), {})
        assert reason is not None
        assert "could not keep the bound on accuracy" in reason

    def test_an_interval_counts_with_its_better_end(self) -> None:
        made = taught()
        size = truth(width(0.5))["size"]
        unsure = Measurement(value=2.0, low=0.01, high=3.0, protocol="made up")
        known = {"latency": unsure, **exact({"size": size})}
        assert made.hopeless(width(0.5), known) is None


class TestDraws:
    def test_the_same_trials_lead_to_the_same_draw(self) -> None:
        assert taught().draw(30, 0, []).candidate == taught().draw(30, 0, []).candidate

    def test_what_it_was_asked_does_not_change_what_it_draws(self) -> None:
        made = taught()
        made.hopeless(width(0.3), {})
        made.rest(10)
        assert made.draw(30, 0, []).candidate == taught().draw(30, 0, []).candidate

    def test_trials_under_way_are_not_drawn_again(self) -> None:
        made = taught()
        running: list[Drawn] = []
        for _ in range(4):
            drawn = made.draw(30, 0, running)
            assert drawn.candidate not in [each.candidate for each in running]
            running.append(drawn)

    def test_many_under_way_are_not_drawn_again(self) -> None:
        made = taught()
        running: list[Drawn] = []
        for _ in range(150):
            running.append(made.draw(30, 0, running))
        assert len({each.candidate.id for each in running}) == 150

    def test_trials_under_way_count_by_what_they_are(self) -> None:
        made, running = taught(), list[Drawn]()
        for _ in range(5):
            running.append(made.draw(30, 0, running))
        others = [Drawn.of(each.candidate, SPACE) for each in running]
        again = made.draw(30, 0, running)
        assert again.candidate == made.draw(30, 0, others).candidate
        assert again.candidate == taught().draw(30, 0, others).candidate
        # Those that ended meanwhile are forgotten.
        assert made.draw(30, 0, running[2:]).candidate == taught().draw(30, 0, others[2:]).candidate

    def test_what_was_gated_or_stopped_teaches(self) -> None:
        # Everything of kind `a` is gated with its size, which is much larger than anything seen.
        made, plain = taught(16), taught(16)
        for number in range(40):
            candidate = width(0.1 + 0.02 * number, "a")
            outcome = Outcome(
                status=Status.GATED, reason="x",
                measurements=exact({"latency": 50.0, "size": 5e6}),
            )  # fmt: skip
            made.tell(entry(candidate, 16 + number, outcome))
        kinds = {True: 0, False: 0}
        for each in (made, plain):
            running: list[Drawn] = []
            for _ in range(8):
                running.append(each.draw(60, 0, running))
            kinds[each is made] = sum(
                c.candidate.as_dict().get("width", {}).get("kind") == "a" for c in running
            )
        assert kinds[True] <= kinds[False]
        assert kinds[True] == 0

    def test_what_failed_is_not_tried_again(self) -> None:
        made = taught(12)
        first = made.draw(12, 0, []).candidate
        made.tell(entry(first, 12, Outcome(status=Status.FAILED, reason="broken")))
        assert made.draw(13, 0, []).candidate != first

    def test_a_trial_that_was_stopped_tells_its_accuracy_at_the_rung(self) -> None:
        made = taught(12)
        rung = Rung(share=0.5, values={"accuracy": 0.7, "latency": 0.5}, rivals=9, promoted=False)
        outcome = Outcome(
            status=Status.EARLY_STOPPED, reason="x",
            measurements=exact({"latency": 0.5, "size": 500.0}), rungs=(rung,),
        )  # fmt: skip
        made.tell(entry(width(0.55), 12, outcome))
        told = made._view.told[-1].user_attrs["parefront:told"]
        assert told == [
            {"values": {"1": 0.5, "2": 500.0}, "fidelity": 1.0},
            {"values": {"0": 0.7}, "fidelity": 0.5},
        ]


class TestRest:
    def test_it_falls_as_the_front_is_found(self) -> None:
        made = taught(10)
        early = made.rest(20)
        for number in range(10, 40):
            candidate = made.draw(number, 0, []).candidate
            made.tell(entry(candidate, number))
        late = made.rest(20)
        assert early is not None
        assert late is not None
        assert 0 <= late < early < math.inf

    def test_it_grows_with_the_number_of_trials(self) -> None:
        made = taught(12)
        few, many = made.rest(1), made.rest(20)
        assert few is not None
        assert many is not None
        assert few <= many

    def test_too_little_is_known_at_first(self) -> None:
        assert taught(LEAST - 1).rest(10) is None


def test_costs_are_paid_for() -> None:
    def cost(candidate: Candidate) -> float:
        return 1000.0 if candidate.as_dict().get("repair", {}).get("steps", 1.0) > 1.5 else 1.0

    made = taught(16, by=lambda: Surrogate(SPACE, axes(), 0, cost=cost))
    running: list[Drawn] = []
    for _ in range(6):
        running.append(made.draw(16, 0, running))
    assert all(cost(each.candidate) == 1.0 for each in running)


def test_a_look_decides_among_the_best() -> None:
    looked: list[Candidate] = []

    def look(candidate: Candidate) -> dict[str, float]:
        looked.append(candidate)
        return {"size": truth(candidate)["size"]}

    made = taught(16, by=lambda: Surrogate(SPACE, axes(), 0, look=look))
    chosen = made.draw(16, 0, []).candidate
    assert chosen in looked
    assert 1 < len(looked) <= 24


def test_a_look_says_which_bounds_are_broken() -> None:
    # Of what is no objective, too; whom it hits cannot be learnt from trials.
    def look(candidate: Candidate) -> dict[str, float]:
        return {"memory": 1000.0 * Random(candidate.id).randrange(2)}

    bound = Bound(at_most=500.0)

    def judged(candidate: Candidate) -> Outcome:
        violation = bound.violation(look(candidate)["memory"])
        return Outcome(
            status=Status.INFEASIBLE if violation > 0 else Status.COMPLETE,
            measurements=exact(truth(candidate)),
            violations={"memory": violation},
        )

    for bounds, keeps in (({"memory": bound}, True), ({}, False)):
        made = Surrogate(SPACE, axes(), 0, bounds=bounds, look=look)
        for number in range(16):
            made.tell(entry(drawn(number), number, judged(drawn(number))))
        running: list[Drawn] = []
        for _ in range(6):
            running.append(made.draw(16, 0, running))
        assert all(look(each.candidate)["memory"] <= 500.0 for each in running) == keeps


@pytest.mark.parametrize("status", [Status.INFEASIBLE, Status.GATED, Status.EARLY_STOPPED])
def test_whatever_became_of_a_trial_it_is_not_on_the_front(status: Status) -> None:
    made = taught(LEAST)
    best = Outcome(status=status, reason="x", measurements=exact({"latency": 1e-6, "size": 1e-6}))
    before = made.hopeless(width(0.5), exact({"latency": 0.3, "size": 300.0}))
    made.tell(entry(width(0.9), LEAST, best))
    after = made.hopeless(width(0.5), exact({"latency": 0.3, "size": 300.0}))
    assert (before is None) == (after is None)
