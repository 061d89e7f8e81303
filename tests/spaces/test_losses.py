"""What a student answers: labels, soft targets and smoothing against closed forms."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional

from parefront.errors import StageError
from parefront.spaces.distillation.losses import blended, distillation_loss, smoothed


def random(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@given(student=st.floats(-20, 20), teacher=st.floats(-20, 20), temperature=st.floats(0.5, 10))
def test_two_classes_have_a_closed_form(student: float, teacher: float, temperature: float) -> None:
    def logs(logit: float) -> tuple[float, float]:
        """Logarithms of the probabilities of both classes."""
        return -math.log1p(math.exp(-logit)), -math.log1p(math.exp(logit))

    (p1, p2), (q1, q2) = logs(teacher / temperature), logs(student / temperature)
    expected = temperature**2 * (math.exp(p1) * (p1 - q1) + math.exp(p2) * (p2 - q2))
    found = distillation_loss(
        torch.tensor([[student, 0.0]], dtype=torch.float64),
        torch.tensor([[teacher, 0.0]], dtype=torch.float64),
        torch.tensor([0]),
        temperature,
    )
    assert found.item() == pytest.approx(expected, rel=1e-6, abs=1e-9)


def test_a_hot_loss_is_half_the_mean_squared_difference_of_centred_logits() -> None:
    # Hinton, Vinyals and Dean (2015), section 2.1.
    generator = torch.Generator().manual_seed(0)
    student, teacher = torch.randn(2, 8, 5, dtype=torch.float64, generator=generator)
    centred = (student - teacher) - (student - teacher).mean(dim=1, keepdim=True)
    found = distillation_loss(student, teacher, torch.zeros(8, dtype=torch.long), 1e4)
    assert found.item() == pytest.approx(centred.square().mean().item() / 2, rel=1e-3)


def test_classes_are_along_the_last_dimension_and_all_others_are_averaged() -> None:
    student, teacher = torch.randn(2, 3, 4, 5, generator=torch.Generator().manual_seed(0))
    targets = torch.zeros(3, 4, dtype=torch.long)
    each = [
        distillation_loss(student[i, j][None], teacher[i, j][None], targets[0, :1], 2.0)
        for i in range(3)
        for j in range(4)
    ]
    found = distillation_loss(student, teacher, targets, 2.0)
    torch.testing.assert_close(found, torch.stack(each).mean())


def test_a_student_like_its_teacher_loses_nothing() -> None:
    logits = torch.randn(4, 10, generator=torch.Generator().manual_seed(0))
    assert distillation_loss(logits, logits, torch.zeros(4, dtype=torch.long), 3.0).item() == 0


def test_regressions_are_compared_by_mean_squared_difference_whatever_the_temperature() -> None:
    student, teacher = torch.tensor([[1.0], [2.0]]), torch.tensor([[4.0], [1.0]])
    for temperature in (1.0, 7.0):
        assert distillation_loss(student, teacher, torch.zeros(2, 1), temperature).item() == 5.0


class TestLosses:
    @given(st.floats(0.0, 0.9))
    def test_smoothing_is_torch_s_own(self, share: float) -> None:
        outputs, targets = random(9, 4), torch.arange(9) % 4
        loss = smoothed(functional.cross_entropy, share)
        expected = functional.cross_entropy(outputs, targets, label_smoothing=share)
        torch.testing.assert_close(loss(outputs, targets), expected)

    def test_classes_may_be_along_the_second_dimension(self) -> None:
        outputs, targets = random(2, 5, 8, 9), torch.arange(144).reshape(2, 8, 9) % 5
        loss = smoothed(functional.cross_entropy, 0.1)
        expected = functional.cross_entropy(outputs, targets, label_smoothing=0.1)
        torch.testing.assert_close(loss(outputs, targets), expected)

    def test_one_logit_is_not_smoothed(self) -> None:
        outputs, targets = random(9, 1), torch.arange(9) % 2

        def plain(outputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
            return functional.binary_cross_entropy_with_logits(outputs[:, 0], targets.float())

        assert torch.equal(smoothed(plain, 0.1)(outputs, targets), plain(outputs, targets))

    def test_outputs_that_are_no_tensor_are_refused_with_what_to_do(self) -> None:
        def plain(outputs: Any, targets: torch.Tensor) -> torch.Tensor:
            return functional.cross_entropy(outputs["logits"], targets)

        outputs: Any = {"logits": random(9, 4)}
        targets = torch.arange(9) % 4
        with pytest.raises(StageError, match="for smoothing, got dict; set smoothing to 0"):
            smoothed(plain, 0.1)(outputs, targets)

        class Answers(nn.Module):
            def forward(self, x: torch.Tensor) -> Any:
                return {"logits": x}

        loss = blended(plain, [Answers()], 0.5, 2.0)
        with pytest.raises(StageError, match="for soft_weight, got dict"):
            loss((random(9, 4),), outputs, targets)

    def test_regressions_are_not_smoothed(self) -> None:
        outputs, targets = random(9, 4), random(9, 4, seed=1)
        loss = smoothed(functional.mse_loss, 0.5)
        torch.testing.assert_close(loss(outputs, targets), functional.mse_loss(outputs, targets))

    def test_logits_are_compared_as_they_are(self) -> None:
        outputs, teacher = random(9, 4), random(9, 4, seed=1)
        found = distillation_loss(outputs, teacher, torch.arange(9) % 4, None)
        torch.testing.assert_close(found, (outputs - teacher).square().mean())
