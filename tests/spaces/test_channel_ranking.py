"""How many channels go, and which."""

from __future__ import annotations

from typing import Any

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from parefront.spaces.pruning.groups import ChannelGroup
from parefront.spaces.pruning.ranking import allowed_widths, channels_to_remove

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
        group = ChannelGroup(str(number), (str(number),), size * blocks, blocks, None)
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
        str(i): (ChannelGroup(str(i), (), width, 1, None), torch.rand(width, generator=generator))
        for i, width in enumerate(widths)
    }
    less, more = (
        channels_to_remove(groups, ratio=ratio, scope=scope, multiple=8) for ratio in sorted(ratios)
    )
    assert all(set(less[root]) <= set(more[root]) for root in less)
