"""Ranks by what each layer costs in loss, and by what it takes in time."""

from __future__ import annotations

import copy
from dataclasses import replace
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from parefront.errors import StageError
from parefront.spaces.lowrank.config import FactorizationChoices, FactorizationConfig
from parefront.spaces.lowrank.shares import PROBED, by_sensitivity
from parefront.spaces.lowrank.svd import Factorization
from parefront.spaces.stage import Find, TargetTraits
from tests.exporting import assert_ships
from tests.zoo import Memory, make, taught

STAGE = Factorization(FactorizationChoices(), TargetTraits(format="onnx", channel_multiple=8))


def config(rank: str, ratio: float, **fields: Any) -> FactorizationConfig:
    return FactorizationConfig.model_validate(
        {"rank": rank, "ratio": ratio, "layers": "all", "multiple": 1, **fields}
    )


class Branches(nn.Module):
    """Two layers side by side; the model hardly listens to the second."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.loud, self.quiet = nn.Linear(64, 10), nn.Linear(64, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        loud, quiet = self.loud(x), self.quiet(x)
        return 30.0 * loud + 1e-3 * quiet  # type: ignore[no-any-return]


def test_the_growth_is_that_of_the_layer_with_fewer_singular_values() -> None:
    model = Branches().eval()
    context = taught(model)
    layers = {"loud": model.loud, "quiet": model.quiet}
    shares = by_sensitivity(model, layers, config("sensitivity", 0.5), context)
    ((x,), targets) = next(context.calibration.batches(64))
    break_even = 64 * 10 / (64 + 10)
    for name, table in shares.achieved["sensitivity"].items():
        worst = float("inf")
        for share in PROBED:
            # A second implementation: the smallest singular values are gone.
            poor = copy.deepcopy(model)
            u, s, vh = torch.linalg.svd(poor.get_parameter(f"{name}.weight").detach())
            rank = int(share * break_even)
            with torch.no_grad():
                poor.get_parameter(f"{name}.weight").copy_((u[:, :rank] * s[:rank]) @ vh[:rank])
                grown = context.loss(poor(x), targets) - context.loss(model(x), targets)
            worst = min(worst, max(grown.item(), 0.0))
            assert table[f"{1 - share:.4g}"] == pytest.approx(worst, abs=1e-4)


def test_ranks_go_where_the_loss_needs_them() -> None:
    model = Branches().eval()
    context = taught(model)
    by_need = STAGE.apply(model, config("sensitivity", 0.5), context)
    alike = STAGE.apply(model, config("ratio", 0.5), context)
    # The quiet one has the least that was tried, which leaves 0.85 of break-even to the other.
    assert alike.achieved["ranks"] == {"loud": [10, 4], "quiet": [10, 4]}
    assert by_need.achieved["ranks"] == {"loud": [10, 7], "quiet": [10, 1]}
    assert_ships(by_need.model, context)
    ((x,), targets) = next(context.calibration.batches(64))
    with torch.no_grad():
        lost = [context.loss(each.model(x), targets) for each in (by_need, alike)]
    assert lost[0] < lost[1]


def test_what_the_loss_needs_most_stays_dense() -> None:
    model = Branches().eval()
    achieved = STAGE.apply(model, config("sensitivity", 0.6), taught(model)).achieved
    assert achieved["left"] == {"loud": "the loss needs it dense"}
    assert list(achieved["ranks"]) == ["quiet"]


def test_what_the_model_reads_itself_and_what_is_tiny_stay_dense() -> None:
    class Reader(Branches):
        def __init__(self) -> None:
            super().__init__()
            self.tiny = nn.Linear(10, 1)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            quiet = nn.functional.linear(x, self.quiet.weight)
            return self.loud(x) + quiet + self.tiny(quiet)  # type: ignore[no-any-return]

    model = Reader().eval()
    achieved = STAGE.apply(model, config("sensitivity", 0.5), taught(model)).achieved
    assert achieved["left"] == {
        "quiet": "the model needs its dense weight",
        "tiny": "nothing saves parameters in it",
    }
    assert list(achieved["ranks"]) == ["loud"]


def in_time(latencies: dict[str, float]) -> Any:
    """A clock on which a layer of `r` parts of its parameters takes `r` times a figure."""

    def clock(model: nn.Module, name: str, part: nn.Module) -> float:
        if name not in latencies:
            raise StageError(f"{name} cannot be timed")
        size = sum(p.numel() for p in part.parameters() if p.ndim > 1)
        return latencies[name] * size / model.get_parameter(f"{name}.weight").numel()

    return clock


def test_ranks_break_even_in_time() -> None:
    model = Branches().eval()
    context = replace(taught(model), clock=in_time({"loud": 2.0, "quiet": 0.5}))
    applied = STAGE.apply(model, config("latency", 1.0), context)
    # Of rank r there are 74 r parameters for 640: rank 4 takes 0.925 of the time, rank 5 1.156.
    assert applied.achieved["ranks"] == {"loud": [10, 4], "quiet": [10, 8]}
    assert applied.achieved["latency"]["loud"]["0.5"] == pytest.approx(2 * 4 * 74 / 640, abs=1e-3)
    assert_ships(applied.model, context)
    half = STAGE.apply(model, config("latency", 0.5), context)
    assert half.achieved["ranks"] == {"loud": [10, 2], "quiet": [10, 8]}


def test_what_is_never_fast_enough_stays_dense() -> None:
    model = Branches().eval()
    context = replace(taught(model), clock=in_time({"loud": 20.0}))
    achieved = STAGE.apply(model, config("latency", 0.5), context).achieved
    assert achieved["ranks"] == {}
    assert achieved["left"] == {
        "loud": "at no rank was it seen to run in 0.5 of its latency",
        "quiet": "quiet cannot be timed",
    }


def test_without_a_clock_there_are_no_ranks_by_latency() -> None:
    model = Branches().eval()
    with pytest.raises(StageError, match="need a target that layers can be timed on"):
        STAGE.apply(model, config("latency", 0.5), taught(model))


def test_timings_are_remembered() -> None:
    model = Branches().eval()
    facts: dict[str, Any] = {}

    def remember(name: str, find: Find) -> Any:
        if name not in facts:
            facts[name] = find()
        return facts[name]

    context = replace(taught(model), clock=in_time({"loud": 2.0, "quiet": 0.5}), remember=remember)
    first = STAGE.apply(model, config("latency", 0.8), context)
    forgetful = replace(context, clock=in_time({}))
    assert STAGE.apply(model, config("latency", 0.8), forgetful).achieved == first.achieved


def test_what_could_not_be_timed_is_tried_again() -> None:
    model = Branches().eval()
    facts: dict[str, Any] = {}

    def remember(name: str, find: Find) -> Any:
        if name not in facts:
            facts[name] = find()
        return facts[name]

    context = replace(taught(model), clock=in_time({"loud": 0.5}), remember=remember)
    first = STAGE.apply(model, config("latency", 0.8), context).achieved
    assert first["left"] == {"quiet": "quiet cannot be timed"}
    mended = replace(context, clock=in_time({"quiet": 0.5}))
    assert set(STAGE.apply(model, config("latency", 0.8), mended).achieved["ranks"]) == {
        "loud", "quiet"
    }  # fmt: skip


def test_only_ranks_by_latency_depend_on_timings() -> None:
    timed = [r for r in ("ratio", "sensitivity", "latency") if STAGE.timed(config(r, 0.5))]
    assert timed == ["latency"]


@settings(deadline=None, max_examples=30)
@given(st.integers(4, 80), st.integers(4, 80), st.sampled_from([1, 4, 8]), st.floats(0.1, 1.5))
def test_the_rank_that_is_taken_was_seen_to_be_fast_enough(
    rows: int, columns: int, multiple: int, slow: float
) -> None:
    model = nn.Sequential(nn.Linear(columns, rows), nn.ReLU(), nn.Linear(rows, 10)).eval()
    x = torch.randn(8, columns)
    known = Memory((x,), torch.zeros(8, dtype=torch.long))
    context = replace(make("mlp")[1], example=(x[:2],), calibration=known, train=known)
    ratio = in_time({"0": slow, "2": slow})

    def noted(model: nn.Module, name: str, part: nn.Module) -> float:
        found: float = ratio(model, name, part)
        seen[name, part.get_parameter("0.weight").shape[0]] = found
        return found

    seen: dict[tuple[str, int], float] = {}
    applied = STAGE.apply(
        model, config("latency", 0.5, multiple=multiple), replace(context, clock=noted)
    )
    ranks = {name: rank for name, (_, rank) in applied.achieved["ranks"].items()}
    for name in ("0", "2"):
        fast = [rank for (layer, rank), ratio in seen.items() if layer == name and ratio <= 0.5]
        assert ranks.get(name) == max(fast, default=None)


@pytest.mark.parametrize("rank", ["sensitivity", "latency"])
def test_a_weight_that_is_not_finite_is_said(rank: str) -> None:
    model = Branches().eval()
    with torch.no_grad():
        model.quiet.weight[0, 0] = float("nan")
    context = replace(taught(model), clock=in_time({"loud": 1.0, "quiet": 1.0}))
    with pytest.raises(StageError, match="cannot factorise quiet: its weight is not finite"):
        STAGE.apply(model, config(rank, 0.5), context)


def test_each_way_to_rank_is_an_anchor() -> None:
    choices = FactorizationChoices.model_validate({"rank": ["ratio", "sensitivity", "latency"]})
    anchors = Factorization(choices, STAGE.target).anchors()
    assert [(each.rank, each.ratio) for each in anchors] == [
        ("ratio", 0.5), ("sensitivity", 0.5), ("latency", 0.5), ("ratio", 0.2)
    ]  # fmt: skip
