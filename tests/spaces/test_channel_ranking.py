"""How many channels go, and which."""

from __future__ import annotations

from typing import Any

import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from parefront.spaces.pruning.groups import ChannelGroup, find_groups
from parefront.spaces.pruning.ranking import allowed_widths, channels_to_remove, scores
from parefront.spaces.stage import StageContext
from tests.zoo import make

GROUPS = st.lists(
    st.tuples(
        st.integers(1, 40),  # channels of a block
        st.sampled_from([1, 1, 1, 2, 4]),  # blocks
        st.integers(0, 2**31),  # seed of the scores
    ),
    min_size=1,
    max_size=5,
)


@settings(deadline=None)
@given(
    shapes=GROUPS,
    ratio=st.floats(0, 1, exclude_max=True),
    scope=st.sampled_from(["uniform", "global"]),
    multiple=st.sampled_from([1, 2, 4, 8, 16]),
)
def test_widths_stay_allowed_and_the_least_important_go(
    shapes: list[tuple[int, int, int]], ratio: float, scope: Any, multiple: int
) -> None:
    groups = {}
    for number, (size, blocks, seed) in enumerate(shapes):
        score = torch.rand(size, generator=torch.Generator().manual_seed(seed))
        group = ChannelGroup(
            str(number), (str(number),), size * blocks, blocks, None, nn.Identity()
        )
        groups[group.root] = (group, score)
    removals = channels_to_remove(groups, ratio=ratio, scope=scope, multiple=multiple)
    for root, (group, score) in groups.items():
        gone = removals.get(root, [])
        left = group.width - len(gone)
        assert gone == sorted(set(gone))
        assert left in allowed_widths(group.width, group.blocks, multiple)
        assert left > 0
        if group.width % multiple == 0:
            assert left % multiple == 0
        places = {channel % len(score) for channel in gone}
        assert len(gone) == len(places) * group.blocks
        kept = [i for i in range(len(score)) if i not in places]
        assert all(score[i] <= score[j] for i in places for j in kept)


@settings(deadline=None)
@given(
    widths=st.lists(st.integers(1, 64), min_size=1, max_size=4),
    ratios=st.tuples(st.floats(0, 0.99), st.floats(0, 0.99)),
    scope=st.sampled_from(["uniform", "global"]),
)
def test_a_larger_ratio_never_keeps_more(
    widths: list[int], ratios: tuple[float, float], scope: Any
) -> None:
    generator = torch.Generator().manual_seed(0)
    groups = {
        str(i): (
            ChannelGroup(str(i), (), width, 1, None, nn.Identity()),
            torch.rand(width, generator=generator),
        )
        for i, width in enumerate(widths)
    }
    less, more = (
        channels_to_remove(groups, ratio=ratio, scope=scope, multiple=8) for ratio in sorted(ratios)
    )
    assert all(set(less[root]) <= set(more[root]) for root in less)


def plain(**changes: Any) -> tuple[nn.Module, StageContext]:
    """Two convolutions, of which the first has 8 channels that can be told apart."""
    model, context = make("cnn")
    for name, value in changes.items():
        with torch.no_grad():
            model.get_parameter(name.replace("__", ".")).copy_(value)
    return model, context


def ranked(model: nn.Module, context: StageContext, importance: Any) -> dict[str, torch.Tensor]:
    groups, _ = find_groups(model, context.example, lambda: None)
    return scores(groups, importance, context)


def test_a_filter_that_others_can_stand_in_for_goes_first() -> None:
    filters = torch.randn(16, 1, 3, 3, generator=torch.Generator().manual_seed(0))
    filters[3] = filters.mean(dim=0)  # in the middle of all
    filters[7] *= 10.0  # far from all
    model, context = plain(features__0__weight=filters)
    score = ranked(model, context, "median")["features.0"]
    by_hand = torch.stack([(filters - each).flatten(1).norm(dim=1).sum() for each in filters])
    torch.testing.assert_close(score, by_hand / by_hand.mean(), rtol=1e-4, atol=1e-5)
    assert score.argmin() == 3
    assert score.argmax() == 7


def test_scales_of_batch_normalisation_rank_channels() -> None:
    scales = torch.rand(16, generator=torch.Generator().manual_seed(0)) - 0.5
    model, context = plain(features__1__weight=scales)
    score = ranked(model, context, "bn_scale")["features.0"]
    torch.testing.assert_close(score, scales.abs() / scales.abs().mean())


def test_without_batch_normalisation_its_scale_is_magnitude() -> None:
    model, context = make("mlp")
    found, magnitude = (ranked(model, context, each) for each in ("bn_scale", "l1"))
    for root, score in found.items():
        torch.testing.assert_close(score, magnitude[root])


def test_what_the_loss_does_not_see_goes_first() -> None:
    model, context = make("mlp")
    name = next(iter(ranked(model, context, "l2")))
    layers = [each for each, part in model.named_modules() if isinstance(part, nn.Linear)]
    reader = model.get_submodule(layers[layers.index(name) + 1])
    with torch.no_grad():  # nothing reads these channels, however large they are
        model.get_parameter(f"{name}.weight")[:5] *= 50.0
        reader.get_parameter("weight")[:, :5] = 0.0
    before = [p.grad for p in model.parameters()]
    score = ranked(model, context, "taylor")[name]
    assert set(score.argsort()[:5].tolist()) == set(range(5))
    assert set(ranked(model, context, "l2")[name].argsort()[:5].tolist()) != set(range(5))
    assert [p.grad for p in model.parameters()] == before
