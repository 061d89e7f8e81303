"""Weights of few levels: which levels, which steps, which gradients."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from parefront.errors import StageError
from parefront.spaces.distillation.recovery import RecoveryConfig, RecoveryTraining
from parefront.spaces.quantization.adaptive_rounding import Undecided
from parefront.spaces.quantization.level_rule import Rounded, best_steps
from parefront.spaces.quantization.level_sets import LEVEL_SETS, additive, power_of_two, uniform
from parefront.spaces.quantization.levels import (
    RoundingChoices,
    RoundingConfig,
    WeightRounding,
)
from parefront.spaces.ruled import baked, weights_of
from parefront.spaces.sharing.clusters import (
    Clusters,
)
from parefront.spaces.stage import TargetTraits
from tests.zoo import make

TRAITS = TargetTraits(format="onnx", channel_multiple=8)


class TestLevels:
    @pytest.mark.parametrize("bits", [2, 3, 4])
    def test_sets_are_symmetric_whole_and_as_many_as_bits_allow(self, bits: int) -> None:
        for levels in (uniform(bits), power_of_two(bits), additive(bits)):
            assert len(levels) <= 2**bits - 1
            assert list(levels) == sorted({-each for each in levels})
            assert 0 in levels

    def test_sets_are_those_of_the_papers(self) -> None:
        assert uniform(3) == (-3, -2, -1, 0, 1, 2, 3)
        assert power_of_two(4)[7:] == (0, 1, 2, 4, 8, 16, 32, 64)
        # Li et al. 2020: {0, 1, 1/4, 1/16} + {0, 1/2}, over its largest.
        sums = {a + b for a in (0, 1, 1 / 4, 1 / 16) for b in (0, 1 / 2)}
        assert [each / 16 for each in additive(4)[7:]] == sorted(sums)
        assert LEVEL_SETS["ternary"](2) == (-1, 0, 1)
        assert LEVEL_SETS["binary"](2) == (-1, 1)

    def test_the_step_of_binary_weights_is_their_mean_size(self) -> None:
        rows = torch.randn(5, 64)
        step = best_steps(rows, torch.tensor([-1.0, 1.0]))
        torch.testing.assert_close(step, rows.abs().mean(dim=1))
        # Rastegari et al. 2016, equation 6: no other step has a smaller error.
        signs = rows.sign()
        error = (rows - step[:, None] * signs).square().sum(dim=1)
        for factor in (0.97, 1.03):
            other = (rows - factor * step[:, None] * signs).square().sum(dim=1)
            assert (other > error).all()

    @pytest.mark.parametrize("name", ["uniform", "power_of_two", "additive", "ternary"])
    def test_no_step_of_a_fine_grid_is_much_better(self, name: str) -> None:
        levels = torch.tensor(LEVEL_SETS[name](4), dtype=torch.float32)  # type: ignore[index]
        rows = torch.randn(6, 200)

        def error(step: torch.Tensor) -> torch.Tensor:
            scaled = rows / step[:, None]
            nearest = levels[(scaled[..., None] - levels).abs().argmin(dim=-1)]
            return (nearest * step[:, None] - rows).square().sum(dim=1)

        found = error(best_steps(rows, levels))
        grid = [rows.abs().amax(dim=1) / levels[-1] * part for part in torch.linspace(0.01, 1, 400)]
        assert (found <= torch.stack([error(step) for step in grid]).amin(dim=0) * 1.05).all()

    @pytest.mark.parametrize("channels", [0, 1])
    def test_what_is_made_is_exactly_levels_times_steps(self, channels: int) -> None:
        held = torch.randn(6, 8, 3)
        rule = Rounded(held, additive(4), channels)
        made = rule(held).detach()
        whole = (made / rule.step).detach()
        assert set(whole.round().flatten().int().tolist()) <= set(additive(4))
        assert torch.equal(whole.round() * rule.step, made)

    def test_weights_that_lie_across_in_memory_are_no_reason_to_warn(self) -> None:
        held = torch.randn(6, 8).t()  # as pruning leaves some
        torch.set_warn_always(True)
        try:
            rule = Rounded(held, additive(4), 0)
            made = rule(held)
            between = Undecided(held, rule)(held)
        finally:
            torch.set_warn_always(False)
        torch.testing.assert_close(made, rule(held.contiguous()))
        assert between.shape == held.shape

    def test_gradients_are_those_of_learned_steps(self) -> None:
        # Esser et al. 2020, equations 2 and 3, by hand: inside, at a level, and beyond the largest.
        held = torch.tensor([[0.26, -0.9, 0.05]], requires_grad=True)
        rule = Rounded(torch.tensor([[0.3, -0.3, 0.1]]), (-3, -2, -1, 0, 1, 2, 3), 0)
        with torch.no_grad():
            rule.step.fill_(0.1)
        rule(held).sum().backward()
        assert held.grad is not None
        assert held.grad.tolist() == [[1.0, 0.0, 1.0]]
        by_hand = (3 - 2.6) + -3 + (0 - 0.5)
        factor = 1 / (3 * 3) ** 0.5
        assert rule.step.grad is not None
        assert rule.step.grad.item() == pytest.approx(by_hand * factor, rel=1e-5)

    def test_the_ends_may_be_left_out(self) -> None:
        model, context = make("cnn")
        stage = WeightRounding(RoundingChoices(), TRAITS)
        names = [each.name for each in weights_of(model)[0]]
        all_of = stage.apply(model, RoundingConfig(levels="ternary", ends=True), context)
        inner = stage.apply(model, RoundingConfig(levels="ternary", ends=False), context)
        assert all_of.achieved["levels"] == dict.fromkeys(names, 3)
        assert inner.achieved["levels"] == dict.fromkeys(names[1:-1], 3)
        small = nn.Sequential(nn.Flatten(), nn.Linear(64, 32))
        config = RoundingConfig(levels="binary", ends=False)
        assert stage.apply(small, config, context).achieved["levels"] == {"1": 2}
        with pytest.raises(StageError, match="no layer has a weight that is large enough"):
            stage.apply(nn.Linear(4, 4), config, context)

    def test_binary_weights_leave_pruned_ones_at_zero(self) -> None:
        held = torch.randn(8, 64)
        held[:, ::3] = 0.0
        made = Rounded(held, (-1, 1), 0)(held)
        assert torch.equal(made == 0, held == 0)
        kept = held[:, [place for place in range(64) if place % 3]]
        torch.testing.assert_close(made.abs().amax(dim=1), kept.abs().mean(dim=1))

    @pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
    def test_other_types_of_weights(self, dtype: torch.dtype) -> None:
        held = 0.05 * torch.randn(4, 64, dtype=torch.float32).to(dtype)
        for rule in (Rounded(held, uniform(4), 0), Clusters(held, 16)):
            made = rule(held)
            assert made.dtype == dtype
            assert (made - held).abs().max() < 0.03

    def test_training_moves_weights_and_steps_and_stays_on_levels(self) -> None:
        model, context = make("cnn")
        config = RoundingConfig(levels="uniform", bits=3, ends=True)
        rounded = WeightRounding(RoundingChoices(), TRAITS).apply(model, config, context).model
        recovery = RecoveryConfig(
            epochs=2, learning_rate=0.01, soft_weight=0.0, temperature=None, batch_size=16
        )
        stage = RecoveryTraining(RecoveryTraining.choices_type(), TRAITS)
        trained = stage.apply(rounded, recovery, context).model
        for name, module in trained.named_modules():
            if isinstance(module, Rounded):
                before = rounded.get_submodule(name)
                assert isinstance(before, Rounded)
                assert not torch.equal(module.step, before.step)
        for each in weights_of(baked(trained))[0]:
            rows = each.weight.flatten(1)
            assert all(len(torch.unique(row)) <= 7 for row in rows)

    @pytest.mark.parametrize(
        ("given", "message"),
        [
            ({"levels": "uniform", "ends": True}, "expected bits for 'uniform'"),
            ({"levels": "binary", "bits": 2, "ends": True}, "expected no bits for 'binary'"),
            ({"levels": "power_of_two", "bits": 5, "ends": True}, "at most 4 bits"),
            ({"levels": "ternary", "allocation": "even", "ends": True}, "expected no allocation"),
            (
                {"levels": "additive", "bits": 4, "allocation": "sensitivity", "ends": True},
                "expected 'uniform' levels for bits by sensitivity, got 'additive'",
            ),
        ],
    )
    def test_wrong_configs_are_refused(self, given: dict[str, object], message: str) -> None:
        with pytest.raises(ValueError, match=message):
            RoundingConfig.model_validate(given)
