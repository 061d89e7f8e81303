"""Facts about modules."""

from __future__ import annotations

import torch
from torch import nn

from parefront.spaces.inspection import brief, count_parameters, run, shared_weights


class Noisy(nn.Module):
    """Gives its mode and a random number, nested."""

    def forward(self, x: torch.Tensor) -> dict[str, object]:
        return {"a": x + float(self.training), "b": [torch.rand(1), ("text", torch.rand(1))]}


def test_a_run_is_in_evaluation_mode_and_leaves_no_trace() -> None:
    model = nn.Sequential(nn.Dropout(0.5), Noisy())
    model.train()
    model[0].eval()
    state = torch.get_rng_state()
    first, second = (run(model, (torch.ones(2),)) for _ in range(2))
    assert [module.training for module in model.modules()] == [True, False, True]
    assert torch.equal(torch.get_rng_state(), state)
    assert len(first) == 3
    assert torch.equal(first[0], torch.ones(2))
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))


def test_shared_weights_count_once_and_name_each_other() -> None:
    first, second, third = nn.Linear(3, 3), nn.Linear(3, 3), nn.Linear(3, 3)
    second.weight = first.weight
    model = nn.Sequential(first, second, third, third)
    assert count_parameters(model) == 9 + 3 + 3 + 12
    assert shared_weights(model) == {"0": "1", "1": "0"}


def test_an_error_in_one_line() -> None:
    assert brief(ValueError("\n first\nsecond")) == "ValueError: first"
    assert brief(KeyError()) == "KeyError"
