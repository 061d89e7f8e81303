"""Layers with a rule: what they compute, what is exported, what training may move."""

from __future__ import annotations

import copy
import pickle

import numpy as np
import pytest
import torch
from torch import nn

from parefront.spaces.distillation.recovery import RecoveryConfig, RecoveryTraining
from parefront.spaces.packing.stage import Packing, PackingChoices, PackingConfig
from parefront.spaces.pruning.mask import Mask
from parefront.spaces.pruning.weights import (
    WeightPruning,
    WeightPruningChoices,
    WeightPruningConfig,
)
from parefront.spaces.quantization.levels import (
    RoundingChoices,
    RoundingConfig,
    WeightRounding,
)
from parefront.spaces.ruled import Ruled, baked, weights_of, with_rule
from parefront.spaces.sharing.clusters import (
    ClusterChoices,
    ClusterConfig,
    Clusters,
    WeightClustering,
)
from parefront.spaces.stage import TargetTraits
from tests.exporting import assert_ships, export, run
from tests.zoo import make, weight

TRAITS = TargetTraits(format="onnx", channel_multiple=8)


LAYERS = {
    "linear": (nn.Linear(32, 24), torch.randn(4, 32)),
    "conv": (nn.Conv2d(8, 16, 3, stride=2, groups=2), torch.randn(2, 8, 9, 9)),
    "conv1d": (nn.Conv1d(8, 16, 5), torch.randn(2, 8, 20)),
    "transposed": (nn.ConvTranspose2d(8, 16, 3), torch.randn(2, 8, 5, 5)),
    "embedding": (nn.Embedding(64, 16), torch.randint(64, (3, 7))),
}
every_layer = pytest.mark.parametrize("kind", LAYERS)


class TestRuled:
    @every_layer
    def test_it_computes_with_what_the_rules_make(self, kind: str) -> None:
        layer, x = LAYERS[kind]
        keep = torch.rand(weight(layer).shape) < 0.5
        ruled = with_rule(copy.deepcopy(layer), "", Mask(keep))
        assert isinstance(ruled, Ruled)
        by_hand = copy.deepcopy(layer)
        with torch.no_grad():
            weight(by_hand).mul_(keep)
        torch.testing.assert_close(ruled(x), by_hand(x), rtol=0, atol=0)
        plain = baked(ruled)
        assert type(plain) is type(layer)
        torch.testing.assert_close(plain(x), by_hand(x), rtol=0, atol=0)

    def test_rules_follow_each_other_and_travel(self) -> None:
        model = nn.Sequential(nn.Linear(32, 32), nn.ReLU(), nn.Linear(32, 32))
        keep = torch.arange(1024).reshape(32, 32) % 4 == 0
        assert with_rule(model, "0", Mask(keep)) is model
        (first, _), _ = weights_of(model)
        assert (first.weight != 0).sum() == 256
        with_rule(model, "0", Clusters(first.weight, 4))
        again = pickle.loads(pickle.dumps(model))  # noqa: S301 - our own
        x = torch.randn(5, 32)
        assert torch.equal(again(x), model(x))
        values = torch.unique(weight(baked(again).get_submodule("0")))
        assert len(values) == 4
        assert 0.0 in values

    def test_a_model_without_rules_is_itself(self) -> None:
        model, _ = make("cnn")
        assert baked(model) is model

    def test_attention_asks_a_layer_for_its_weight(self) -> None:
        encoder = nn.TransformerEncoderLayer(32, 4, 64, batch_first=True).eval()
        x = torch.randn(2, 6, 32)
        before = encoder(x)
        layers, left = weights_of(encoder)
        names = ["self_attn.in_proj_weight", "self_attn.out_proj", "linear1", "linear2"]
        assert [each.name for each in layers] == names
        assert left == {}
        for each in layers:
            with_rule(encoder, each.name, Mask(torch.ones_like(each.weight, dtype=torch.bool)))
        with torch.no_grad():
            torch.testing.assert_close(encoder(x), before)
        torch.testing.assert_close(encoder.train(False)(x), before)
        assert [each.name for each in weights_of(encoder)[0]] == names
        with_rule(encoder, names[0], Mask(torch.zeros(96, 32, dtype=torch.bool)))
        with_rule(encoder, names[1], Mask(torch.zeros(32, 32, dtype=torch.bool)))
        plain = baked(encoder)
        assert not any(isinstance(module, Ruled) for module in plain.modules())
        assert plain.get_parameter("self_attn.in_proj_weight").count_nonzero() == 0
        assert plain.get_parameter("self_attn.out_proj.weight").count_nonzero() == 0
        torch.testing.assert_close(plain(x), encoder(x))

    def test_a_layer_that_is_used_twice_is_left_alone(self) -> None:
        layer = nn.Linear(32, 32)
        for model in (
            nn.Sequential(layer, nn.ReLU(), layer),
            nn.Sequential(nn.Sequential(layer), nn.Sequential(layer)),
        ):
            layers, left = weights_of(model)
            assert layers == []
            (reason,) = left.values()
            assert reason.endswith("and a rule would hold in one place only")

    def test_a_weight_that_two_layers_have_is_left_alone(self) -> None:
        first, second = nn.Linear(32, 32), nn.Linear(32, 32)
        second.weight = first.weight
        layers, left = weights_of(nn.Sequential(first, second))
        assert layers == []
        assert left == {
            "0": "its weight is also that of 1",
            "1": "its weight is also that of 0",
        }

    def test_a_block_that_is_used_twice_has_its_weights_once(self) -> None:
        layer = nn.Linear(32, 32)
        block = nn.Sequential(layer, nn.ReLU())
        model = nn.Sequential(block, block)
        layers, left = weights_of(model)
        assert [each.name for each in layers] == ["0.0"]
        assert left == {}
        with_rule(model, "0.0", Mask(torch.zeros(32, 32, dtype=torch.bool)))
        expected = layer.bias.relu().expand(3, 32)
        assert torch.equal(model(torch.randn(3, 32)), expected)
        assert torch.equal(baked(model)(torch.randn(3, 32)), expected)

    def test_what_has_no_weight_of_its_own_is_left_alone(self) -> None:
        with pytest.warns(FutureWarning, match="weight_norm"):
            normed = nn.utils.weight_norm(nn.Linear(32, 32))
        broken = nn.Linear(32, 32)
        with torch.no_grad():
            weight(broken)[0, 0] = torch.nan
        model = nn.Sequential(
            normed, broken, nn.Embedding(64, 32, sparse=True), nn.Bilinear(8, 8, 8)
        )
        layers, left = weights_of(model)
        assert layers == []
        assert left == {
            "0": "its weight is computed from others",
            "1": "its weight is not finite",
            "2": "its gradients are sparse",
            "3": "Bilinear holds weights in a way of its own",
        }

    def test_it_stands_in_for_its_layer(self) -> None:
        class Net(nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.embed = nn.Embedding(64, 16)
                self.up = nn.ConvTranspose1d(16, 32, 3, stride=2)

            def forward(self, tokens: torch.Tensor) -> torch.Tensor:
                x = self.embed(tokens) * self.embed.embedding_dim**0.5
                y: torch.Tensor = self.up(x.transpose(1, 2), output_size=[12])
                return y

        model, tokens = Net(), torch.randint(64, (2, 5))
        before = model(tokens)
        for each in weights_of(model)[0]:
            with_rule(model, each.name, Mask(torch.ones_like(each.weight, dtype=torch.bool)))
        assert torch.equal(model(tokens), before)
        with pytest.raises(AttributeError, match="no attribute 'embedding_size'"):
            _ = model.embed.embedding_size
        assert torch.equal(copy.deepcopy(model)(tokens), before)

    def test_what_is_frozen_stays_frozen(self) -> None:
        model, context = make("cnn")
        model.requires_grad_(False)
        for applied in (
            WeightClustering(ClusterChoices(), TRAITS).apply(model, ClusterConfig(bits=3), context),
            WeightRounding(RoundingChoices(), TRAITS).apply(
                model, RoundingConfig(levels="ternary", ends=True), context
            ),
        ):
            assert not any(p.requires_grad for p in applied.model.parameters())

    def test_shared_weights_are_left_alone(self) -> None:
        model = nn.Sequential(nn.Linear(32, 32), nn.Linear(32, 32), nn.Linear(32, 32))
        model[1].weight = model[0].weight
        layers, left = weights_of(model)
        assert [each.name for each in layers] == ["2"]
        assert left["0"] == "its weight is also that of 1"

    def test_a_layer_under_two_names_is_left_alone(self) -> None:
        layer = nn.Linear(32, 32)
        model = nn.Sequential(layer, nn.ReLU(), layer, nn.Linear(32, 32))
        layers, left = weights_of(model)
        assert [each.name for each in layers] == ["3"]
        assert left == {"0": "it is also 2, and a rule would hold in one place only"}

    def test_what_is_small_or_unknown_is_said(self) -> None:
        class Own(nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.table = nn.Parameter(torch.randn(32, 32))
                self.small, self.large = nn.Linear(32, 4), nn.Linear(32, 32)

        layers, left = weights_of(Own())
        assert [each.name for each in layers] == ["large"]
        assert left == {
            "": "Own holds weights in a way of its own",
            "small": "it has fewer than 256 weights",
        }


RECURRENT = {
    "lstm": nn.LSTM(16, 24, num_layers=2, bidirectional=True, batch_first=True),
    "projected": nn.LSTM(16, 24, proj_size=12, batch_first=True),
    "gru": nn.GRU(16, 24, batch_first=True),
    "rnn": nn.RNN(16, 24, batch_first=True),
    "lstm cell": nn.LSTMCell(16, 24),
    "gru cell": nn.GRUCell(16, 24),
    "attention": nn.MultiheadAttention(16, 2, batch_first=True, add_bias_kv=True),
    "attention of others": nn.MultiheadAttention(16, 2, kdim=20, vdim=24, batch_first=True),
}
SEVERAL = {
    "lstm": {
        f"weight_{of}_l{layer}{way}"
        for of in ("ih", "hh")
        for layer in (0, 1)
        for way in ("", "_reverse")
    },
    "projected": {"weight_ih_l0", "weight_hh_l0", "weight_hr_l0"},
    "gru": {"weight_ih_l0", "weight_hh_l0"},
    "rnn": {"weight_ih_l0", "weight_hh_l0"},
    "lstm cell": {"weight_ih", "weight_hh"},
    "gru cell": {"weight_ih", "weight_hh"},
    "attention": {"in_proj_weight", "out_proj"},
    "attention of others": {"q_proj_weight", "k_proj_weight", "v_proj_weight", "out_proj"},
}


def called(layer: nn.Module, kind: str) -> torch.Tensor:
    generator = torch.Generator().manual_seed(3)
    if kind.endswith("cell"):
        result = layer(torch.randn(3, 16, generator=generator))
    elif kind.startswith("attention"):
        sizes = (20, 24) if kind.endswith("others") else (16, 16)
        query, key, value = (torch.randn(3, 5, n, generator=generator) for n in (16, *sizes))
        result = layer(query, key, value, need_weights=False)
    else:
        result = layer(torch.randn(3, 5, 16, generator=generator))
    made: torch.Tensor = result[0] if isinstance(result, tuple) else result
    return made


@pytest.mark.filterwarnings("ignore:LSTM with projections is not supported with oneDNN")
class TestLayersOfSeveralWeights:
    @pytest.mark.parametrize("kind", RECURRENT)
    def test_they_compute_with_what_the_rules_make(self, kind: str) -> None:
        by_hand, ruled = (copy.deepcopy(RECURRENT[kind]) for _ in range(2))
        layers, left = weights_of(ruled)
        assert {each.name for each in layers} == SEVERAL[kind]
        assert left == {}
        for each in layers:
            keep = torch.rand(each.weight.shape) < 0.5
            ruled = with_rule(ruled, each.name, Mask(keep))
            name = "out_proj.weight" if each.name == "out_proj" else each.name
            with torch.no_grad():
                by_hand.get_parameter(name).mul_(keep)
        expected = called(by_hand, kind)
        torch.testing.assert_close(called(ruled, kind), expected)
        again = pickle.loads(pickle.dumps(copy.deepcopy(ruled)))  # noqa: S301 - our own
        torch.testing.assert_close(called(again, kind), expected)
        plain = baked(ruled)
        assert type(plain) is type(by_hand)
        torch.testing.assert_close(called(plain, kind), expected, rtol=0, atol=0)
        assert plain.state_dict().keys() == by_hand.state_dict().keys()
        # The layer's own weights are back in their places, and what is removed learns nothing.
        called(ruled, kind).square().sum().backward()  # type: ignore[no-untyped-call]
        for each in weights_of(ruled)[0]:
            assert each.held.grad is not None
            assert (each.held.grad[each.weight == 0] == 0).all()
            assert each.held.grad.count_nonzero() > 0 or each.name.startswith("weight_hh")

    def test_their_sizes_can_be_asked_for(self) -> None:
        ruled = with_rule(
            nn.LSTM(16, 24), "weight_ih_l0", Mask(torch.zeros(96, 16, dtype=torch.bool))
        )
        assert ruled.hidden_size == 24
        assert isinstance(ruled, Ruled)
        assert torch.equal(ruled.weight_ih_l0, torch.zeros(96, 16))
        with pytest.raises(AttributeError, match="nothing"):
            _ = ruled.nothing

    @pytest.mark.parametrize("name", ["lstm", "gru", "transformer"])
    def test_masks_and_levels_hold_after_training_and_in_the_file(self, name: str) -> None:
        model, context = make(name)
        sparse = WeightPruning(WeightPruningChoices(), TRAITS).apply(
            model,
            WeightPruningConfig(pattern="free", sparsity=0.5, scope="layer", saliency="gradient"),
            context,
        )
        rounded = WeightRounding(RoundingChoices(), TRAITS).apply(
            sparse.model, RoundingConfig(levels="ternary", ends=True), context
        )
        recovery = RecoveryConfig(
            epochs=1, learning_rate=0.01, soft_weight=0.0, temperature=None, batch_size=16
        )
        recover = RecoveryTraining(RecoveryTraining.choices_type(), TRAITS)
        trained = recover.apply(rounded.model, recovery, context).model
        plain = baked(trained)
        several = [each for each in weights_of(plain)[0] if each.parameter != "weight"]
        assert several
        started = {each.name: each.weight for each in weights_of(baked(rounded.model))[0]}
        for each in several:
            assert sparse.achieved["layers"][each.name] == pytest.approx(0.5, abs=0.01)
            assert (each.weight == 0).float().mean() >= 0.5
            assert not torch.equal(each.weight, started[each.name])
            for row in each.weight:
                assert len(torch.unique(row.abs())) <= 2
        assert_ships(trained, context)
        # In the file, the weights of all parts pack into two bits each, or fewer.
        file = export(trained, context)
        packing = Packing(PackingChoices(), TRAITS)
        packed = packing.apply(file, PackingConfig(), context)
        for before, after in zip(
            run(file, context, context.example),
            run(packed.model, context, context.example),
            strict=True,
        ):
            np.testing.assert_array_equal(before, after)
        large = [t for t in file.graph.initializer if t.data_type == 1 and np.prod(t.dims) >= 256]
        assert sum(packed.achieved["tensors"].values()) == len(large)
