"""Channels and single weights pruned by what each layer can do without."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from parefront.spaces.pruning.channels import (
    ChannelPruning,
    ChannelPruningChoices,
    ChannelPruningConfig,
)
from parefront.spaces.pruning.groups import find_groups
from parefront.spaces.pruning.narrowing import growth_by_width
from parefront.spaces.pruning.ranking import scores
from parefront.spaces.pruning.weights import (
    WeightPruning,
    WeightPruningChoices,
    WeightPruningConfig,
)
from parefront.spaces.stage import TargetTraits
from tests.exporting import assert_ships
from tests.zoo import taught

STAGE = ChannelPruning(ChannelPruningChoices(), TargetTraits(format="onnx", channel_multiple=8))
CONFIG = ChannelPruningConfig(ratio=0.5, importance="l2", scope="sensitivity", multiple=1)


class Branches(nn.Module):
    """Two hidden layers side by side; the model hardly listens to the second."""

    def __init__(self, *, stiff: bool = False) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.loud, self.quiet = nn.Linear(64, 16), nn.Linear(64, 16)
        self.loud_head, self.quiet_head = nn.Linear(16, 10), nn.Linear(16, 10)
        self.stiff = stiff
        with torch.no_grad():
            self.loud_head.weight.mul_(30.0)
            self.quiet_head.weight.mul_(1e-3)
            self.quiet.weight.mul_(100.0)  # which misleads magnitude

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        quiet = F.relu(self.quiet(x))
        if self.stiff and quiet.shape[1] != 16:
            raise ValueError("as wide as ever")
        return self.loud_head(F.relu(self.loud(x))) + self.quiet_head(quiet)  # type: ignore[no-any-return]


def test_the_growth_is_that_of_the_group_without_its_channels() -> None:
    model = Branches().eval()
    context = taught(model)
    groups, _ = find_groups(model, context.example, context.tick)
    score = scores(groups, "l2", context)
    ranked = {group.root: (group, score[group.root]) for group in groups}
    grown = growth_by_width(model, ranked, 1, context, "")
    assert set(grown) == {"loud", "quiet"}
    ((x,), targets) = next(context.calibration.batches(64))
    for root, losses in grown.items():
        assert list(losses) == [2 / 16, 4 / 16, 8 / 16, 12 / 16, 1.0]
        worst = float("inf")
        for share, growth in losses.items():
            # A second implementation: nobody reads the channels.
            deaf = copy.deepcopy(model)
            gone = score[root].argsort()[: 16 - round(16 * share)]
            with torch.no_grad():
                deaf.get_parameter(f"{root}_head.weight")[:, gone] = 0.0
                by_hand = context.loss(deaf(x), targets) - context.loss(model(x), targets)
            worst = min(worst, max(by_hand.item(), 0.0))
            assert growth == pytest.approx(worst, abs=1e-5)
    assert grown["loud"][0.5] > 10 * grown["quiet"][2 / 16]


def test_channels_go_where_the_loss_does_not_need_them() -> None:
    model = Branches().eval()
    context = taught(model)
    applied = STAGE.apply(model, CONFIG, context)
    widths = applied.achieved["channels"]
    assert widths["loud"] == [16, 14]
    assert widths["quiet"] == [16, 2]
    assert list(applied.achieved["sensitivity"]["quiet"]) == ["0.875", "0.75", "0.5", "0.25"]
    assert_ships(applied.model, context)
    by_magnitude = STAGE.apply(model, CONFIG.model_copy(update={"scope": "uniform"}), context)
    ((x,), targets) = next(context.calibration.batches(64))
    with torch.no_grad():
        lost = [context.loss(each.model(x), targets) for each in (applied, by_magnitude)]
    assert lost[0] < lost[1]


def test_a_group_that_cannot_be_narrowed_is_left_whole_and_said() -> None:
    model = Branches(stiff=True).eval()
    applied = STAGE.apply(model, CONFIG, taught(model))
    reason = "the model does not run with fewer of its channels"
    assert applied.achieved["skipped"]["quiet"] == reason
    assert applied.achieved["channels"] == {"loud": [16, 8]}


def test_what_is_tried_first_stays_as_it_was() -> None:
    usual = STAGE.anchors()
    choices = ChannelPruningChoices.model_validate({"scope": ["sensitivity", "uniform"]})
    anchors = ChannelPruning(choices, STAGE.target).anchors()
    assert [anchors[0], anchors[-1]] == usual
    assert [each.scope for each in anchors] == ["uniform", "sensitivity", "uniform"]


def test_weights_go_where_the_loss_does_not_need_them() -> None:
    model = Branches().eval()
    context = taught(model)
    stage = WeightPruning(WeightPruningChoices(), STAGE.target)
    applied = {
        scope: stage.apply(
            model,
            WeightPruningConfig.model_validate(
                {"pattern": "free", "sparsity": 0.6, "scope": scope, "saliency": "magnitude"}
            ),
            context,
        )
        for scope in ("sensitivity", "layer", "global")
    }
    assert all(
        each.achieved["sparsity"] == pytest.approx(0.6, abs=1e-3) for each in applied.values()
    )
    # The quiet one goes but for the least that was tried, the loud one loses the rest.
    assert applied["sensitivity"].achieved["layers"] == pytest.approx(
        {"loud": 0.21, "quiet": 0.99}, abs=2e-3
    )
    table = applied["sensitivity"].achieved["sensitivity"]
    assert set(table) == {"loud", "quiet"}
    assert list(table["loud"]) == ["0.99", "0.98", "0.95", "0.9", "0.8", "0.6"]
    ((x,), targets) = next(context.calibration.batches(64))
    with torch.no_grad():
        lost = {scope: context.loss(each.model(x), targets) for scope, each in applied.items()}
    assert lost["sensitivity"] < min(lost["layer"], lost["global"])
