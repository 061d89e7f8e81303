"""Single weights set to zero: which, and that they stay so."""

from __future__ import annotations

import pickle
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from parefront.spaces.distillation.recovery import RecoveryConfig, RecoveryTraining
from parefront.spaces.pruning.gradual import GradualMask, largest
from parefront.spaces.pruning.weights import (
    WeightPruning,
    WeightPruningChoices,
    WeightPruningConfig,
)
from parefront.spaces.ruled import baked, weights_of
from parefront.spaces.stage import BatchSource, Inputs, TargetTraits
from tests.zoo import make, weight

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
            mask.progress(step / 10, held)
            made = mask(held)
            zeros.append(int((made == 0).sum()))
            assert made[made != 0].abs().min() >= held[made == 0].abs().max() if step else True
        risen = [min(step / 10 / 0.7, 1.0) for step in range(11)]
        by_hand = risen if schedule == "linear" else [1 - (1 - t) ** 3 for t in risen]
        assert zeros == [round(80 * t) for t in by_hand]
        assert zeros[0] == 0
        assert zeros[7:] == [80] * 4

    @given(st.lists(st.integers(-3, 3), min_size=1, max_size=40), st.data())
    def test_the_largest_are_those_that_a_stable_sort_puts_first(
        self, values: list[int], data: st.DataObject
    ) -> None:
        count = data.draw(st.integers(0, len(values)))
        order = sorted(range(len(values)), key=lambda place: -values[place])
        flags = largest(torch.tensor(values, dtype=torch.float32), count)
        assert flags.nonzero().flatten().tolist() == sorted(order[:count])

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
            ({"schedule": "rounds", "saliency": "gradient"}, "expected the saliency 'magnitude'"),
            ({"schedule": "once", "saliency": "movement"}, "expected the schedule 'cubic' for"),
            ({"schedule": "rounds"}, "expected rounds and rewind for"),
            ({"rounds": 3, "rewind": True}, "neither for others, got 3 and True for 'once'"),
            ({"schedule": "rounds", "rounds": 1, "rewind": True}, "greater than or equal to 2"),
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

    @pytest.mark.parametrize(
        ("choices", "message"),
        [
            ({"saliency": "movement", "pattern": "2:4"}, "expected 'free' among the choices"),
            ({"saliency": ["magnitude", "movement"], "schedule": "once"}, "expected 'cubic' among"),
            ({"rounds": [1, 3]}, r"expected at least 2 rounds, got \[1, 3\]"),
        ],
    )
    def test_choices_that_cannot_go_together_are_refused(
        self, choices: dict[str, object], message: str
    ) -> None:
        with pytest.raises(ValueError, match=message):
            WeightPruningChoices.model_validate(choices)

    def test_what_is_tried_first_stays_as_it_was_beside_further_choices(self) -> None:
        usual = WeightPruning(WeightPruningChoices(), TRAITS).anchors()
        choices = WeightPruningChoices.model_validate(
            {
                "saliency": ["movement", "magnitude"],
                "schedule": ["rounds", "once", "cubic"],
                "scope": ["sensitivity", "global"],
            }
        )
        anchors = WeightPruning(choices, TRAITS).anchors()
        assert len(usual) == 1
        assert anchors[0] == usual[0]
        assert [each.saliency for each in anchors].count("movement") == 1
        assert [each.rewind for each in anchors if each.schedule == "rounds"] == [False, True]
        assert [each.scope for each in anchors].count("sensitivity") == 1
