"""What the benchmark of techniques tries is complete, so that it runs to its end."""

import pytest

from benchmarks.techniques import SPACE, TECHNIQUES
from parefront.search.warm_start import own_candidates
from parefront.spaces.space import Space
from parefront.spaces.stage import TargetTraits


@pytest.mark.parametrize("name", TECHNIQUES)
def test_a_technique_of_the_benchmark_is_a_candidate_of_its_space(name: str) -> None:
    space = Space.of(dict(SPACE), TargetTraits(format="onnx", channel_multiple=8))
    (candidate,) = own_candidates([TECHNIQUES[name]], space, {})
    assert {stage for stage, _ in candidate.configs} >= set(TECHNIQUES[name])
