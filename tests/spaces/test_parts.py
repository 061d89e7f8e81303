"""Which parts of a model can be skipped, and that what is left computes as it should."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from parefront.errors import StageError
from parefront.spaces.pruning.parts import Skip
from tests.exporting import assert_ships
from tests.spaces.odd_models import Broken
from tests.spaces.skippable import (
    STAGE,
    block,
    config,
    context_for,
    names,
    random,
    seeded,
)
from tests.zoo import Residual, make


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
