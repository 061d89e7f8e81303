"""Pruning in rounds: what each leaves, and what returns at its beginning."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from parefront.spaces.distillation.recovery import RecoveryConfig, RecoveryTraining
from parefront.spaces.distillation.training import Optimizer, rate_at, train
from parefront.spaces.pruning.rounds import RoundMask
from parefront.spaces.pruning.weights import (
    WeightPruning,
    WeightPruningChoices,
    WeightPruningConfig,
)
from parefront.spaces.ruled import baked, weights_of, with_rule
from parefront.spaces.stage import TargetTraits
from tests.zoo import Memory, make

TRAITS = TargetTraits(format="onnx", channel_multiple=8)


@settings(deadline=None, max_examples=60)
@given(st.integers(1, 6), st.integers(1, 40), st.integers(1, 99))
def test_each_round_prunes_the_same_share_of_what_is_left_for_good(
    rounds: int, steps: int, least: int
) -> None:
    mask = RoundMask(torch.arange(100) < least, rounds, rewinds=False)
    generator = torch.Generator().manual_seed(steps)
    kept = torch.ones(100, dtype=torch.bool)
    for step in range(steps):
        weight = torch.randn(100, generator=generator)
        mask.progress(step / steps, weight)
        now = mask.keep.clone()
        assert not (now & ~kept).any()
        # In whole numbers: the round that a step is in.
        done = step * rounds // steps + 1
        assert int(now.sum()) == round(100 * (least / 100) ** (done / rounds))
        if not torch.equal(now, kept):
            # A second implementation: the smallest of those that were kept.
            lost = kept & ~now
            assert weight[lost].abs().max() <= weight[now].abs().min()
        kept = now
    mask.progress(1.0, torch.randn(100, generator=generator))
    assert int(mask.keep.sum()) == least


def test_a_weight_that_loses_all_loses_it_in_the_last_round() -> None:
    mask = RoundMask(torch.zeros(100, dtype=torch.bool), 2, rewinds=False)
    left = []
    for share in (0.0, 0.5, 1.0):
        mask.progress(share, torch.randn(100))
        left.append(int(mask.keep.sum()))
    assert left == [10, 0, 0]


def test_without_training_it_prunes_what_it_was_given() -> None:
    keep = torch.arange(10) < 3
    assert torch.equal(RoundMask(keep.clone(), 3, rewinds=True)(torch.ones(10)) != 0, keep)


def trained(
    *, rewinds: bool, rounds: int = 2, epochs: int = 5, average: float | None = None
) -> tuple[nn.Module, Sequence[float], Sequence[float]]:
    """A layer that learns from one example a step: itself, its first output and rate each step."""
    torch.manual_seed(0)
    layer = nn.Linear(2, 1)
    mask = RoundMask(torch.tensor([[True, False]]), rounds, rewinds=rewinds)
    model = with_rule(layer, "", mask)
    seen: list[float] = []
    moved: list[float] = []
    model.register_forward_hook(lambda *_: seen.append(layer.bias.item()))

    def tick() -> None:
        moved.append(abs(layer.bias.item() - seen[-1]))

    train(
        model,
        Memory((torch.zeros(2, 2),), torch.full((2, 1), 100.0)),
        lambda _, outputs, targets: (outputs - targets).abs().mean(),
        epochs=epochs,
        learning_rate=0.1,
        batch_size=2,
        seed=0,
        tick=tick,
        optimizer="sgd",
        average=average,
    )
    return model, seen, moved


def test_rewinding_brings_all_parameters_back_and_the_schedule_begins_anew() -> None:
    _, going_on, moved = trained(rewinds=False)
    _, returning, again = trained(rewinds=True)
    # Five steps in two rounds: the second begins with the fourth.
    assert returning[3] == returning[0]
    assert going_on[3] != going_on[0]
    assert returning[1:3] == going_on[1:3]
    # The gradient of the bias is always -1 (clipped to 1), and Nesterov's momentum of 0.9 begins
    # with 1 + 0.9 of it in each round.
    for steps in (moved, again):
        assert steps[0] == pytest.approx(1.9 * rate_at(0, 3, 0.1), rel=1e-4)
        assert steps[3] == pytest.approx(1.9 * rate_at(0, 2, 0.1), rel=1e-4)
        assert steps[1] == pytest.approx((1 + 0.9 + 0.81) * rate_at(1, 3, 0.1), rel=1e-4)


def test_the_average_is_of_the_last_round() -> None:
    model, seen, moved = trained(rewinds=True, average=0.5)
    first, second = seen[3] + moved[3], seen[4] + moved[4]
    bias = model.get_parameter("layer.bias").item()
    assert bias == pytest.approx((0.5 * 0.5 * first + 0.5 * second) / 0.75, rel=1e-5)


@pytest.mark.parametrize("rewind", [False, True])
@pytest.mark.parametrize("optimizer", ["adam", "sgd"])
def test_a_model_that_was_pruned_in_rounds_is_as_sparse(rewind: bool, optimizer: Optimizer) -> None:
    model, context = make("cnn")
    config = WeightPruningConfig(
        pattern="free",
        sparsity=0.9,
        scope="global",
        saliency="magnitude",
        schedule="rounds",
        rounds=3,
        rewind=rewind,
    )
    pruned = WeightPruning(WeightPruningChoices(), TRAITS).apply(model, config, context).model
    recovery = RecoveryConfig(epochs=2, learning_rate=0.01, batch_size=16, optimizer=optimizer)
    recover = RecoveryTraining(RecoveryTraining.choices_type(), TRAITS)
    found = recover.apply(pruned, recovery, context)
    zeros = [
        [int((each.weight == 0).sum()) for each in weights_of(baked(of))[0]]
        for of in (pruned, found.model)
    ]
    assert zeros[0] == zeros[1]
    assert found.achieved["epochs"] == 2
