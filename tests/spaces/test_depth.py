"""The stage `drop`: which parts can be skipped, which go first, and what is left."""

from __future__ import annotations

import copy
import json
import pickle
from dataclasses import replace
from typing import Any

import optuna
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError
from torch import nn
from torch.nn import functional as F

from parefront.spaces.catalog import STAGES
from parefront.spaces.distillation.recovery import RecoveryTraining
from parefront.spaces.inspection import count_parameters
from parefront.spaces.lowrank.svd import Factorization
from parefront.spaces.pruning.channels import ChannelPruning
from parefront.spaces.pruning.depth import (
    DepthPruning,
    DepthPruningChoices,
    number_to_remove,
)
from parefront.spaces.pruning.parts import Skip
from parefront.spaces.stage import Stage
from tests.exporting import assert_ships
from tests.spaces.skippable import (
    STAGE,
    TARGET,
    Hidden,
    config,
    context_for,
    hidden,
    names,
    random,
)
from tests.zoo import Memory, make


class TestChoices:
    @pytest.mark.parametrize(
        ("share", "importance"), [(0.0, "loss"), (1.1, "loss"), (0.5, "taylor")]
    )
    def test_an_impossible_config_is_refused(self, share: float, importance: str) -> None:
        with pytest.raises(ValidationError):
            config(share, importance)

    @pytest.mark.parametrize("share", [[0.0, 0.5], [0.5, 1.1]])
    def test_impossible_shares_are_refused(self, share: list[float]) -> None:
        with pytest.raises(ValidationError, match=r"within \(0, 1\], got"):
            DepthPruningChoices.model_validate({"share": share})

    def test_anchors_stay_within_the_choices(self) -> None:
        assert STAGE.anchors() == [config(0.25), config(0.5)]
        choices = DepthPruningChoices.model_validate({"share": 1, "importance": "random"})
        assert DepthPruning(choices, TARGET).anchors() == [config(1.0, "random")]

    def test_what_is_fixed_is_not_drawn(self) -> None:
        choices = DepthPruningChoices.model_validate({"share": 0.3, "importance": "loss"})
        trial = optuna.trial.FixedTrial({})
        assert DepthPruning(choices, TARGET).draw(trial, {}) == config(0.3)

    def test_it_comes_first(self) -> None:
        assert STAGES[0] is DepthPruning

    @pytest.mark.parametrize(
        ("share", "count", "gone"),
        [
            (0.01, 4, 1),
            (0.25, 4, 1),
            (0.37, 4, 1),
            (0.38, 4, 2),
            (0.9, 4, 4),
            (0.1, 1, 1),
            (0.5, 5, 2),
        ],
    )
    def test_a_share_is_the_nearest_number(self, share: float, count: int, gone: int) -> None:
        assert number_to_remove(share, count) == gone

    @given(st.floats(0, 1, exclude_min=True), st.integers(1, 200))
    def test_a_share_is_at_least_one_and_at_most_all(self, share: float, count: int) -> None:
        gone = number_to_remove(share, count)
        assert 1 <= gone <= count
        assert gone == 1 or abs(gone - share * count) <= 0.5


class TestImportance:
    @pytest.mark.parametrize("identity", [0, 2, 3])
    @pytest.mark.parametrize("importance", ["loss", "similarity"])
    def test_what_changes_nothing_goes_first(self, importance: str, identity: int) -> None:
        model, context = hidden(identity=identity)
        with torch.no_grad():
            targets = model(random(150, 8))
        # The loss of the whole model is 0, which nothing else can be better than.
        source = Memory((random(150, 8),), targets)
        context = replace(context, calibration=source, loss=F.mse_loss)
        applied = STAGE.apply(model, config(0.25, importance), context)
        assert applied.achieved["removed"] == [f"blocks.{identity}"]
        assert applied.achieved["scores"][f"blocks.{identity}"] == 0
        for inputs, _ in context.calibration.batches(64):
            torch.testing.assert_close(applied.model(*inputs), model(*inputs))

    @pytest.mark.parametrize("importance", ["loss", "similarity"])
    def test_places_that_are_zero_are_alike(self, importance: str) -> None:
        model = nn.Sequential(
            nn.Conv2d(1, 8, 1), nn.ReLU(), nn.Sequential(nn.Conv2d(8, 8, 3, padding=1), nn.ReLU()),
            nn.Flatten(), nn.Linear(8 * 16, 3),
        ).eval()  # fmt: skip
        with torch.no_grad():
            nn.init.dirac_(model.get_parameter("2.0.weight"))
            model.get_parameter("2.0.bias").zero_()
            model.get_parameter("0.bias").fill_(-1)
        applied = STAGE.apply(model, config(1, importance), context_for(random(10, 1, 4, 4)))
        assert applied.achieved["scores"] == {"2": 0.0}

    def test_the_loss_is_that_without_the_part(self) -> None:
        model, context = hidden()
        inputs, targets = next(context.calibration.batches(150))
        expected = {}
        with torch.no_grad():
            before = F.cross_entropy(model(*inputs), targets)
            for at in range(4):
                shorter = copy.deepcopy(model)
                del shorter.blocks[at]
                expected[f"blocks.{at}"] = F.cross_entropy(shorter(*inputs), targets) - before
        scores = STAGE.apply(model, config(), context).achieved["scores"]
        assert scores == pytest.approx({k: float(v) for k, v in expected.items()}, abs=2e-6)

    def test_eight_batches_are_enough(self) -> None:
        model, _ = hidden()
        many = context_for(random(600, 8))
        (inputs,), targets = next(many.calibration.batches(512))
        few = replace(many, calibration=Memory((inputs,), targets))
        for importance in ("loss", "similarity"):
            found = [STAGE.apply(model, config(0.5, importance), c).achieved for c in (many, few)]
            assert found[0] == found[1]

    def test_similarity_is_the_cosine(self) -> None:
        model, context = hidden()
        (inputs,), _ = next(context.calibration.batches(150))
        expected = {}
        with torch.no_grad():
            x = F.relu(model.stem(inputs)).double()
            for at, each in enumerate(model.blocks):
                y = copy.deepcopy(each).double()(x)
                cosine = (x * y).sum(dim=1) / (x.norm(dim=1) * y.norm(dim=1))
                expected[f"blocks.{at}"] = float(1 - cosine.mean())
                x = y
        scores = STAGE.apply(model, config(0.5, "similarity"), context).achieved["scores"]
        assert scores == pytest.approx(expected, abs=1e-5)
        lowest = sorted(expected, key=lambda name: expected[name])[:2]
        removed = STAGE.apply(model, config(0.5, "similarity"), context).achieved["removed"]
        assert removed == sorted(lowest)

    def test_random_depends_on_the_seed_alone(self) -> None:
        model, context = hidden()

        def removed(seed: int) -> tuple[str, ...]:
            changed = replace(context, seed=seed)
            return tuple(STAGE.apply(model, config(0.5, "random"), changed).achieved["removed"])

        assert removed(3) == removed(3)
        assert len({removed(seed) for seed in range(10)}) > 1

    def test_what_breaks_the_loss_stays(self) -> None:
        model, context = hidden()

        def loss(outputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
            skipped = any(isinstance(m, Skip) for m in probe[0].blocks[:1])
            value = F.cross_entropy(outputs, targets)
            return value * torch.nan if skipped else value

        probe: list[Any] = []
        real = nn.Module.__call__

        class Noted(Hidden):
            def __call__(self, *inputs: torch.Tensor) -> torch.Tensor:
                probe[:] = [self]
                return real(self, *inputs)  # type: ignore[no-any-return]

        noted = Noted().eval()
        noted.load_state_dict(model.state_dict())
        achieved = STAGE.apply(noted, config(0.75), replace(context, loss=loss)).achieved
        assert achieved["kept"] == ["blocks.0"]
        assert achieved["scores"]["blocks.0"] is None
        json.dumps(achieved, allow_nan=False)


class TestWhatIsLeft:
    @pytest.mark.parametrize("kind", ["resnet", "transformer", "mlp"])
    @pytest.mark.parametrize("importance", ["loss", "similarity", "random"])
    @pytest.mark.parametrize("share", [0.5, 1.0])
    def test_it_ships(self, kind: str, importance: str, share: float) -> None:
        model, context = make(kind)
        applied = STAGE.apply(model, config(share, importance), context)
        parts = names(model, context)
        achieved = applied.achieved
        assert sorted(achieved["removed"] + achieved["kept"]) == parts
        assert len(achieved["removed"]) == max(round(share * len(parts)), 1)
        lost = sum(count_parameters(model.get_submodule(name)) for name in achieved["removed"])
        assert achieved["parameters_before"] == count_parameters(model)
        assert achieved["parameters_after"] == count_parameters(model) - lost
        assert count_parameters(applied.model) == achieved["parameters_after"]
        assert_ships(applied.model, context)
        assert_ships(pickle.loads(pickle.dumps(applied.model)), context)  # noqa: S301 - made here

    def test_the_same_as_a_model_made_with_less(self) -> None:
        model, context = hidden()
        applied = STAGE.apply(model, config(0.5), context)
        shorter = copy.deepcopy(model)
        shorter.blocks = nn.Sequential(
            *(model.get_submodule(name) for name in applied.achieved["kept"])
        )
        x = random(5, 8, seed=2)
        assert torch.equal(applied.model(x), shorter(x))

    @pytest.mark.parametrize("stage", [ChannelPruning, Factorization, RecoveryTraining])
    @pytest.mark.parametrize("kind", ["resnet", "transformer", "mlp"])
    def test_later_stages_work_on_it(self, kind: str, stage: type[Stage[Any, Any]]) -> None:
        model, context = make(kind)
        dropped = STAGE.apply(model, config(0.5), context).model
        given = {"epochs": 1, "features": "hint"} if stage is RecoveryTraining else {}
        later = stage(stage.choices_type.model_validate(given), TARGET)
        result = later.apply(dropped, later.anchors()[0], context).model
        assert_ships(result, context)

    def test_modes_and_frozen_weights_stay(self) -> None:
        model, context = hidden()
        model.train()
        model.blocks[0].eval()
        model.blocks[0].requires_grad_(False)
        model.blocks[1].requires_grad_(False)
        applied = STAGE.apply(model, config(0.75, "random"), context)
        kept = set(applied.achieved["kept"])
        for name, module in applied.model.named_modules():
            assert module.training == model.get_submodule(name).training
        for name, parameter in applied.model.named_parameters():
            assert parameter.requires_grad == model.get_parameter(name).requires_grad
        whole = STAGE.apply(model, config(1.0), context).achieved
        assert len(kept) == 1
        assert whole["removed"] == [f"blocks.{at}" for at in range(4)]
