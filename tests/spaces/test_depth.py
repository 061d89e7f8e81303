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

from parefront.errors import StageError
from parefront.spaces.catalog import STAGES
from parefront.spaces.distillation.recovery import RecoveryTraining
from parefront.spaces.inspection import count_parameters
from parefront.spaces.lowrank.svd import Factorization
from parefront.spaces.pruning.channels import ChannelPruning
from parefront.spaces.pruning.depth import (
    DepthPruning,
    DepthPruningChoices,
    DepthPruningConfig,
    number_to_remove,
)
from parefront.spaces.pruning.parts import Skip, dense, find_parts
from parefront.spaces.stage import Stage, StageContext, TargetTraits
from tests.exporting import assert_ships
from tests.spaces.odd_models import Broken
from tests.zoo import Memory, Residual, make

TARGET = TargetTraits(format="onnx", channel_multiple=8)
STAGE = DepthPruning(DepthPruningChoices(), TARGET)


def config(share: float = 0.5, importance: str = "loss") -> DepthPruningConfig:
    return DepthPruningConfig.model_validate({"share": share, "importance": importance})


def random(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def context_for(*inputs: torch.Tensor, classes: int = 3) -> StageContext:
    """A context with these examples, and random targets of some classes."""
    targets = torch.randint(
        0, classes, (len(inputs[0]),), generator=torch.Generator().manual_seed(1)
    )
    source = Memory(inputs, targets)
    return replace(
        make("mlp")[1], example=tuple(x[:2] for x in inputs), train=source, calibration=source
    )


def seeded(build: type[nn.Module], *args: Any) -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return build(*args).eval()


def block(width: int = 16) -> nn.Sequential:
    return nn.Sequential(nn.Linear(width, width), nn.ReLU())


class Hidden(nn.Module):
    """Blocks of Linear and ReLU between equal widths."""

    def __init__(self, depth: int = 4) -> None:
        super().__init__()
        self.stem = nn.Linear(8, 16)
        self.blocks = nn.Sequential(*(block() for _ in range(depth)))
        self.head = nn.Linear(16, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.blocks(F.relu(self.stem(x))))  # type: ignore[no-any-return]


def hidden(depth: int = 4, identity: int | None = None) -> tuple[Hidden, StageContext]:
    """The model, with one block that changes nothing, as its inputs are not below 0."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = Hidden(depth).eval()
    if identity is not None:
        with torch.no_grad():
            model.get_parameter(f"blocks.{identity}.0.weight").copy_(torch.eye(16))
            model.get_parameter(f"blocks.{identity}.0.bias").zero_()
    return model, context_for(random(150, 8))


def names(model: nn.Module, context: StageContext) -> list[str]:
    return [part.name for part in find_parts(dense(model), context.example, context.tick)[0]]


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


class Masked(nn.Module):
    """A transformer with padding, which PyTorch computes with nested tensors where it can."""

    def __init__(self, layers: int = 3, nested: bool = True) -> None:
        super().__init__()
        self.embed = nn.Embedding(20, 16)
        layer = nn.TransformerEncoderLayer(16, 2, 32, dropout=0.0, batch_first=True)
        self.encoder = nn.TransformerEncoder(layer, layers, enable_nested_tensor=nested)
        self.head = nn.Linear(16, 3)

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        padding = tokens == 0
        x = self.encoder(self.embed(tokens), src_key_padding_mask=padding)
        x = x.masked_fill(padding[..., None], 0.0)
        return self.head(x.mean(dim=1))  # type: ignore[no-any-return]


def tokens() -> torch.Tensor:
    values = torch.randint(1, 20, (40, 7), generator=torch.Generator().manual_seed(0))
    values[:, 5:] = 0
    return values


class TestChangesInPlace:
    """What follows or is within a part may change in place what it is given."""

    def test_the_models_input_stays(self) -> None:
        model = nn.Sequential(
            nn.Linear(16, 16), nn.ReLU(inplace=True), nn.Linear(16, 8), nn.Linear(8, 3)
        ).eval()
        x = random(30, 16)
        context = context_for(x)
        before = x.clone()
        for importance in ("loss", "similarity"):
            applied = STAGE.apply(model, config(1.0, importance), context)
            assert applied.achieved["removed"] == ["0"]
            expected = model[3](model[2](F.relu(x)))
            torch.testing.assert_close(applied.model(x), expected)
            assert torch.equal(x, before)
            assert_ships(applied.model, context)

    def test_similarity_sees_what_was_given(self) -> None:
        inner = nn.Sequential(nn.ReLU(inplace=True), nn.Linear(16, 16))
        outside = nn.Sequential(nn.ReLU(), copy.deepcopy(inner[1]))
        context = context_for(random(30, 8))
        head, stem = nn.Linear(16, 3), nn.Linear(8, 16)
        scores = [
            STAGE.apply(
                nn.Sequential(stem, each, head).eval(), config(1.0, "similarity"), context
            ).achieved["scores"]["1"]
            for each in (inner, outside)
        ]
        assert scores[0] == scores[1] > 0


class TestTransformers:
    @pytest.mark.filterwarnings("ignore:The PyTorch API of nested tensors")
    @pytest.mark.parametrize("share", [0.3, 0.7, 1.0])
    @pytest.mark.parametrize("frozen", [False, True])
    @pytest.mark.parametrize("nested", [False, True])
    def test_masks_and_nested_tensors(self, nested: bool, frozen: bool, share: float) -> None:
        model = seeded(Masked, 3, nested).requires_grad_(not frozen)
        context = context_for(tokens())
        assert names(model, context) == [f"encoder.layers.{at}" for at in range(3)]
        for importance in ("loss", "similarity"):
            applied = STAGE.apply(model, config(share, importance), context)
            shorter = copy.deepcopy(model)
            encoder = shorter.get_submodule("encoder")
            left = [model.get_submodule(name) for name in applied.achieved["kept"]]
            if left:
                encoder.layers = nn.ModuleList(left)
            else:
                shorter.encoder = Skip(encoder)
            x = tokens()
            with torch.no_grad():
                torch.testing.assert_close(applied.model(x), shorter(x), rtol=1e-5, atol=1e-6)

    def test_they_ship_and_train(self) -> None:
        model, context = seeded(Masked, 3, False), context_for(tokens())
        result = STAGE.apply(model, config(1.0), context).model
        assert_ships(result, context)
        F.cross_entropy(result.train()(tokens()), torch.zeros(40, dtype=torch.long)).backward()  # type: ignore[no-untyped-call]
        assert result.get_parameter("embed.weight").grad is not None

    def test_decoders(self) -> None:
        class Decoder(nn.Module):
            def __init__(self) -> None:
                super().__init__()
                layer = nn.TransformerDecoderLayer(16, 2, 32, dropout=0.0, batch_first=True)
                self.decoder, self.head = nn.TransformerDecoder(layer, 2), nn.Linear(16, 3)

            def forward(self, x: torch.Tensor, memory: torch.Tensor) -> torch.Tensor:
                return self.head(self.decoder(x, memory)[:, 0])  # type: ignore[no-any-return]

        model = seeded(Decoder)
        context = context_for(random(20, 5, 16), random(20, 7, 16, seed=1))
        assert names(model, context) == ["decoder.layers.0", "decoder.layers.1"]
        result = STAGE.apply(model, config(1.0), context).model
        x, memory = context.example
        assert torch.equal(result(x, memory), result.get_submodule("head")(x[:, 0]))


class Listed(nn.Module):
    """Blocks in an `nn.ModuleList`, that are called by a function of the outer model."""

    def __init__(self, blocks: list[nn.Module]) -> None:
        super().__init__()
        self.stem, self.blocks, self.head = (
            nn.Linear(8, 16),
            nn.ModuleList(blocks),
            nn.Linear(16, 3),
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.stem(x)
        for each in self.blocks:
            x = each(x)
        return self.head(x)  # type: ignore[no-any-return]


class Shortcut(nn.Sequential):
    """A row of layers with a shortcut around."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + super().forward(x)  # type: ignore[no-any-return, no-untyped-call]


class TestWhichParts:
    @pytest.mark.parametrize(
        ("kind", "found"),
        [
            ("resnet", ["blocks.0", "blocks.1"]),
            ("transformer", ["encoder.layers.0", "encoder.layers.1"]),
            ("mlp", ["layers.2"]),
        ],
    )
    def test_of_the_zoo(self, kind: str, found: list[str]) -> None:
        assert names(*make(kind)) == found

    @pytest.mark.parametrize("kind", ["cnn", "depthwise"])
    def test_none(self, kind: str) -> None:
        model, context = make(kind)
        reason = STAGE.nothing_to_do(model, context)
        assert reason == (
            "no part in an nn.Sequential or nn.ModuleList gives tensors of the shape it is given"
        )
        with pytest.raises(StageError, match="no part in an nn.Sequential"):
            STAGE.apply(model, config(), context)

    def test_rows_of_blocks_are_looked_into(self) -> None:
        model = nn.Sequential(
            nn.Conv2d(1, 16, 3, padding=1),
            nn.Sequential(Residual(16), nn.Sequential(Residual(16), nn.ReLU(), Residual(16))),
            nn.Conv2d(16, 8, 3, stride=2),
            nn.Sequential(Residual(8)),
            nn.Flatten(),
            nn.Linear(8 * 9, 3),
        ).eval()
        context = context_for(random(10, 1, 8, 8))
        assert names(model, context) == ["1.0", "1.1.0", "1.1.2", "3.0"]
        assert_ships(STAGE.apply(model, config(0.75), context).model, context)

    def test_blocks_are_not(self) -> None:
        inner = [nn.Linear(16, 32), nn.ReLU(), nn.Linear(32, 16)]
        body = nn.Sequential(*(nn.Linear(16, 16) for _ in range(3)))
        model = Listed([nn.Sequential(*inner), Shortcut(block(), block()), body, nn.LayerNorm(16)])
        assert names(model.eval(), context_for(random(10, 8))) == [
            f"blocks.{at}" for at in range(3)
        ]

    def test_small_parts_and_others_shapes_are_left(self) -> None:
        blocks = [nn.Linear(16, 15), nn.Linear(15, 15), nn.Linear(15, 16), nn.BatchNorm1d(16)]
        model = Listed([*blocks, nn.Dropout()]).eval()
        assert names(model, context_for(random(10, 8))) == []

    @pytest.mark.parametrize("importance", ["loss", "similarity"])
    def test_a_block_that_is_used_twice_goes_as_one(self, importance: str) -> None:
        twice = block()
        model = Listed([twice, block(), twice]).eval()
        context = context_for(random(100, 8))
        assert names(model, context) == ["blocks.0", "blocks.1"]
        achieved = STAGE.apply(model, config(1.0, importance), context)
        x = random(4, 8, seed=3)
        assert torch.equal(achieved.model(x), model.head(model.stem(x)))
        assert_ships(achieved.model, context)

    def test_a_block_that_fits_only_once_stays(self) -> None:
        class Growing(nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.convs = nn.ModuleList([nn.Conv2d(16, 16, 3, padding=1)])
                self.last = nn.Linear(16, 3)

            def forward(self, x: torch.Tensor) -> torch.Tensor:
                conv = self.convs[0]
                return self.last(conv(F.pad(conv(x)[:, :8], [0] * 4 + [0, 8])).mean((2, 3)))  # type: ignore[no-any-return]

        class Halving(nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.convs = nn.ModuleList([nn.Conv2d(16, 16, 3, padding=1, stride=2)])
                self.last = nn.Linear(16, 3)

            def forward(self, x: torch.Tensor) -> torch.Tensor:
                conv = self.convs[0]
                return self.last(conv(conv(conv(x))).mean((2, 3)))  # type: ignore[no-any-return]

        context = context_for(random(10, 16, 2, 2))
        assert names(seeded(Growing), context) == ["convs.0"]
        assert names(seeded(Halving), context) == []

    def test_a_part_whose_weight_is_looked_at_stays(self) -> None:
        class Looks(Listed):
            def forward(self, x: torch.Tensor) -> torch.Tensor:
                return super().forward(x) * self.blocks[0].weight.mean()  # type: ignore[operator]

        model = Looks([nn.Linear(16, 16), nn.Linear(16, 16)]).eval()
        context = context_for(random(10, 8))
        achieved = STAGE.apply(model, config(1.0), context).achieved
        assert achieved["removed"] == ["blocks.1"]
        assert achieved["left_alone"]["blocks.0"].startswith("it does not run: AttributeError")

    def test_a_part_that_is_called_all_the_same_stays(self) -> None:
        class Hiding(Listed):
            def __init__(self, blocks: list[nn.Module]) -> None:
                super().__init__(blocks)
                self.order = list(self.blocks)[:1]

            def forward(self, x: torch.Tensor) -> torch.Tensor:
                return self.head(self.blocks[1](self.order[0](self.stem(x))))  # type: ignore[no-any-return]

        model, context = Hiding([block(), block()]).eval(), context_for(random(10, 8))
        achieved = STAGE.apply(model, config(1.0), context).achieved
        assert achieved["removed"] == ["blocks.1"]
        assert achieved["left_alone"] == {
            "blocks.0": "it is also called from where it is not registered, such as a plain list"
        }

    def test_outputs_keep_their_shape(self) -> None:
        class Tells(Listed):
            def forward(self, x: torch.Tensor) -> Any:
                count = sum(isinstance(each, Skip) for each in self.blocks)
                return super().forward(x)[:, : 3 - (count > 1)]

        model = Tells([nn.Linear(16, 16), nn.Linear(16, 16)]).eval()
        context = context_for(random(10, 8), classes=2)
        with pytest.raises(
            StageError, match=r"without blocks.0, blocks.1: the outputs change .* a smaller share"
        ):
            STAGE.apply(model, config(1.0), context)

    def test_something_is_left_to_train(self) -> None:
        context = context_for(random(10, 16))
        one = nn.Sequential(nn.Linear(16, 16)).eval()
        reason = STAGE.nothing_to_do(one, context)
        assert reason == "no part can be skipped, such as 0: no parameter would be left"
        two = nn.Sequential(nn.Linear(16, 16), nn.Linear(16, 16)).eval()
        with pytest.raises(StageError, match="cannot do without 0, 1: no parameter would be left"):
            STAGE.apply(two, config(1.0), context)

    def test_a_model_that_does_not_run_is_said(self) -> None:
        context = context_for(random(10, 6))
        reason = STAGE.nothing_to_do(Broken(), context)
        assert reason == "the model does not run on its example: ZeroDivisionError: no luck"
        with pytest.raises(StageError, match="does not run on its example"):
            STAGE.apply(Broken(), config(), context)
