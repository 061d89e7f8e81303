"""Adaptive rounding: the best choice of up and down, by trying them all."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from itertools import product

import numpy as np
import pytest
import torch
from torch import nn

from parefront.spaces.pruning.mask import Mask
from parefront.spaces.quantization import adaptive_rounding
from parefront.spaces.quantization.adaptive_rounding import Undecided, adapt
from parefront.spaces.quantization.level_rule import Rounded
from parefront.spaces.quantization.level_sets import LEVEL_SETS, LevelSet, uniform
from parefront.spaces.quantization.levels import RoundingChoices, RoundingConfig, WeightRounding
from parefront.spaces.quantization.rounding_descent import Moments, solvable
from parefront.spaces.ruled import Ruled, baked, weights_of, with_rule
from parefront.spaces.stage import Applied, StageContext, TargetTraits
from tests.exporting import export, run
from tests.zoo import Memory, make, weight

ADAPTIVE = RoundingConfig(levels="uniform", bits=3, ends=True, rounding="adaptive")
NEAREST = RoundingConfig(levels="uniform", bits=3, ends=True)


@pytest.fixture(autouse=True)
def seeded(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The same numbers in every run, and few steps."""
    monkeypatch.setattr(adaptive_rounding, "STEPS", 30)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        yield


def rounded(model: nn.Module, config: RoundingConfig, context: StageContext) -> Applied[nn.Module]:
    stage = WeightRounding(RoundingChoices(), TargetTraits(format="onnx", channel_multiple=8))
    return stage.apply(model, config, context)


def over(inputs: torch.Tensor) -> StageContext:
    _, context = make("mlp")
    source = Memory((inputs,), torch.zeros(len(inputs)))
    return replace(context, example=(inputs[:2],), train=source, calibration=source)


def lost(inputs: torch.Tensor, moved: torch.Tensor) -> torch.Tensor:
    """The squared error of each output channel."""
    return (inputs @ moved.T).square().sum(dim=0).detach()


def test_tiny_layers_get_the_best_of_all_choices(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("parefront.spaces.ruled.LEAST", 1)
    best = better = 0
    for seed in range(20):
        torch.manual_seed(seed)
        layer = nn.Linear(6, 3)
        inputs = torch.randn(48, 6) @ torch.randn(6, 6)
        held = layer.weight.detach()
        rule = Rounded(held, uniform(3), 0)
        copied = nn.Linear(6, 3)
        copied.load_state_dict(layer.state_dict())
        model, errors, left = adapt(layer, copied, weights_of(copied)[0], {"": rule}, over(inputs))
        made = weight(baked(model))
        assert not left

        step = rule.step.detach()
        low = (held / step).floor().clamp(-3, 2)
        choices = [torch.tensor(each) for each in product((0.0, 1.0), repeat=6)]
        # Of each row by itself, which no other has a part in.
        every = torch.stack([lost(inputs, (low + up) * step - held) for up in choices])
        nearest = float(lost(inputs, rule(held).detach() - held).sum())
        rows = lost(inputs, made - held)
        found = float(rows.sum())
        size = float(layer(inputs).detach().square().sum())
        assert found <= nearest * 1.0001
        assert errors["the model"]["nearest"] == pytest.approx(nearest / size, rel=1e-3)
        assert errors["the model"]["adaptive"] == pytest.approx(found / size, rel=1e-3)
        best += int((rows <= every.amin(dim=0) * 1.001).sum())
        better += found < nearest * 0.999
    assert best >= 56  # of the 60 rows of all layers
    assert better >= 15


def test_learning_alone_beats_the_nearest_levels(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(adaptive_rounding, "STEPS", 200)
    monkeypatch.setattr(adaptive_rounding, "solvable", lambda layer: False)
    layer = nn.Linear(32, 16)
    context = over(torch.randn(64, 32) @ torch.randn(32, 32))
    errors = rounded(layer, ADAPTIVE, context).achieved["output_errors"]["the model"]
    assert errors["adaptive"] < 0.9 * errors["nearest"]


@pytest.mark.parametrize("name", ["uniform", "power_of_two", "additive", "ternary", "binary"])
def test_weights_go_to_a_level_beside_them(name: LevelSet) -> None:
    layer = nn.Linear(32, 16)
    context = over(torch.randn(64, 32) @ torch.randn(32, 32))
    bits = None if name in ("ternary", "binary") else 3
    config = RoundingConfig(levels=name, bits=bits, ends=True, rounding="adaptive")
    made = weight(baked(rounded(layer, config, context).model)).detach()
    levels = torch.tensor(LEVEL_SETS[name](3), dtype=torch.float32)
    rule = Rounded(layer.weight, LEVEL_SETS[name](3), 0)
    scaled, step = (layer.weight / rule.step).detach(), rule.step.detach()
    places = (made / step).unsqueeze(-1).sub(levels).abs().argmin(dim=-1)
    torch.testing.assert_close(levels[places] * step, made)
    above = (levels < scaled.unsqueeze(-1)).sum(dim=-1).clamp(1, len(levels) - 1)
    assert ((places == above) | (places == above - 1)).all()


def test_the_sigmoid_begins_where_the_weights_are() -> None:
    held = torch.randn(8, 32)
    rule = Rounded(held, uniform(4), 0)
    undecided = Undecided(held, rule)
    inside = held.abs() <= 7 * rule.step
    torch.testing.assert_close(undecided(held)[inside], held[inside], rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(undecided.decided(), rule(held).detach())
    assert Undecided(rule(held).detach(), rule).indecision(2.0).item() < 1e-5


@pytest.mark.parametrize(
    ("layer", "shape"),
    [
        (nn.Linear(5, 3), (7, 5)),
        (nn.Linear(5, 3, bias=False), (7, 4, 5)),
        (nn.Conv2d(3, 4, (3, 2), stride=(2, 1), padding=(1, 2), dilation=(1, 2)), (2, 3, 9, 8)),
        (nn.Conv1d(3, 4, 5, stride=2, padding=3, dilation=2), (2, 3, 17)),
    ],
    ids=str,
)
def test_second_moments_know_the_error(layer: nn.Module, shape: tuple[int, ...]) -> None:
    assert solvable(layer)
    x = torch.randn(shape)
    wanted = layer(x).detach() + torch.randn_like(layer(x))
    moments = Moments(layer, [(x, wanted)])

    def directly(rows: torch.Tensor) -> torch.Tensor:
        made = torch.func.functional_call(layer, {"weight": rows.reshape(layer.weight.shape)}, x)
        axis = -1 if isinstance(layer, nn.Linear) else 1
        off: torch.Tensor = (made - wanted).square().movedim(axis, 0).flatten(1).sum(dim=1)
        return off.detach()

    one, two = (torch.randn_like(layer.weight).flatten(1) for _ in range(2))
    found = moments.error(one.double()) - moments.error(two.double())
    torch.testing.assert_close(found.float(), directly(one) - directly(two), rtol=1e-3, atol=1e-2)


def test_no_flip_is_left_that_would_gain() -> None:
    layer = nn.Linear(12, 4)
    x = torch.randn(64, 12)
    moments = Moments(layer, [(x, layer(x).detach())])
    low, high = layer.weight.detach().double() - 0.1, layer.weight.detach().double() + 0.2
    made = moments.descend(low, high, lambda: None)
    for place in range(12):
        other = made.clone()
        other[:, place] = low[:, place] + high[:, place] - made[:, place]
        assert (moments.error(other) >= moments.error(made) - 1e-6).all()
    assert (moments.error(made) < moments.error(low)).all()


def test_convolutions_of_other_kinds_are_learnt_without_moments() -> None:
    for layer in (
        nn.Conv2d(4, 4, 3, groups=2),
        nn.Conv2d(4, 4, 3, padding="same"),
        nn.Conv2d(4, 4, 3, padding=1, padding_mode="circular"),
        nn.ConvTranspose2d(4, 4, 3),
    ):
        assert not solvable(layer)


@pytest.mark.parametrize("kind", ["transformer", "lstm", "embedding"])
def test_layers_are_not_worse_and_mostly_better_in_every_kind_of_model(kind: str) -> None:
    model, context = make(kind)
    achieved = rounded(model, ADAPTIVE, context).achieved
    errors = achieved["output_errors"].values()
    assert achieved["rounded_to_nearest"] == {}
    assert all(each["adaptive"] <= each["nearest"] for each in errors)
    assert any(each["adaptive"] < 0.9 * each["nearest"] for each in errors)


def test_the_file_answers_nearer_to_the_model_without_training() -> None:
    model = nn.Sequential(
        nn.Conv2d(1, 16, 3), nn.ReLU(), nn.Conv2d(16, 16, 3), nn.ReLU(), nn.Flatten(),
        nn.Linear(16 * 64, 10),
    )  # fmt: skip
    images = torch.randn(64, 1, 12, 12).cumsum(dim=2).cumsum(dim=3) / 8
    context = over(images)
    with torch.no_grad():
        expected = model(images).numpy()
    off = {}
    for config in (NEAREST, ADAPTIVE):
        file = export(rounded(model, config, context).model, context)
        (found,) = run(file, context, (images,))
        off[config.rounding] = float(np.square(np.asarray(found) - expected).mean())
    assert off["adaptive"] < 0.3 * off["nearest"]


def test_what_was_pruned_stays_zero_and_is_kept_behind_its_mask() -> None:
    layer = nn.Linear(32, 16)
    keep = torch.rand(16, 32) > 0.5
    model = with_rule(nn.Sequential(layer), "0", Mask(keep))
    context = over(torch.randn(64, 32) @ torch.randn(32, 32))
    made = rounded(model, ADAPTIVE, context).model
    ruled = made.get_submodule("0")
    assert isinstance(ruled, Ruled)
    assert (ruled.made("weight")[~keep] == 0).all()
    assert torch.equal(weight(ruled.layer)[~keep], weight(layer)[~keep])


class Aside(nn.Module):
    """A layer whose weight is read without calling it, beside one that is called."""

    def __init__(self) -> None:
        super().__init__()
        self.called = nn.Linear(32, 16)
        self.read = nn.Linear(32, 16)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.called(x) + x @ self.read.weight.T  # type: ignore[no-any-return]


def test_layers_that_are_not_called_keep_their_nearest_levels_and_it_is_said() -> None:
    context = over(torch.randn(64, 32))
    achieved = rounded(Aside(), ADAPTIVE, context).achieved
    assert set(achieved["output_errors"]) == {"called"}
    assert achieved["rounded_to_nearest"] == {"read": "its layer is not called by itself"}
    empty = replace(context, calibration=Memory((torch.zeros(0, 32),), torch.zeros(0)))
    achieved = rounded(Aside(), ADAPTIVE, empty).achieved
    assert set(achieved["rounded_to_nearest"].values()) == {"there are no examples"}
