"""Reporting in the middle of a training, and that it changes nothing."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from parefront.spaces.distillation.recovery import (
    RecoveryChoices,
    RecoveryConfig,
    RecoveryTraining,
)
from parefront.spaces.distillation.training import train
from parefront.spaces.stage import Applied, StageContext, TargetTraits
from tests.zoo import Memory, make

SOFT = RecoveryConfig(epochs=3, learning_rate=1e-2, soft_weight=0.5, temperature=4.0, batch_size=16)
STEPS = 12  # 64 examples, three times


class Delicate(nn.Module):
    """Counts its calls, freezes its statistics at the fourth, folds a factor in for evaluation."""

    calls: torch.Tensor

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Sequential(nn.Linear(64, 32), nn.BatchNorm1d(32), nn.ReLU())
        self.last = nn.Linear(32, 10)
        self.register_buffer("calls", torch.zeros(()))

    def train(self, mode: bool = True) -> Delicate:
        if mode != self.training:
            self.last.weight.data *= 0.5 if mode else 2.0
        super().train(mode)
        return self

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.calls += 1
        if self.calls == 4:
            self.first[1].eval()
        y = nn.functional.dropout(self.first(x), 0.5, self.training)
        return self.last(y) * (2.0 if self.training else 1.0)  # type: ignore[no-any-return]


class Normalized(nn.Sequential):
    def __init__(self) -> None:
        super().__init__(
            nn.Linear(64, 32), nn.BatchNorm1d(32), nn.ReLU(), nn.Dropout(0.5), nn.Linear(32, 10)
        )


def recover(
    model: nn.Module,
    context: StageContext,
    rungs: tuple[float, ...] = (),
    report: Callable[[float, nn.Module], None] = lambda share, module: None,
) -> Applied[nn.Module]:
    stage = RecoveryTraining(RecoveryChoices(), TargetTraits(format="onnx", channel_multiple=8))
    return stage.apply(model, SOFT, replace(context, rungs=rungs, report=report))


def same(first: nn.Module, second: nn.Module) -> bool:
    pairs = zip(first.state_dict().values(), second.state_dict().values(), strict=True)
    return all(torch.equal(a, b) for a, b in pairs)


def meddle(share: float, module: nn.Module) -> None:
    """Does whatever a report may do, and draws from torch's generator besides."""
    module(torch.randn(40, 64))
    torch.manual_seed(int(1000 * share))
    copy.deepcopy(module).train()(torch.randn(40, 64))


@pytest.mark.parametrize("kind", [Normalized, Delicate])
def test_reporting_does_not_change_what_is_trained(kind: type[nn.Module]) -> None:
    _, context = make("mlp")
    torch.manual_seed(0)
    model = kind().eval()
    whole, reported = recover(model, context), recover(model, context, (0.1, 0.5, 0.9), meddle)
    assert same(whole.model, reported.model)
    assert whole.achieved == reported.achieved
    assert not same(whole.model, model)


def test_reports_come_after_the_step_that_reaches_the_share_and_its_tick() -> None:
    _, context = make("mlp")
    happened: list[object] = []
    context = replace(context, tick=lambda: happened.append("step"))
    recover(Normalized().eval(), context, (0.25, 0.3, 0.9), lambda share, _: happened.append(share))
    steps = ["step"]
    assert happened == [*steps * 3, 0.25, *steps, 0.3, *steps * 7, 0.9, *steps]


def test_a_report_sees_the_module_as_it_is_in_evaluation_mode_without_gradients() -> None:
    _, context = make("mlp")
    model = Normalized().eval()
    seen = []

    def report(share: float, module: nn.Module) -> None:
        assert not any(part.training for part in module.modules())
        assert not module(torch.ones(1, 64)).requires_grad
        seen.append(copy.deepcopy(module))

    modes: list[bool] = []
    model[3].register_forward_hook(lambda part, *_: modes.append(part.training))
    trained = recover(model, context, (0.5, 0.75), report).model
    assert modes == [True] * 6 + [False] + [True] * 3 + [False] + [True] * 3
    assert len({tuple(m.state_dict()["0.bias"].tolist()) for m in (model, *seen, trained)}) == 4


def test_what_a_report_raises_ends_the_training_and_spares_the_model() -> None:
    class EnoughError(Exception):
        pass

    ticks = 0

    def tick() -> None:
        nonlocal ticks
        ticks += 1

    def report(share: float, module: nn.Module) -> None:
        raise EnoughError

    _, context = make("mlp")
    model = Normalized().eval()
    before, random = copy.deepcopy(model), torch.get_rng_state()
    with pytest.raises(EnoughError):
        recover(model, replace(context, tick=tick), (0.5,), report)
    assert ticks == STEPS // 2
    assert same(model, before)
    assert not any(part.training for part in model.modules())
    assert torch.equal(torch.get_rng_state(), random)


def steps_of(rungs: tuple[float, ...], steps: int) -> list[tuple[int, float]]:
    """The steps after which a training of so many steps reports, with the shares it reports."""
    taken, found = 0, []

    def tick() -> None:
        nonlocal taken
        taken += 1

    module = nn.Linear(1, 1)
    train(
        module,
        Memory((torch.zeros(2, 1),), torch.zeros(2, 1)),
        lambda _, outputs, targets: (outputs - targets).square().mean(),
        epochs=steps,
        learning_rate=1e-3,
        batch_size=2,
        seed=0,
        tick=tick,
        rungs=rungs,
        report=lambda share, _: found.append((taken, share)),
    )
    return found


@given(
    rungs=st.sets(st.integers(1, 99), max_size=4).map(lambda each: tuple(sorted(each))),
    steps=st.integers(1, 30),
)
def test_a_share_is_reached_by_the_first_step_that_is_no_less(
    rungs: tuple[int, ...], steps: int
) -> None:
    expected = {}
    for percent in rungs:  # in whole numbers, where nothing is rounded
        expected[next(step for step in range(steps + 1) if 100 * step >= percent * steps)] = percent
    expected.pop(steps, None)
    found = steps_of(tuple(np.array(rungs, dtype=float) / 100), steps)
    assert found == [(step, percent / 100) for step, percent in expected.items()]


def test_a_training_of_one_step_reports_nothing() -> None:
    assert steps_of((0.25, 0.5), 1) == []
    assert steps_of((0.25, 0.5), 2) == [(1, 0.5)]


@pytest.mark.parametrize("rungs", [(0.0,), (1.0,), (0.5, 0.25), (0.5, 0.5), (math.nan,)])
def test_rungs_that_are_no_ascending_shares_are_refused(rungs: tuple[float, ...]) -> None:
    with pytest.raises(ValueError, match=r"expected rungs ascending in \(0, 1\), got"):
        steps_of(rungs, 4)
