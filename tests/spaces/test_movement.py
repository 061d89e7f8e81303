"""Movement pruning: scores by hand, and which weights they let go."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from parefront.spaces.distillation.recovery import RecoveryConfig, RecoveryTraining
from parefront.spaces.pruning.movement import MovementMask
from parefront.spaces.pruning.weights import (
    WeightPruning,
    WeightPruningChoices,
    WeightPruningConfig,
)
from parefront.spaces.ruled import Ruled, baked, weights_of, with_rule
from parefront.spaces.stage import TargetTraits
from tests.zoo import make

TRAITS = TargetTraits(format="onnx", channel_multiple=8)


def test_the_score_is_the_sum_over_the_steps_of_gradient_times_weight() -> None:
    """Halves of squared distances from a target, whose gradient is the distance itself."""
    weight, target = torch.tensor([[2.0, -1.0, 0.5, 3.0]]), torch.tensor([[0.0, -4.0, 0.5, 3.0]])
    layer = nn.Linear(4, 1, bias=False)
    layer.weight.data.copy_(weight)
    mask = MovementMask(torch.tensor([[True, True, False, False]]))
    model = with_rule(layer, "", mask)
    model.train()
    rate, by_hand = 0.1, torch.zeros(1, 4)
    held = weight.clone()
    keep = torch.tensor([[True, True, False, False]])
    optimizer = torch.optim.SGD(model.parameters(), lr=rate)
    for _ in range(5):
        optimizer.zero_grad()
        # The rows of the identity ask for each weight alone.
        loss = 0.5 * (model(torch.eye(4)).flatten() - target.flatten()).square().sum()
        loss.backward()
        optimizer.step()
        gradient = held * keep - target  # of the masked weight, of pruned ones too
        by_hand -= gradient * held
        held = held - rate * gradient * keep
    torch.testing.assert_close(mask.scores, by_hand)
    torch.testing.assert_close(layer.weight.detach(), held)
    # The first moves towards zero, the second away; the third and fourth are missed by the loss.
    assert by_hand[0, 0] < 0 < by_hand[0, 1]
    assert (by_hand[0, 2:] > 0).all()


def test_what_moves_towards_zero_goes_first_and_may_be_large() -> None:
    mask = MovementMask(torch.tensor([True, False, False, False]))
    mask.scores.copy_(torch.tensor([-3.0, 2.0, -1.0, 0.5]))
    weight = torch.tensor([9.0, 0.1, 1.0, 0.2])
    for share, zeros in ((0.0, []), (0.1, [0]), (0.25, [0, 2]), (1.0, [0, 2, 3])):
        mask.progress(share, weight)
        assert (mask(weight) == 0).nonzero().flatten().tolist() == zeros


def test_of_equal_scores_the_larger_weight_stays() -> None:
    mask = MovementMask(torch.tensor([True, True, False, False]))
    weight = torch.tensor([0.1, -3.0, 2.0, 0.2])
    mask.progress(1.0, weight)
    assert (mask(weight) != 0).tolist() == [True, True, False, False]  # nothing was trained
    mask.progress(0.0, weight)
    mask.progress(1.0, weight)
    assert (mask(weight) != 0).tolist() == [False, True, True, False]


def test_looking_at_a_model_scores_nothing() -> None:
    model = with_rule(nn.Linear(4, 1), "", MovementMask(torch.ones(1, 4, dtype=torch.bool)))
    (mask,) = (part for part in model.modules() if isinstance(part, MovementMask))
    model.eval()
    model(torch.ones(1, 4)).sum().backward()
    model.train()
    with torch.no_grad():
        model(torch.ones(1, 4))
    assert not mask.scores.any()
    copy.deepcopy(model)(torch.ones(1, 4)).sum().backward()
    assert not mask.scores.any()


@pytest.mark.parametrize("name", ["cnn", "transformer", "gru"])
def test_a_trained_model_is_as_sparse_and_chosen_by_scores(name: str) -> None:
    model, context = make(name)
    config = WeightPruningConfig(pattern="free", sparsity=0.8, scope="layer", saliency="movement")
    assert config.schedule == "cubic"
    pruned = WeightPruning(WeightPruningChoices(), TRAITS).apply(model, config, context).model
    recovery = RecoveryConfig(epochs=3, learning_rate=0.01, batch_size=16)
    recover = RecoveryTraining(RecoveryTraining.choices_type(), TRAITS)
    trained = recover.apply(pruned, recovery, context).model
    before, after = baked(pruned), baked(trained)
    zeros = [
        [int((each.weight == 0).sum()) for each in weights_of(of)[0]] for of in (before, after)
    ]
    assert zeros[0] == zeros[1]
    masks = [part for part in trained.modules() if isinstance(part, MovementMask)]
    assert len(masks) == len(zeros[0])
    assert any(mask.scores.any() for mask in masks)
    assert not all(
        torch.equal(a.weight == 0, b.weight == 0)
        for a, b in zip(weights_of(before)[0], weights_of(after)[0], strict=True)
    )
    assert not any(isinstance(part, Ruled) for part in after.modules())
