"""Comparisons of features, other losses, optimisers and averages of recovery training."""

from __future__ import annotations

import copy
import math
import pickle
from dataclasses import replace
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional

from parefront.errors import StageError
from parefront.spaces.distillation.averaging import RunningAverage
from parefront.spaces.distillation.features import (
    COMPARISONS,
    FeatureLoss,
    Features,
    compared_layers,
)
from parefront.spaces.distillation.losses import blended
from parefront.spaces.distillation.recovery import RecoveryConfig, RecoveryTraining
from parefront.spaces.lowrank.svd import Factorization
from parefront.spaces.pruning.channels import ChannelPruning
from parefront.spaces.stage import Stage, StageContext, TargetTraits
from tests.zoo import make

TRAITS = TargetTraits(format="onnx", channel_multiple=8)


def random(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def compare(kind: Features, student: torch.Tensor, teacher: torch.Tensor) -> float:
    value: torch.Tensor = COMPARISONS[kind](student, teacher)(student, teacher)
    return value.item()


class TestComparisons:
    @pytest.mark.parametrize("kind", COMPARISONS)
    @pytest.mark.parametrize("shape", [(6, 8, 5, 5), (6, 7, 16)])
    def test_a_student_like_its_teacher_loses_nothing(
        self, kind: Features, shape: tuple[int, ...]
    ) -> None:
        features = random(*shape)
        assert compare(kind, features, features) == pytest.approx(0.0, abs=1e-6)
        assert compare(kind, random(*shape, seed=1), features) > 0.001

    def test_attention_is_where_and_not_which_channel(self) -> None:
        teacher, student = random(3, 8, 4, 4), random(3, 5, 4, 4, seed=1)
        by_hand = 0.0
        for theirs, ours in zip(teacher, student, strict=True):
            maps = [(each**2).mean(dim=0) for each in (theirs, ours)]
            lengths = [each.norm() for each in maps]
            by_hand += float(((maps[0] / lengths[0] - maps[1] / lengths[1]) ** 2).sum()) / 3
        assert compare("attention", student, teacher) == pytest.approx(by_hand, rel=1e-5)
        mixed = teacher[:, torch.randperm(8)] * 3.0
        assert compare("attention", mixed, teacher) == pytest.approx(0.0, abs=1e-6)

    def test_a_hint_is_a_regression_in_units_of_variance(self) -> None:
        teacher = random(40, 6, 10)
        hint = COMPARISONS["hint"](random(40, 6, 4), teacher)
        with torch.no_grad():
            for parameter in hint.parameters():
                parameter.zero_()
            (bias,) = (p for p in hint.parameters() if p.ndim == 1)
            bias.copy_(teacher.mean(dim=(0, 1)))
        explained = teacher.flatten(0, 1).var(dim=0, unbiased=False).mean() / teacher.var()
        assert hint(random(40, 6, 4), teacher).item() == pytest.approx(explained.item(), rel=1e-3)

    @settings(deadline=None, max_examples=20)
    @given(st.floats(0.1, 10.0), st.integers(0, 99))
    def test_relations_do_not_change_when_all_is_turned_and_scaled(
        self, scale: float, seed: int
    ) -> None:
        teacher = random(7, 12, seed=seed)
        turn, _ = torch.linalg.qr(random(12, 12, seed=seed + 1))
        assert compare("relational", scale * teacher @ turn, teacher) < 1e-5

    def test_relations_against_three_loops(self) -> None:
        teacher, student = random(5, 6), random(5, 3, seed=1)

        def distances(x: torch.Tensor) -> torch.Tensor:
            d = torch.tensor([[float((a - b).norm()) for b in x] for a in x])
            return d / d[d > 0].mean()

        def angles(x: torch.Tensor) -> torch.Tensor:
            out = torch.zeros(5, 5, 5)
            for j in range(5):
                for i in range(5):
                    for k in range(5):
                        if i != j and k != j:
                            out[j, i, k] = functional.cosine_similarity(
                                x[i] - x[j], x[k] - x[j], dim=0
                            )
            return out

        by_hand = functional.smooth_l1_loss(distances(student), distances(teacher))
        by_hand += 2 * functional.smooth_l1_loss(angles(student), angles(teacher))
        assert compare("relational", student, teacher) == pytest.approx(by_hand.item(), rel=1e-4)

    def test_gradients_are_finite_where_examples_are_alike(self) -> None:
        student = random(1, 4).repeat(3, 1).requires_grad_()
        COMPARISONS["relational"](student, random(3, 4))(student, random(3, 4)).backward()
        assert student.grad is not None
        assert student.grad.isfinite().all()


def smaller(kind: str, by: type[Stage[Any, Any]]) -> tuple[nn.Module, StageContext]:
    model, context = make(kind)
    stage = by(by.choices_type(), TRAITS)
    return stage.apply(model, stage.anchors()[0], context).model, context


class TestLayers:
    @pytest.mark.parametrize("by", [ChannelPruning, Factorization])
    @pytest.mark.parametrize("kind", ["cnn", "resnet", "depthwise", "mlp", "transformer"])
    def test_there_are_some_in_what_stages_make(self, kind: str, by: Any) -> None:
        student, context = smaller(kind, by)
        names = compared_layers(student, context.teachers[0], context.example)
        assert 1 <= len(names) <= 3
        assert all(student.get_submodule(name) for name in names)

    def test_sequences_of_a_pruned_convolution_are_compared(self) -> None:
        def net(channels: int) -> nn.Sequential:
            return nn.Sequential(
                nn.Conv1d(4, channels, 3, padding=1), nn.ReLU(), nn.Flatten(),
                nn.Linear(channels * 20, 5),
            )  # fmt: skip

        x = random(6, 4, 20)
        for kind in COMPARISONS:
            loss = FeatureLoss(kind, net(16), net(32), (x,), 0)
            assert loss.names
            assert loss().isfinite()

    def test_vectors_have_no_places(self) -> None:
        model, context = make("mlp")
        with pytest.raises(StageError, match="no layer of the model can be compared .*'attention'"):
            FeatureLoss("attention", model, context.teachers[0], context.example, 0)

    def test_other_names_are_not_compared(self) -> None:
        model, context = make("cnn")
        other = nn.Sequential(nn.Flatten(), nn.LazyLinear(10))
        other(*context.example)
        assert compared_layers(model, other, context.example) == []


def train(model: nn.Module, context: StageContext, **config: Any) -> tuple[nn.Module, Any]:
    full = {"epochs": 3, "learning_rate": 0.01, "batch_size": 16} | config
    stage = RecoveryTraining(RecoveryTraining.choices_type(), TRAITS)
    applied = stage.apply(model, RecoveryConfig.model_validate(full), context)
    return applied.model, applied.achieved


class TestTraining:
    @pytest.mark.parametrize("kind", COMPARISONS)
    def test_features_come_nearer_than_without(self, kind: Features) -> None:
        student, context = smaller("resnet", ChannelPruning)

        def distance(model: nn.Module) -> float:
            loss = FeatureLoss(kind, model, context.teachers[0], context.example, 0)
            total = 0.0
            for inputs, _ in context.train.batches(16):
                with torch.no_grad():
                    model(*inputs)
                    context.teachers[0](*inputs)
                    total += loss().item()
            loss.close()
            return total

        long = {"epochs": 10, "learning_rate": 0.003}
        without, _ = train(student, context, **long)
        compared, achieved = train(student, context, features=kind, feature_weight=10.0, **long)
        assert achieved["features_of"]
        # A hint's map is not the one that was learnt beside; so its student alone is not judged.
        if kind != "hint":
            assert distance(compared) < distance(without)
        again, _ = train(student, context, features=kind, feature_weight=10.0, **long)
        for one, other in zip(compared.parameters(), again.parameters(), strict=True):
            assert torch.equal(one, other)

    @pytest.mark.parametrize("kind", COMPARISONS)
    def test_no_hook_is_left_behind(self, kind: Features) -> None:
        student, context = smaller("cnn", ChannelPruning)
        trained, _ = train(student, context, features=kind, feature_weight=1.0)
        for model in (student, trained, context.teachers[0]):
            assert not any(module._forward_hooks for module in model.modules())
        pickle.dumps(trained)

    def test_a_map_that_is_learnt_beside_moves(self) -> None:
        student, context = smaller("cnn", ChannelPruning)
        loss = FeatureLoss("hint", student, context.teachers[0], context.example, 0)
        before = [parameter.detach().clone() for parameter in loss.parameters]
        from parefront.spaces.distillation.training import train as run

        run(
            student, context.train,
            blended(context.loss, context.teachers, 0.0, None, loss, 1.0),
            epochs=1, learning_rate=0.01, batch_size=16, seed=0, tick=lambda: None,
            beside=loss.parameters,
        )  # fmt: skip
        loss.close()
        assert before
        assert all(
            not torch.equal(old, new) for old, new in zip(before, loss.parameters, strict=True)
        )

    @pytest.mark.parametrize("optimizer", ["adam", "adamw", "sgd"])
    def test_every_optimizer_learns_and_differs(self, optimizer: str) -> None:
        model, context = make("mlp")
        trained, _ = train(model, context, optimizer=optimizer)
        plain, _ = train(model, context)
        same = all(
            torch.equal(a, b) for a, b in zip(trained.parameters(), plain.parameters(), strict=True)
        )
        assert same == (optimizer == "adam")

    def test_the_average_is_what_is_left_and_what_is_reported(self) -> None:
        model, context = make("mlp")
        steps: list[list[torch.Tensor]] = []

        def parameters(module: nn.Module) -> list[torch.Tensor]:
            return [parameter.detach().clone() for parameter in module.parameters()]

        looked = replace(
            context,
            rungs=(0.25, 0.5),
            report=lambda share, module: steps.append(parameters(module)),
        )
        averaged, _ = train(model, looked, average=0.9)
        reported = steps.copy()
        steps.clear()
        last, _ = train(model, looked)
        assert any(
            not torch.equal(a, b)
            for a, b in zip(averaged.parameters(), last.parameters(), strict=True)
        )
        # The training under the average is the same, so what is reported lags behind it.
        start = parameters(model)
        for at in range(2):
            moved = sum(
                float((a - b).square().sum()) for a, b in zip(reported[at], start, strict=True)
            )
            further = sum(
                float((a - b).square().sum()) for a, b in zip(steps[at], start, strict=True)
            )
            assert 0 < moved < further

    def test_averaging_with_rungs_does_not_change_what_is_left(self) -> None:
        model, context = make("mlp")
        plain, _ = train(model, context, average=0.8)
        looked, _ = train(model, replace(context, rungs=(0.3, 0.7)), average=0.8)
        for a, b in zip(plain.parameters(), looked.parameters(), strict=True):
            assert torch.equal(a, b)


@settings(deadline=None)
@given(
    st.lists(st.floats(-5, 5, width=32), min_size=1, max_size=8),
    st.floats(0.01, 0.99),
)
def test_a_running_average_is_a_weighted_mean(values: list[float], decay: float) -> None:
    parameter = nn.Parameter(torch.zeros(1))
    average = RunningAverage([parameter], decay)
    for value in values:
        with torch.no_grad():
            parameter.fill_(value)
        average.update()
    weights = [decay ** (len(values) - 1 - index) for index in range(len(values))]
    expected = math.fsum(w * v for w, v in zip(weights, values, strict=True)) / math.fsum(weights)
    with average.taken():
        assert parameter.item() == pytest.approx(expected, abs=1e-4)
    assert parameter.item() == pytest.approx(values[-1])
    average.take()
    assert parameter.item() == pytest.approx(expected, abs=1e-4)


def test_deep_copies_are_trained_not_the_given() -> None:
    student, context = smaller("cnn", ChannelPruning)
    before = copy.deepcopy(student)
    train(student, context, features="hint", feature_weight=1.0, average=0.5, smoothing=0.1)
    for a, b in zip(student.parameters(), before.parameters(), strict=True):
        assert torch.equal(a, b)
