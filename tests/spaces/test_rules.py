"""Layers with a rule: what they compute, what is exported, what training may move."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from parefront.errors import StageError
from parefront.spaces.distillation.recovery import RecoveryConfig, RecoveryTraining
from parefront.spaces.packing.stage import Packing, PackingChoices, PackingConfig
from parefront.spaces.pruning.gradual import GradualMask
from parefront.spaces.pruning.mask import Mask
from parefront.spaces.pruning.weights import (
    WeightPruning,
    WeightPruningChoices,
    WeightPruningConfig,
)
from parefront.spaces.quantization.level_rule import Rounded, best_steps
from parefront.spaces.quantization.level_sets import LEVEL_SETS, additive, power_of_two, uniform
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
from parefront.spaces.sharing.kmeans import kmeans
from parefront.spaces.stage import BatchSource, Inputs, TargetTraits
from tests.exporting import assert_ships, export, run
from tests.zoo import make

TRAITS = TargetTraits(format="onnx", channel_multiple=8)


class Blind:
    """Examples whose first four values are zero."""

    def __init__(self, data: BatchSource) -> None:
        self._data = data

    def __len__(self) -> int:
        return len(self._data)

    def batches(
        self, batch_size: int, *, seed: int | None = None
    ) -> Iterator[tuple[Inputs, torch.Tensor]]:
        for (x,), targets in self._data.batches(batch_size, seed=seed):
            y = x.clone().flatten(1)
            y[:, :4] = 0.0
            yield (y.reshape(x.shape),), targets


LAYERS = {
    "linear": (nn.Linear(32, 24), torch.randn(4, 32)),
    "conv": (nn.Conv2d(8, 16, 3, stride=2, groups=2), torch.randn(2, 8, 9, 9)),
    "conv1d": (nn.Conv1d(8, 16, 5), torch.randn(2, 8, 20)),
    "transposed": (nn.ConvTranspose2d(8, 16, 3), torch.randn(2, 8, 5, 5)),
    "embedding": (nn.Embedding(64, 16), torch.randint(64, (3, 7))),
}
every_layer = pytest.mark.parametrize("kind", LAYERS)


def weight(module: nn.Module) -> torch.Tensor:
    return module.get_parameter("weight")


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
            nn.Sequential(*[nn.Sequential(layer, nn.ReLU())] * 2),
        ):
            layers, left = weights_of(model)
            assert layers == []
            assert len(left) == 2
            assert all(reason.startswith("its weight is also that of") for reason in left.values())

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
        assert left == {
            "0": "its weight is also that of 2",
            "2": "its weight is also that of 0",
        }

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


class TestMask:
    @settings(deadline=None, max_examples=30)
    @given(st.floats(0.05, 0.95), st.sampled_from(["global", "layer"]))
    def test_the_smallest_weights_go(self, sparsity: float, scope: str) -> None:
        model, context = make("mlp")
        config = WeightPruningConfig.model_validate(
            {
                "pattern": "free",
                "sparsity": sparsity,
                "scope": scope,
                "saliency": "magnitude",
            }
        )
        stage = WeightPruning(WeightPruningChoices(), TRAITS)
        result = baked(stage.apply(model, config, context).model)
        names = [each.name for each in weights_of(model)[0]]
        before = [weight(model.get_submodule(name)).detach().abs().flatten() for name in names]
        after = [weight(result.get_submodule(name)).detach().abs().flatten() for name in names]
        if scope == "global":
            before, after = [torch.cat(before)], [torch.cat(after)]
        for old, new in zip(before, after, strict=True):
            zeros = int((new == 0).sum())
            assert zeros == min(round(sparsity * len(old)), len(old) - 1)
            # A second implementation: a threshold in the sorted weights.
            assert old[new == 0].max() <= old[new != 0].min()
            assert torch.equal(new[new != 0], old[new != 0])

    @pytest.mark.parametrize(("pattern", "kept", "of"), [("2:4", 2, 4), ("4:8", 4, 8)])
    @pytest.mark.parametrize("name", ["cnn", "mlp"])
    def test_patterns_hold_in_every_group(
        self, name: str, pattern: str, kept: int, of: int
    ) -> None:
        model, context = make(name)
        config = WeightPruningConfig.model_validate({"pattern": pattern, "saliency": "magnitude"})
        stage = WeightPruning(WeightPruningChoices(), TRAITS)
        result = baked(stage.apply(model, config, context).model)
        for each in weights_of(result)[0]:
            rows = each.weight.flatten(1)
            whole = rows[:, : rows.shape[1] // of * of].reshape(len(rows), -1, of)
            assert ((whole != 0).sum(dim=2) <= kept).all()
            old = weight(model.get_submodule(each.name)).detach().flatten(1)
            old = old[:, : whole.shape[1] * of].reshape(whole.shape).abs()
            largest = old.sort(dim=2, descending=True).values[:, :, :kept].sum(dim=2)
            torch.testing.assert_close(whole.abs().sum(dim=2), largest)

    def test_the_gradient_finds_what_the_loss_does_not_need(self) -> None:
        model, context = make("mlp")
        first = weights_of(model)[0][0]
        with torch.no_grad():  # the loss does not see an input that is always zero
            weight(model.get_submodule(first.name))[:, :4] = 100.0
        context = replace(context, calibration=Blind(context.calibration))
        config = WeightPruningConfig(
            pattern="free", sparsity=0.1, scope="layer", saliency="gradient"
        )
        stage = WeightPruning(WeightPruningChoices(), TRAITS)
        result = baked(stage.apply(model, config, context).model)
        pruned = weight(result.get_submodule(first.name)) == 0
        assert pruned[:, :4].float().mean() > 0.95

    @pytest.mark.parametrize("schedule", ["linear", "cubic"])
    def test_a_mask_closes_with_the_training(self, schedule: Any) -> None:
        keep = torch.arange(100) < 20
        held = torch.randn(100)
        mask = GradualMask(keep, schedule)
        assert torch.equal(mask(held) != 0, keep)  # as it is looked at before training
        zeros = []
        for step in range(11):
            mask.advance(step / 10)
            made = mask(held)
            zeros.append(int((made == 0).sum()))
            assert made[made != 0].abs().min() >= held[made == 0].abs().max() if step else True
        risen = [min(step / 10 / 0.7, 1.0) for step in range(11)]
        by_hand = risen if schedule == "linear" else [1 - (1 - t) ** 3 for t in risen]
        assert zeros == [round(80 * t) for t in by_hand]
        assert zeros[0] == 0
        assert zeros[7:] == [80] * 4

    def test_a_model_that_was_pruned_step_by_step_is_as_sparse(self) -> None:
        model, context = make("cnn")
        stage = WeightPruning(WeightPruningChoices(), TRAITS)
        sizes = {}
        for schedule in ("once", "cubic"):
            config = WeightPruningConfig.model_validate(
                {"pattern": "free", "sparsity": 0.9, "scope": "global", "saliency": "magnitude"}
                | {"schedule": schedule}
            )
            pruned = stage.apply(model, config, context).model
            recovery = RecoveryConfig(epochs=2, learning_rate=0.01, batch_size=16)
            recover = RecoveryTraining(RecoveryTraining.choices_type(), TRAITS)
            trained = recover.apply(pruned, recovery, context).model
            again = pickle.loads(pickle.dumps(trained))  # noqa: S301 - our own
            sizes[schedule] = [
                [int((each.weight == 0).sum()) for each in weights_of(baked(of))[0]]
                for of in (pruned, trained, again)
            ]
        assert sizes["once"] == sizes["cubic"]
        assert sizes["cubic"][0] == sizes["cubic"][1] == sizes["cubic"][2]

    def test_training_leaves_zeros_at_zero(self) -> None:
        model, context = make("cnn")
        config = WeightPruningConfig(
            pattern="free", sparsity=0.7, scope="global", saliency="magnitude"
        )
        pruned = WeightPruning(WeightPruningChoices(), TRAITS).apply(model, config, context).model
        recovery = RecoveryConfig(
            epochs=2, learning_rate=0.01, soft_weight=0.0, temperature=None, batch_size=16
        )
        stage = RecoveryTraining(RecoveryTraining.choices_type(), TRAITS)
        trained = baked(stage.apply(pruned, recovery, context).model)
        before = baked(pruned)
        moved = 0
        for each in weights_of(before)[0]:
            after = weight(trained.get_submodule(each.name)).detach()
            assert torch.equal(after == 0, each.weight == 0)
            moved += int((after != each.weight).sum())
        assert moved > 0

    @pytest.mark.parametrize(
        ("changes", "message"),
        [
            ({"pattern": "2:4"}, "none for others"),
            ({"schedule": "cubic", "saliency": "random"}, "expected the saliency 'magnitude'"),
            ({"sparsity": None}, "expected a sparsity"),
            ({"sparsity": 1.0}, "less than 1"),
        ],
    )
    def test_wrong_configs_are_refused(self, changes: dict[str, object], message: str) -> None:
        good = {
            "pattern": "free",
            "sparsity": 0.5,
            "scope": "global",
            "saliency": "magnitude",
        }
        with pytest.raises(ValueError, match=message):
            WeightPruningConfig.model_validate(good | changes)


class TestKMeans:
    @settings(deadline=None, max_examples=60)
    @given(st.lists(st.floats(-9, 9, width=32), min_size=1, max_size=40), st.integers(1, 6))
    def test_no_step_of_lloyd_makes_it_better(self, numbers: list[float], count: int) -> None:
        values = np.array(numbers, dtype=np.float32)
        centres = kmeans(values, count)
        assert 1 <= len(centres) <= count
        assert (np.diff(centres) > 0).all()
        nearest = np.abs(values[:, None] - centres).argmin(axis=1)
        error = np.square(values - centres[nearest]).sum()
        means = [values[nearest == k].mean() for k in range(len(centres)) if (nearest == k).any()]
        again = np.array(means)
        best = np.square(values[:, None] - again).min(axis=1).sum()
        assert best >= error * (1 - 1e-5) - 1e-9

    def test_groups_that_are_apart_are_found(self) -> None:
        values = np.concatenate([centre + np.array([-0.1, 0, 0.1]) for centre in (-4, 0, 5)])
        np.testing.assert_allclose(kmeans(values, 3), [-4, 0, 5])


class TestClusters:
    def test_a_shared_value_moves_by_the_sum_of_gradients(self) -> None:
        held = torch.tensor([[1.0, 1.1, 0.0], [-2.0, -2.1, 1.2]])
        rule = Clusters(held, 3)
        made = rule(held)
        torch.testing.assert_close(made, torch.tensor([[1.1, 1.1, 0.0], [-2.05, -2.05, 1.1]]))
        slopes = torch.tensor([[1.0, 2.0, 50.0], [4.0, 8.0, 16.0]])
        (made * slopes).sum().backward()
        assert rule.centres.grad is not None
        assert rule.centres.grad.tolist() == [12.0, 19.0]

    def test_a_layer_has_no_more_values_than_its_bits(self) -> None:
        model, context = make("cnn")
        stage = WeightClustering(ClusterChoices(), TRAITS)
        applied = stage.apply(model, ClusterConfig(bits=3), context)
        for each in weights_of(baked(applied.model))[0]:
            assert len(torch.unique(each.weight)) == applied.achieved["values"][each.name] == 8


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
