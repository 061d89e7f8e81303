from __future__ import annotations

import copy
import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import optuna
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError
from torch import nn
from torch.nn import functional as F

from parefront.errors import StageError, TrainingError
from parefront.spaces.distillation.recovery import (
    RecoveryChoices,
    RecoveryConfig,
    RecoveryTraining,
)
from parefront.spaces.distillation.training import MAX_GRADIENT_NORM, rate_at, train
from parefront.spaces.quantization.onnx_int8 import OnnxInt8
from parefront.spaces.stage import Inputs, Stage, StageContext, TargetTraits
from tests.zoo import Memory, make

SOFT = RecoveryConfig(epochs=2, learning_rate=1e-2, soft_weight=0.7, temperature=4.0, batch_size=16)
PLAIN = RecoveryConfig(epochs=2, learning_rate=1e-2, batch_size=16)


def stage(**choices: Any) -> RecoveryTraining:
    return RecoveryTraining(
        RecoveryChoices.model_validate(choices), TargetTraits(format="onnx", channel_multiple=8)
    )


def recover(model: nn.Module, config: RecoveryConfig, context: StageContext) -> nn.Module:
    return stage().apply(model, config, context).model


def damaged(module: nn.Module) -> nn.Module:
    """A copy whose weights are drawn anew."""
    module = copy.deepcopy(module)
    generator = torch.Generator().manual_seed(7)
    with torch.no_grad():
        for parameter in module.parameters():
            if parameter.ndim > 1:
                parameter.normal_(0, parameter.shape[1] ** -0.5, generator=generator)
    return module


def agreement(first: nn.Module, second: nn.Module, inputs: torch.Tensor) -> float:
    with torch.no_grad():
        same = first(inputs).argmax(dim=1) == second(inputs).argmax(dim=1)
    return float(same.float().mean())


def equal(first: nn.Module, second: nn.Module) -> bool:
    pairs = zip(first.state_dict().values(), second.state_dict().values(), strict=True)
    return all(torch.equal(a, b) for a, b in pairs)


def mean_cross_entropy(
    inputs: Inputs, outputs: torch.Tensor, targets: torch.Tensor
) -> torch.Tensor:
    return F.cross_entropy(outputs, targets)


# The schedule


@given(steps=st.integers(1, 500), peak=st.floats(1e-6, 1.0))
def test_the_rate_rises_to_the_peak_and_falls_to_almost_nothing(steps: int, peak: float) -> None:
    rates = [rate_at(step, steps, peak) for step in range(steps)]
    top = rates.index(max(rates))
    assert rates[top] == pytest.approx(peak)
    assert min(rates) > 0
    assert rates[: top + 1] == sorted(rates[: top + 1])
    assert rates[top:] == sorted(rates[top:], reverse=True)
    if steps >= 20:
        assert top < 0.15 * steps
        assert rates[-1] < 0.02 * peak


def test_the_rate_is_half_the_peak_halfway_down() -> None:
    # 10 steps up, 89 down and a last one that would reach 0.
    assert rate_at(9, 99, 1.0) == 1.0
    assert rate_at(54, 99, 1.0) == pytest.approx(0.5)


# Training


def plain_training(model: nn.Module, config: RecoveryConfig, context: StageContext) -> nn.Module:
    """Another implementation of training on labels alone."""
    model = copy.deepcopy(model).train()
    optimizer = torch.optim.Adam(model.parameters(), fused=True)
    count = math.ceil(len(context.train) / config.batch_size) * config.epochs
    step = 0
    for seed in np.random.SeedSequence(context.seed).generate_state(config.epochs):
        for inputs, targets in context.train.batches(config.batch_size, seed=int(seed)):
            for group in optimizer.param_groups:
                group["lr"] = rate_at(step, count, config.learning_rate)
            optimizer.zero_grad()
            context.loss(model(*inputs), targets).backward()  # type: ignore[no-untyped-call]
            nn.utils.clip_grad_norm_(model.parameters(), MAX_GRADIENT_NORM)
            optimizer.step()
            step += 1
    return model.eval()


@pytest.mark.parametrize("kind", ["cnn", "mlp", "transformer"])
def test_without_soft_targets_it_is_plain_training_bit_for_bit(kind: str) -> None:
    module, context = make(kind)
    assert equal(
        recover(damaged(module), PLAIN, context), plain_training(damaged(module), PLAIN, context)
    )


def test_soft_targets_change_the_training() -> None:
    module, context = make("mlp")
    assert not equal(
        recover(damaged(module), PLAIN, context), recover(damaged(module), SOFT, context)
    )


@pytest.mark.parametrize("config", [PLAIN, SOFT], ids=["plain", "soft"])
@pytest.mark.parametrize("kind", ["cnn", "mlp"])
def test_a_damaged_model_learns_again(kind: str, config: RecoveryConfig) -> None:
    module, context = make(kind, examples=256)
    inputs = next(context.train.batches(256))[0][0]
    broken = damaged(module)
    config = config.model_copy(update={"epochs": 12})
    recovered = recover(broken, config, context)
    assert agreement(broken, module, inputs) < 0.5
    assert agreement(recovered, module, inputs) > 0.9


def test_full_soft_weight_ignores_the_labels() -> None:
    module, context = make("mlp")
    inputs = next(context.train.batches(64))[0]
    wrong = Memory(inputs, torch.zeros(64, dtype=torch.long))
    config = SOFT.model_copy(update={"soft_weight": 1.0})
    right = recover(damaged(module), config, context)
    assert equal(recover(damaged(module), config, replace(context, train=wrong)), right)


class Constant(nn.Module):
    """Answers the same whatever it is asked."""

    def __init__(self, *answer: float) -> None:
        super().__init__()
        self.answer = nn.Parameter(torch.tensor(answer))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.answer.expand(len(x), -1)


def regression(*teachers: nn.Module, seed: int = 0) -> StageContext:
    """A context with targets 0 for models like `Constant`."""
    source = Memory((torch.zeros(64, 1),), torch.zeros(64, 2))
    _, context = make("mlp")
    return replace(
        context,
        train=source,
        loss=F.mse_loss,
        teachers=teachers,
        seed=seed,
        example=(source.inputs[0][:2],),
    )


def test_a_regression_lands_between_its_targets_and_the_mean_of_its_teachers() -> None:
    # Mean squared errors to 0 and to the teachers' mean m, weighted 1 - w and w, are least at w m.
    context = regression(Constant(1.0, 3.0), Constant(3.0, -1.0))
    config = RecoveryConfig(
        epochs=200, learning_rate=0.1, soft_weight=0.75, temperature=5.0, batch_size=16
    )
    recovered = recover(Constant(5.0, 5.0), config, context)
    torch.testing.assert_close(
        recovered(torch.zeros(1, 1))[0], torch.tensor([1.5, 0.75]), atol=1e-2, rtol=0
    )


class WithDropout(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Linear(64, 32), nn.BatchNorm1d(32), nn.Dropout(0.5), nn.Linear(32, 10)
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.layers(x)  # type: ignore[no-any-return]


def test_the_seed_decides_order_and_dropout_and_the_global_state_neither() -> None:
    _, context = make("mlp")
    model = WithDropout().eval()
    torch.manual_seed(1)
    before = torch.get_rng_state()
    first = recover(model, SOFT, context)
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(2)
    assert equal(recover(model, SOFT, context), first)
    assert not equal(recover(model, SOFT, replace(context, seed=1)), first)


def test_dropout_is_on_in_training_and_off_afterwards() -> None:
    _, context = make("mlp")
    modes = []
    model = WithDropout().eval()
    model.layers[2].register_forward_hook(lambda module, *_: modes.append(module.training))
    recovered = recover(model, PLAIN, context)
    assert modes == [True] * 8
    assert not any(module.training for module in recovered.modules())


def test_frozen_parameters_stay_and_shared_ones_stay_shared() -> None:
    module, context = make("mlp")
    layers: Any = module.layers
    layers[2] = nn.Linear(128, 128)
    model: Any = nn.Sequential(layers[0], nn.ReLU(), layers[2], nn.ReLU(), layers[2], layers[4])
    model[0].weight.requires_grad_(False)
    recovered: Any = recover(model, PLAIN, context)
    assert torch.equal(recovered[0].weight, model[0].weight)
    assert not recovered[0].weight.requires_grad
    assert not torch.equal(recovered[0].bias, model[0].bias)
    assert recovered[2].weight is recovered[4].weight
    assert not torch.equal(recovered[2].weight, model[2].weight)


def test_no_gradients_are_left_behind() -> None:
    module, context = make("mlp")
    recovered = recover(module, PLAIN, context)
    assert all(
        parameter.grad is None for parameter in (*recovered.parameters(), *module.parameters())
    )


def test_achieved_counts_steps_and_averages_the_last_epoch() -> None:
    module, context = make("mlp", examples=40)
    losses: list[float] = []

    def loss(outputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        value = F.cross_entropy(outputs, targets)
        losses.append(value.item())
        return value

    achieved = stage().apply(module, PLAIN, replace(context, loss=loss)).achieved
    assert (
        achieved
        == {
            "epochs": 2,
            "steps": 6,  # 16, 16 and 8 examples, twice
            "final_loss": pytest.approx(sum(losses[3:]) / 3),
        }
    )


def test_a_last_batch_of_one_example_is_left_out() -> None:
    # Batch normalisation raises on it.
    _, context = make("mlp", examples=33)
    assert stage().apply(WithDropout(), PLAIN, context).achieved["steps"] == 4


# Failures


def after(calls: int, wrong: Callable[[torch.Tensor], torch.Tensor]) -> Any:
    """Cross-entropy that is replaced after some calls."""
    count = 0

    def loss(outputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        nonlocal count
        count += 1
        value = F.cross_entropy(outputs, targets)
        return value if count <= calls else wrong(value)

    return loss


@pytest.mark.parametrize(
    ("wrong", "named"),
    [
        (lambda value: value * math.nan, "loss nan"),
        (lambda value: value * math.inf, "loss inf"),
        # Finite, with an infinite slope.
        (lambda value: torch.sqrt(value - value.detach()), "loss 0, gradient norm (inf|nan)"),
    ],
    ids=["nan", "inf", "gradient"],
)
def test_divergence_says_where_it_happened(wrong: Any, named: str) -> None:
    module, context = make("mlp")
    with pytest.raises(
        TrainingError,
        match=rf"diverged in epoch 2 of 2, step 6 of 8: {named}.*, learning rate 0\.0\d+; try",
    ):
        recover(module, PLAIN, replace(context, loss=after(5, wrong)))


class StopError(Exception):
    pass


def test_a_tick_after_each_batch_can_end_the_training() -> None:
    module, context = make("mlp")
    ticks = 0

    def tick() -> None:
        nonlocal ticks
        ticks += 1
        if ticks == 3:
            raise StopError

    recover(module, PLAIN, replace(context, tick=lambda: None))
    random = torch.get_rng_state()
    with pytest.raises(StopError):
        train(
            module,
            context.train,
            mean_cross_entropy,
            epochs=2,
            learning_rate=1e-3,
            batch_size=16,
            seed=0,
            tick=tick,
        )
    assert ticks == 3
    assert not module.training
    assert torch.equal(torch.get_rng_state(), random)


def test_training_needs_parameters_and_examples() -> None:
    module, context = make("mlp")
    empty = Memory((torch.zeros(0, 64),), torch.zeros(0, dtype=torch.long))
    with pytest.raises(TrainingError, match="expected training examples, got none"):
        recover(module, PLAIN, replace(context, train=empty))
    with pytest.raises(TrainingError, match="expected a module with parameters to train"):
        recover(module.requires_grad_(False), PLAIN, context)


def test_soft_targets_need_a_teacher() -> None:
    module, context = make("mlp")
    with pytest.raises(StageError, match=r"expected a teacher for soft_weight 0\.7 and features"):
        recover(module, SOFT, replace(context, teachers=()))


# The stage


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"epochs": 0}, "greater than or equal to 1"),
        ({"learning_rate": 0.0}, "greater than 0"),
        ({"learning_rate": math.inf}, "finite number"),
        ({"soft_weight": 1.5, "temperature": 1.0}, "less than or equal to 1"),
        ({"soft_weight": 0.5, "temperature": 0.0}, "greater than 0"),
        ({"batch_size": 1}, "greater than or equal to 2"),
        ({"temperature": 2.0}, "expected no soft_loss for soft_weight 0.0, got kl"),
        ({"soft_weight": 0.5}, "expected a soft_loss for soft_weight 0.5, got None"),
        ({"soft_weight": 0.5, "soft_loss": "kl"}, "expected a temperature for soft_weight 0.5"),
        (
            {"soft_weight": 0.5, "soft_loss": "mse", "temperature": 2.0},
            "expected no temperature for soft_weight 0.5 and soft_loss mse, got 2.0",
        ),
        ({"features": "hint"}, "expected a feature_weight for features 'hint', got None"),
        ({"feature_weight": 1.0}, "expected no feature_weight for features 'none', got 1.0"),
        ({"smoothing": 1.0}, "less than 1"),
        ({"average": -0.1}, "greater than or equal to 0"),
        ({"optimizer": "adagrad"}, "'adam', 'adamw' or 'sgd'"),
    ],
)
def test_impossible_configs_are_refused(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        RecoveryConfig.model_validate({"epochs": 1, "learning_rate": 1e-3} | fields)


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("epochs", [0, 3], r"expected at least 1 epoch, got \[0, 3\]"),
        ("learning_rate", [0.0, 1.0], r"expected a range above 0, got \[0.0, 1.0\]"),
        ("temperature", -1, r"expected a range above 0, got \[-1.0, -1.0\]"),
        ("soft_weight", [0.5, 1.5], r"expected weights within \[0, 1\], got \[0.5, 1.5\]"),
        ("batch_size", 1, r"expected at least 2 examples in a batch, got \[1, 1\]"),
        ("smoothing", [0.0, 1.0], r"expected shares within \[0, 1\), got \[0.0, 1.0\]"),
        ("average", 1.0, r"expected shares within \[0, 1\), got \[1.0, 1.0\]"),
        ("feature_weight", 0.0, r"expected a range above 0"),
    ],
)
def test_impossible_ranges_are_refused(field: str, value: Any, message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        RecoveryChoices.model_validate({field: value})


def test_a_temperature_is_drawn_only_for_soft_targets() -> None:
    trial = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0)).ask()
    config = stage(soft_weight=[0.2, 0.9]).draw(trial, {})
    assert config.temperature == trial.params["recover.temperature"]
    trial = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0)).ask()
    assert stage(soft_weight=0).draw(trial, {}).temperature is None
    assert set(trial.params) == {"recover.epochs", "recover.learning_rate"}


def test_what_has_no_use_is_not_drawn() -> None:
    every = {
        "soft_weight": [0.2, 0.9],
        "soft_loss": ["kl", "mse"],
        "features": ["none", "hint"],
        "optimizer": ["adam", "sgd"],
        "smoothing": [0.0, 0.2],
        "average": [0.0, 0.99],
    }
    seen = set()
    for seed in range(20):
        trial = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=seed)).ask()
        config = stage(**every).draw(trial, {})
        assert ("recover.temperature" in trial.params) == (config.soft_loss == "kl")
        assert ("recover.feature_weight" in trial.params) == (config.features == "hint")
        seen.add((config.soft_loss, config.features, config.optimizer))
    assert len(seen) == 8


def test_the_anchor_stays_in_the_ranges() -> None:
    assert stage().anchors() == [
        RecoveryConfig(epochs=5, learning_rate=4e-3, soft_weight=0.7, temperature=4.0)
    ]
    assert stage(
        epochs=2,
        learning_rate=[1e-5, 1e-4],
        soft_weight=[0.1, 0.3],
        temperature=[6, 8],
        batch_size=8,
    ).anchors() == [
        RecoveryConfig(epochs=2, learning_rate=1e-4, soft_weight=0.3, temperature=6.0, batch_size=8)
    ]
    assert stage(soft_weight=0).anchors()[0].temperature is None


class Lossless(RecoveryTraining):
    lossy = False


class Damaging(RecoveryTraining):
    lossy = True


def test_damage_makes_recovery_necessary() -> None:
    def required(*earlier: type[Stage[Any, Any]]) -> bool:
        return stage().required(earlier)

    assert not required()
    assert not required(Lossless)
    assert not required(OnnxInt8)  # changes the file, which is not trained
    assert required(Lossless, Damaging)


def test_nothing_to_do_without_trainable_parameters() -> None:
    module, context = make("mlp")
    assert stage().nothing_to_do(module, context) is None
    reason = stage().nothing_to_do(module.requires_grad_(False), context)
    assert reason == "the model has no trainable parameter"
