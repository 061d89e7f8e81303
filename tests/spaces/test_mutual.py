"""Students that learn from each other, early stops and schedules of recovery training."""

from __future__ import annotations

import copy
import math
from dataclasses import replace
from typing import Any

import optuna
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError
from torch import nn
from torch.nn import functional

from parefront.errors import StageError
from parefront.spaces.distillation.mutual import Pair, exchanged, peer_of
from parefront.spaces.distillation.recovery import (
    RecoveryChoices,
    RecoveryConfig,
    RecoveryTraining,
)
from parefront.spaces.distillation.stopping import BestWeights
from parefront.spaces.distillation.training import Schedule, rate_at, train
from parefront.spaces.pruning.weights import WeightPruning
from parefront.spaces.ruled import weights_of
from parefront.spaces.stage import StageContext, TargetTraits
from tests.zoo import Memory, make

TRAITS = TargetTraits(format="onnx", channel_multiple=8)
MUTUAL = {"soft_weight": 0.5, "temperature": 1.0, "mutual": True}


def stage(**choices: Any) -> RecoveryTraining:
    return RecoveryTraining(RecoveryChoices.model_validate(choices), TRAITS)


def config(**fields: Any) -> RecoveryConfig:
    full = {"epochs": 3, "learning_rate": 0.01, "batch_size": 16} | fields
    return RecoveryConfig.model_validate(full)


def recover(module: nn.Module, context: StageContext, **fields: Any) -> tuple[nn.Module, Any]:
    applied = stage().apply(module, config(**fields), context)
    return applied.model, applied.achieved


def equal(first: nn.Module, second: nn.Module) -> bool:
    pairs = zip(first.state_dict().values(), second.state_dict().values(), strict=True)
    return all(torch.equal(a, b) for a, b in pairs)


class TestMutual:
    def test_an_equal_peer_teaches_nothing_at_first(self) -> None:
        module, context = make("cnn")
        pair = Pair(module, peer_of(module, 0, noise=0.0)).train()
        inputs, targets = next(context.train.batches(32))
        outputs = pair(*inputs)
        everything = exchanged(context.loss, 1.0, 1.0)(inputs, outputs, targets)
        assert everything.item() == pytest.approx(0.0, abs=1e-6)
        half = exchanged(context.loss, 0.5, 1.0)(inputs, outputs, targets)
        torch.testing.assert_close(half, context.loss(outputs[0], targets))

    def test_the_loss_by_hand(self) -> None:
        one, other = torch.randn(2, 6, 4, generator=torch.Generator().manual_seed(0))
        targets = torch.arange(6) % 4
        loss = exchanged(functional.cross_entropy, 0.5, 1.0)
        p, q = one.softmax(1), other.softmax(1)
        expected = functional.cross_entropy(one, targets) + functional.cross_entropy(other, targets)
        expected += (q * (q / p).log()).sum(1).mean() + (p * (p / q).log()).sum(1).mean()
        outputs: Any = (one, other)
        torch.testing.assert_close(loss((one,), outputs, targets), expected / 2)

    def test_no_gradient_flows_into_what_is_learnt_from(self) -> None:
        one = torch.zeros(2, 3, requires_grad=True)
        other = torch.randn(2, 3, generator=torch.Generator().manual_seed(0)).requires_grad_()
        outputs: Any = (one, other)
        loss = exchanged(functional.cross_entropy, 1.0, 1.0)
        loss((one,), outputs, torch.tensor([0, 1])).backward()  # type: ignore[no-untyped-call]
        assert one.grad is not None
        # The divergence from q to softmax(one) has the gradient softmax(one) - q, over the batch.
        expected = (one.softmax(1) - other.softmax(1)).detach() / 2
        torch.testing.assert_close(one.grad, expected)

    def test_a_peer_begins_elsewhere_with_its_zeros_and_signs(self) -> None:
        module, _ = make("cnn")
        with torch.no_grad():
            module.get_parameter("head.1.weight")[:, ::2] = 0.0
        before = copy.deepcopy(module)
        peer = peer_of(module, 3)
        assert equal(module, before)
        assert equal(peer, peer_of(module, 3))
        assert not equal(peer, peer_of(module, 4))
        for ours, theirs in zip(module.parameters(), peer.parameters(), strict=True):
            assert torch.equal(ours.sign(), theirs.sign())
            if ours.numel() > 100:
                ratio = (theirs / ours)[ours != 0]
                assert 0.05 < ratio.std().item() < 0.2

    def test_it_needs_no_teacher_and_is_the_same_for_a_seed(self) -> None:
        module, context = make("cnn")
        context = replace(context, teachers=())
        torch.manual_seed(1)
        first, achieved = recover(module, context, **MUTUAL)
        torch.manual_seed(2)
        again, _ = recover(module, context, **MUTUAL)
        assert equal(first, again)
        assert type(first) is type(module)
        assert achieved["epochs"] == 3
        other, _ = recover(module, replace(context, seed=1), **MUTUAL)
        assert not equal(first, other)
        alone, _ = recover(module, context)
        assert not equal(first, alone)

    def test_it_can_compare_features_with_the_baseline_too(self) -> None:
        module, context = make("cnn")
        trained, achieved = recover(
            module, context, features="hint", feature_weight=1.0, average=0.5, **MUTUAL
        )
        assert achieved["features_of"]
        assert not any(part._forward_hooks for part in trained.modules())

    def test_looking_on_the_way_shows_the_student_and_changes_nothing(self) -> None:
        module, context = make("mlp")
        seen: list[type[nn.Module]] = []
        looked = replace(
            context, rungs=(0.25, 0.5), report=lambda _, student: seen.append(type(student))
        )
        assert equal(recover(module, looked, **MUTUAL)[0], recover(module, context, **MUTUAL)[0])
        assert seen == [type(module)] * 2

    def test_the_cost_is_told_to_be_twice(self) -> None:
        plain = {"soft_weight": 0.5, "temperature": 1.0}
        assert stage().passes(config(**plain)) == 3.0
        assert stage().passes(config(**MUTUAL)) == 6.0

    def test_a_pruned_student_has_a_pruned_peer(self) -> None:
        module, context = make("mlp")
        prune = WeightPruning(
            WeightPruning.choices_type.model_validate({"sparsity": 0.8, "schedule": "cubic"}),
            TRAITS,
        )
        pruned = prune.apply(module, prune.anchors()[0], context).model
        trained, _ = recover(pruned, context, **MUTUAL)
        weights = [weight.weight for weight in weights_of(trained)[0]]
        kept = sum(int(weight.count_nonzero()) for weight in weights)
        assert 0.15 < kept / sum(weight.numel() for weight in weights) < 0.25

    def test_it_is_drawn_only_with_soft_targets(self) -> None:
        for weight in (0.0, 0.5):
            trial = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0)).ask()
            drawn = stage(soft_weight=weight, mutual=[True, False]).draw(trial, {})
            assert ("recover.mutual" in trial.params) == (weight > 0)
            assert weight or not drawn.mutual
        with pytest.raises(ValidationError, match="a soft_weight above 0 for mutual training"):
            config(mutual=True)


class Slope(nn.Module):
    """One parameter."""

    def __init__(self, value: float) -> None:
        super().__init__()
        self.value = nn.Parameter(torch.tensor([value]))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.value * x


def slope_training(values: list[float], patience: int) -> tuple[float, list[float], Any]:
    """A training that is watched with given values: what is left, and after each epoch."""
    module = Slope(0.0)
    after: list[float] = []

    def watch(watched: nn.Module) -> float:
        assert not watched.training
        assert not torch.is_grad_enabled()
        after.append(module.value.item())
        return values[len(after) - 1]

    log = train(
        module,
        Memory((torch.ones(4, 1),), torch.ones(4, 1)),
        lambda _, outputs, targets: functional.mse_loss(outputs, targets),
        epochs=len(values),
        learning_rate=0.01,
        batch_size=2,
        seed=0,
        tick=lambda: None,
        patience=patience,
        watch=watch,
    )
    return module.value.item(), after, log


class TestPatience:
    @settings(deadline=None)
    @given(st.lists(st.floats(0, 1), min_size=1, max_size=8), st.integers(1, 4))
    def test_the_best_is_kept_and_waiting_ends(self, values: list[float], patience: int) -> None:
        left, after, log = slope_training(values, patience)
        best, expected = 0, len(values)
        for at, value in enumerate(values):
            if value < values[best]:
                best = at
            if at - best >= patience:
                expected = at + 1
                break
        assert len(after) == log.epochs == expected
        assert log.steps == 2 * expected
        assert log.best_epoch == best + 1
        assert left == after[best]

    def test_what_is_never_finite_leaves_the_last(self) -> None:
        left, after, log = slope_training([math.nan] * 5, 2)
        assert len(after) == 2
        assert log.best_epoch is None
        assert left == after[-1]

    def test_buffers_are_those_of_the_best_too(self) -> None:
        norm = nn.BatchNorm1d(2)
        best = BestWeights(norm)
        best.look(1, 1.0)
        norm(torch.ones(3, 2))
        best.look(2, 2.0)
        best.take()
        assert best.waited == 1
        assert norm.num_batches_tracked is not None
        assert norm.num_batches_tracked.item() == 0

    def test_labels_that_cannot_be_learnt_stop_the_training(self) -> None:
        module, context = make("mlp")
        generator = torch.Generator().manual_seed(0)
        (inputs,), _ = next(context.train.batches(64))
        noise = Memory((inputs,), torch.randint(0, 10, (64,), generator=generator))
        context = replace(context, train=noise)  # the calibration examples have the right ones
        trained, achieved = recover(module, context, epochs=20, patience=2)
        assert achieved["epochs"] == achieved["best_epoch"] + 2 < 20
        long, _ = recover(module, context, epochs=20)

        def loss(model: nn.Module) -> float:
            inputs, targets = next(context.calibration.batches(64))
            with torch.no_grad():
                return context.loss(model(*inputs), targets).item()

        assert loss(trained) < loss(long)

    def test_waiting_in_vain_for_an_end_changes_only_which_epoch_is_kept(self) -> None:
        module, context = make("cnn")
        plain, achieved = recover(module, context)
        watched, seen = recover(module, context, patience=3)
        assert seen["epochs"] == achieved["epochs"] == 3
        assert "best_epoch" not in achieved
        if seen["best_epoch"] == 3:
            assert equal(plain, watched)

    def test_with_an_average_it_is_the_average_that_is_watched_and_kept(self) -> None:
        module, context = make("cnn")
        plain, _ = recover(module, context, average=0.9, epochs=2)
        watched, achieved = recover(module, context, average=0.9, epochs=2, patience=2)
        assert achieved["best_epoch"] == 2
        assert equal(plain, watched)

    def test_weights_that_are_pruned_step_by_step_are_trained_to_the_end(self) -> None:
        module, context = make("mlp")
        prune = WeightPruning(
            WeightPruning.choices_type.model_validate({"sparsity": 0.5, "schedule": "cubic"}),
            TRAITS,
        )
        pruned = prune.apply(module, prune.anchors()[0], context).model
        _, achieved = recover(pruned, context, epochs=4, patience=1)
        assert achieved["epochs"] == 4
        assert achieved["patience_left_out"].startswith("weights are pruned step by step")
        with pytest.raises(ValueError, match="no patience for a module with parts that are paced"):
            train(
                pruned, context.train, lambda _, y, t: functional.cross_entropy(y, t), epochs=1,
                learning_rate=0.01, batch_size=16, seed=0, tick=lambda: None, patience=1,
            )  # fmt: skip

    def test_fixed_rules_do_not_keep_it_from_ending(self) -> None:
        module, context = make("mlp")
        prune = WeightPruning(
            WeightPruning.choices_type.model_validate({"sparsity": 0.5, "schedule": "once"}),
            TRAITS,
        )
        pruned = prune.apply(module, prune.anchors()[0], context).model
        _, achieved = recover(pruned, context, epochs=4, patience=1)
        assert "patience_left_out" not in achieved

    def test_it_needs_examples(self) -> None:
        module, context = make("mlp")
        empty = Memory((torch.zeros(0, 64),), torch.zeros(0, dtype=torch.long))
        with pytest.raises(StageError, match="calibration examples for a patience of 2, got none"):
            recover(module, replace(context, calibration=empty), patience=2)

    def test_less_than_none_is_refused(self) -> None:
        with pytest.raises(ValidationError, match="greater than or equal to 0"):
            config(patience=-1)
        with pytest.raises(ValidationError, match=r"at least 0 epochs, got \[-1, 3\]"):
            stage(patience=[-1, 3])


class TestSchedules:
    @settings(deadline=None)
    @given(st.integers(1, 300), st.floats(1e-6, 1.0))
    def test_cosine_and_constant_are_torch_s(self, steps: int, peak: float) -> None:
        constant = [rate_at(step, steps, peak, "constant") for step in range(steps)]
        assert constant == [peak] * steps
        found = [rate_at(step, steps, peak, "cosine") for step in range(steps)]
        optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=peak)
        scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
        for rate in found:
            assert rate == pytest.approx(scheduler.get_last_lr()[0], rel=1e-6, abs=1e-12)
            optimizer.step()
            scheduler.step()

    def test_each_trains_otherwise(self) -> None:
        module, context = make("mlp")
        kinds: tuple[Schedule, ...] = ("one_cycle", "cosine", "constant")
        one, cosine, constant = (
            recover(module, context, schedule=kind, epochs=5)[0] for kind in kinds
        )
        assert equal(one, recover(module, context, epochs=5)[0])
        assert not equal(one, cosine)
        assert not equal(cosine, constant)
