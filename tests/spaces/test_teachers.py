"""Several teachers, hard labels, and models with a distillation token."""

from __future__ import annotations

import copy
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional

import parefront as pf
from parefront.errors import StageError, TaskError
from parefront.objectives.targets.target import Target
from parefront.search.baseline import trained_baseline
from parefront.search.builder import Builder
from parefront.search.task import cross_entropy, prepare
from parefront.spaces.distillation.losses import blended, distillation_loss, heads, joined
from parefront.spaces.distillation.recovery import RecoveryConfig, RecoveryTraining
from parefront.spaces.space import Space
from parefront.spaces.stage import StageContext, TargetTraits
from tests.exporting import assert_ships
from tests.tiny import data, model
from tests.zoo import Memory, make

TRAITS = TargetTraits(format="onnx", channel_multiple=8)


def random(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def recover(module: nn.Module, context: StageContext, **config: Any) -> nn.Module:
    full = {"epochs": 4, "learning_rate": 0.01, "batch_size": 16} | config
    stage = RecoveryTraining(RecoveryTraining.choices_type(), TRAITS)
    return stage.apply(module, RecoveryConfig.model_validate(full), context).model


class Fixed(nn.Module):
    """Answers the same whatever it is asked."""

    def __init__(self, answer: torch.Tensor) -> None:
        super().__init__()
        self.answer = answer

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.answer


class TestWeights:
    @settings(deadline=None)
    @given(st.lists(st.integers(1, 9), min_size=1, max_size=4), st.floats(0.1, 1.0))
    def test_the_soft_target_is_the_weighted_sum_by_hand(
        self, parts: list[int], weight: float
    ) -> None:
        shares = [part / sum(parts) for part in parts]
        answers = [random(6, 4, seed=at + 1) for at in range(len(parts))]
        outputs, targets = random(6, 4), torch.arange(6) % 4
        loss = blended(
            functional.cross_entropy,
            [Fixed(answer) for answer in answers],
            weight,
            2.0,
            teacher_weights=shares,
        )
        target = torch.zeros(6, 4)
        for share, answer in zip(shares, answers, strict=True):
            target += share * answer
        p, q = (torch.softmax(each / 2.0, dim=1) for each in (target, outputs))
        soft = 4.0 * (p * (p / q).log()).sum(dim=1).mean()
        expected = weight * soft + (1 - weight) * functional.cross_entropy(outputs, targets)
        found = loss((outputs,), outputs, targets)
        torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)

    def test_without_weights_all_weigh_alike(self) -> None:
        answers = [random(6, 4, seed=at) for at in (1, 2)]
        outputs, targets = random(6, 4), torch.arange(6) % 4
        teachers = [Fixed(answer) for answer in answers]
        alike, halves = (
            blended(functional.cross_entropy, teachers, 0.5, 2.0, teacher_weights=weights)
            for weights in ((), (0.5, 0.5))
        )
        found = [loss((outputs,), outputs, targets) for loss in (alike, halves)]
        torch.testing.assert_close(*found)

    def test_a_regression_is_drawn_to_the_weighted_mean(self) -> None:
        class Constant(nn.Module):
            def __init__(self, *answer: float) -> None:
                super().__init__()
                self.answer = nn.Parameter(torch.tensor(answer))

            def forward(self, x: torch.Tensor) -> torch.Tensor:
                return self.answer.expand(len(x), -1)

        _, context = make("mlp")
        source = Memory((torch.zeros(64, 1),), torch.zeros(64, 2))
        context = replace(
            context,
            train=source,
            loss=functional.mse_loss,
            teachers=(Constant(1.0, 3.0), Constant(5.0, -1.0)),
            teacher_weights=(0.25, 0.75),
            example=(source.inputs[0][:2],),
        )
        trained = recover(
            Constant(5.0, 5.0), context, epochs=200, learning_rate=0.1,
            soft_weight=1.0, soft_loss="mse",
        )  # fmt: skip
        torch.testing.assert_close(
            trained(torch.zeros(1, 1))[0], torch.tensor([4.0, 0.0]), atol=1e-2, rtol=0
        )

    def test_a_task_divides_them_by_their_sum(self) -> None:
        task = self.task(teachers=[model, model], teacher_weights=[2, 1, 1])
        assert prepare(task).teacher_weights == (0.5, 0.25, 0.25)
        assert prepare(self.task(teachers=[model])).teacher_weights == ()

    def test_stages_are_given_them(self) -> None:
        prepared = prepare(self.task(teachers=[model], teacher_weights=[1, 3]))
        space = Space.of({"recover": {}}, TRAITS)
        builder = Builder(
            task=prepared, module=prepared.baseline, space=space,
            target=Target(protocol="fixed"), seed=0,
        )  # fmt: skip
        context = builder.context(space.anchors()[0])
        assert context.teacher_weights == (0.25, 0.75)
        assert len(context.teachers) == 2

    @pytest.mark.parametrize(
        ("weights", "message"),
        [
            ([1.0], "a weight for the baseline and one for each of the 1 teachers, got 1 weights"),
            ([1.0, -1.0], r"none below 0 and not all 0, got \[1.0, -1.0\]"),
            ([0.0, 0.0], "not all 0"),
            ([1.0, float("nan")], "finite numbers"),
        ],
    )
    def test_wrong_weights_are_refused(self, weights: list[float], message: str) -> None:
        with pytest.raises(TaskError, match=message):
            self.task(teachers=[model], teacher_weights=weights)

    def task(self, **parts: Any) -> pf.Task:
        return pf.Task(
            model=model, train=data(64, 0), validation=data(32, 1), test=data(32, 2), **parts
        )


class TestHardLabels:
    def test_they_are_the_cross_entropy_with_the_teacher_s_class(self) -> None:
        outputs, teacher = random(3, 5, 4), random(3, 5, 4, seed=1)
        labels = torch.zeros(3, 5, dtype=torch.long)
        by_hand = -torch.stack(
            [
                torch.log_softmax(outputs[i, j], 0)[int(teacher[i, j].argmax())]
                for i in range(3)
                for j in range(5)
            ]
        ).mean()
        found = distillation_loss(outputs, teacher, labels, None, hard=True)
        torch.testing.assert_close(found, by_hand)

    def test_how_sure_the_teacher_is_does_not_count(self) -> None:
        module, context = make("mlp")
        student = copy.deepcopy(module)
        nn.init.normal_(student.get_parameter("layers.4.weight"))

        class Loud(nn.Module):
            def forward(self, x: torch.Tensor) -> torch.Tensor:
                return 7.0 * module(x)  # type: ignore[no-any-return]

        plain = recover(student, context, soft_weight=0.5, soft_loss="hard")
        loud = recover(
            student, replace(context, teachers=(Loud(),)), soft_weight=0.5, soft_loss="hard"
        )
        assert all(
            torch.equal(a, b) for a, b in zip(plain.parameters(), loud.parameters(), strict=True)
        )

    def test_the_student_comes_to_agree_with_the_teacher_against_the_labels(self) -> None:
        module, context = make("mlp", examples=128)
        (inputs,), targets = next(context.train.batches(128))
        wrong = Memory((inputs,), (targets + 1) % 10)
        student = copy.deepcopy(module)
        nn.init.normal_(student.get_parameter("layers.4.weight"))
        trained = recover(
            student, replace(context, train=wrong), epochs=12, soft_weight=1.0, soft_loss="hard"
        )
        assert (trained(inputs).argmax(1) == targets).float().mean() > 0.9

    def test_regressions_have_no_classes(self) -> None:
        outputs, teacher = random(4, 1), random(4, 1, seed=1)
        found = distillation_loss(outputs, teacher, random(4, 1), None, hard=True)
        torch.testing.assert_close(found, functional.mse_loss(outputs, teacher))

    def test_one_logit_has_no_classes_either(self) -> None:
        with pytest.raises(
            StageError, match=r"at least two classes .* got outputs of shape \(4, 1"
        ):
            distillation_loss(random(4, 1), random(4, 1), torch.arange(4) % 2, None, hard=True)


class TokenViT(nn.Module):
    """A vision transformer with a class token and a distillation token, as DeiT."""

    def __init__(self) -> None:
        super().__init__()
        self.patch = nn.Conv2d(1, 16, 4, stride=4)
        self.tokens = nn.Parameter(random(1, 2, 16))
        self.place = nn.Parameter(random(1, 6, 16, seed=1))
        layer = nn.TransformerEncoderLayer(16, 2, 32, dropout=0.0, batch_first=True)
        self.encoder = nn.TransformerEncoder(layer, 1, enable_nested_tensor=False)
        self.head, self.distilled = nn.Linear(16, 4), nn.Linear(16, 4)

    def forward(self, x: torch.Tensor) -> Any:
        patches = self.patch(x).flatten(2).transpose(1, 2)
        tokens = torch.cat([self.tokens.expand(x.shape[0], -1, -1), patches], dim=1) + self.place
        states = self.encoder(tokens)
        both = self.head(states[:, 0]), self.distilled(states[:, 1])
        return both if self.training else (both[0] + both[1]) / 2


def token_context(teacher: nn.Module, labels: torch.Tensor | None = None) -> StageContext:
    images, targets = data(256, 0)
    _, context = make("cnn")
    source = Memory((images,), targets if labels is None else labels)
    return replace(
        context, train=source, calibration=source, example=(images[:2],), teachers=(teacher,),
        loss=cross_entropy,
    )  # fmt: skip


class Quarters(nn.Module):
    """A teacher that knows the answer to `tests.tiny`: the brightest quarter."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return 10 * functional.avg_pool2d(x, 4).flatten(1)


class TestDistillationToken:
    @pytest.mark.parametrize("soft_loss", ["hard", "kl"])
    def test_labels_train_one_head_and_the_teacher_the_other(self, soft_loss: str) -> None:
        # Labels that are always 3, and a teacher that knows better.
        context = token_context(Quarters(), torch.full((256,), 3))
        temperature = 1.0 if soft_loss == "kl" else None
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            student = TokenViT()
        trained = recover(
            student, context, epochs=12, learning_rate=0.01, soft_weight=0.5,
            soft_loss=soft_loss, temperature=temperature,
        )  # fmt: skip
        images, targets = data(256, 0)
        with torch.no_grad():
            trained.train()
            own, taught = trained(images)
            trained.eval()
            torch.testing.assert_close(trained(images), (own + taught) / 2)
        assert (own.argmax(1) == 3).all()
        assert (taught.argmax(1) == targets).float().mean() > 0.7

    def test_the_loss_by_hand(self) -> None:
        own, taught, answer = random(6, 4), random(6, 4, seed=1), random(6, 4, seed=2)
        targets = torch.arange(6) % 4
        outputs: Any = (own, taught)
        loss = blended(functional.cross_entropy, [Fixed(answer)], 0.5, None, hard=True)
        expected = 0.5 * functional.cross_entropy(own, targets)
        expected += 0.5 * functional.cross_entropy(taught, answer.argmax(1))
        torch.testing.assert_close(loss((own,), outputs, targets), expected)

    def test_without_a_teacher_both_heads_learn_the_labels_together(self) -> None:
        own, taught, targets = random(6, 4), random(6, 4, seed=1), torch.arange(6) % 4
        outputs: Any = (own, taught)
        expected = functional.cross_entropy((own + taught) / 2, targets)
        torch.testing.assert_close(cross_entropy(outputs, targets), expected)
        assert recover(TokenViT(), token_context(Quarters()), soft_weight=0.0)

    def test_a_model_of_one_output_is_not_affected(self) -> None:
        outputs = random(6, 4)
        own, taught = heads(outputs)
        assert own is taught is outputs
        assert joined(outputs) is outputs

    def test_it_is_a_baseline_and_ships(self, tmp_path: Path) -> None:
        task = pf.Task(
            model=TokenViT, train=data(64, 0), validation=data(32, 1), test=data(32, 2),
            pretrain=pf.Pretrain(epochs=1),
        )  # fmt: skip
        baseline = trained_baseline(
            prepare(task), tmp_path / "weights.pt", seed=0, tick=lambda: None
        )
        context = token_context(baseline)
        assert_ships(recover(TokenViT(), context, soft_weight=0.5, soft_loss="hard"), context)

    @pytest.mark.parametrize(
        ("outputs", "told"),
        [
            (
                (random(2, 4), random(2, 3)),
                r"\(a tensor of shape \(2, 4\), a tensor of shape \(2, 3",
            ),
            ((random(2, 4),) * 3, r"got \(a tensor"),
            ({"logits": random(2, 4)}, "got dict"),
            ((random(2, 4), None), "NoneType"),
        ],
    )
    def test_other_outputs_are_refused_with_what_to_do(self, outputs: object, told: str) -> None:
        with pytest.raises(StageError, match=rf"a class head and a distillation .*{told}"):
            heads(outputs)
