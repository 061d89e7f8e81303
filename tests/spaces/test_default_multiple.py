"""Stages round to what the device's profile says, whichever multiple that is."""

from __future__ import annotations

from pathlib import Path

import optuna
import pytest
import torch
from torch import nn

from parefront.objectives.targets.profile import MULTIPLES
from parefront.objectives.targets.profile_cache import profiled_multiple, save_profile
from parefront.spaces.lowrank.config import FactorizationChoices
from parefront.spaces.lowrank.svd import Factorization
from parefront.spaces.pruning.channels import ChannelPruning, ChannelPruningChoices
from parefront.spaces.stage import TargetTraits
from tests import profiles
from tests.profiles import points, steps
from tests.spaces.test_channel_pruning import context_for


def net() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 96, 3, padding=1),
        nn.ReLU(),
        nn.Conv2d(96, 160, 3, padding=1),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(160, 200),
        nn.ReLU(),
        nn.Linear(200, 10),
    ).eval()


EXAMPLE = torch.zeros(2, 3, 8, 8)


@pytest.mark.parametrize("multiple", MULTIPLES)
def test_pruning_rounds_to_the_targets_multiple(multiple: int) -> None:
    stage = ChannelPruning(
        ChannelPruningChoices(), TargetTraits(format="onnx", channel_multiple=multiple)
    )
    model = net()
    assert stage.nothing_to_do(model, context_for(EXAMPLE)) is None
    trial = optuna.trial.FixedTrial(
        {"prune.ratio": 0.37, "prune.importance": "l2", "prune.scope": "uniform"}
    )
    for config in (stage.draw(trial, {}), *stage.anchors()):
        assert config.multiple == multiple
        applied = stage.apply(model, config, context_for(EXAMPLE))
        assert "nothing_removed" not in applied.achieved
        for before, after in applied.achieved["channels"].values():
            assert after == before or after % multiple == 0
            assert abs(after - (1 - config.ratio) * before) <= multiple / 2
        assert applied.model(EXAMPLE).shape == (2, 10)


@pytest.mark.parametrize("multiple", MULTIPLES)
def test_factorisation_rounds_to_the_targets_multiple(multiple: int) -> None:
    stage = Factorization(
        FactorizationChoices(), TargetTraits(format="onnx", channel_multiple=multiple)
    )
    model = net()
    assert stage.nothing_to_do(model, context_for(EXAMPLE)) is None
    trial = optuna.trial.FixedTrial({"factorize.ratio": 0.63})
    for config in (stage.draw(trial, {}), *stage.anchors()):
        assert config.multiple == multiple
        applied = stage.apply(model, config, context_for(EXAMPLE))
        ranks = [rank for _, rank in applied.achieved["ranks"].values()]
        assert ranks
        assert all(rank % multiple == 0 for rank in ranks)
        assert applied.model(EXAMPLE).shape == (2, 10)


@pytest.mark.parametrize("multiple", [4, 8, 16, 32])
def test_what_a_profile_says_is_what_a_stage_does(tmp_path: Path, multiple: int) -> None:
    save_profile(tmp_path, profiles.profile({"conv": points(steps(multiple))}))
    found = profiled_multiple(tmp_path, profiles.FACTS)
    assert found is not None
    target = TargetTraits(format="onnx", channel_multiple=found)
    (config, *_) = ChannelPruning(ChannelPruningChoices(), target).anchors()
    assert config.multiple == multiple
    (config, *_) = Factorization(FactorizationChoices(), target).anchors()  # type: ignore[assignment]
    assert config.multiple == multiple


def test_the_study_file_goes_before_the_profile() -> None:
    target = TargetTraits(format="onnx", channel_multiple=16)
    stage = ChannelPruning(ChannelPruningChoices.model_validate({"multiple": 4}), target)
    assert stage.anchors()[0].multiple == 4
