import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.utils.data import Subset, TensorDataset

from parefront.errors import TaskError
from parefront.search.data import Split


def split(count: int = 10) -> Split:
    return Split(torch.arange(count, dtype=torch.float32)[:, None], torch.arange(count))


@given(st.integers(1, 40), st.integers(1, 50), st.one_of(st.none(), st.integers(0, 5)))
def test_batches_hold_every_example_once(count: int, batch: int, seed: int | None) -> None:
    found = list(split(count).batches(batch, seed=seed))
    targets = torch.cat([y for _, y in found])
    assert sorted(targets.tolist()) == list(range(count))
    assert all(len(y) == batch for _, y in found[:-1])
    assert all(torch.equal(x[:, 0].long(), y) for (x,), y in found)
    if seed is None:
        assert targets.tolist() == list(range(count))


def test_batches_repeat_with_a_seed_and_differ_between_seeds() -> None:
    first, again, other = (
        torch.cat([y for _, y in split(50).batches(7, seed=seed)]) for seed in (1, 1, 2)
    )
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_indices_select() -> None:
    x, y = torch.arange(6.0), torch.arange(6)
    taken = Split(x, y, indices=[4, 1])
    assert taken.targets.tolist() == [4, 1]
    assert taken.inputs[0].tolist() == [4.0, 1.0]


def test_overlap_of_the_same_arrays_is_counted() -> None:
    x, y = torch.arange(6.0), torch.arange(6)
    assert Split(x, y, indices=[0, 1, 2]).overlap(Split(x, y, indices=[2, 3])) == 1
    assert Split(x, y, indices=[0]).overlap(Split(x.clone(), y, indices=[0])) == 0
    assert Split(x, y).overlap(Split(x, y)) == 6
    assert Split(x, y).overlap(Split(x, y, indices=[3])) == 1


def test_overlap_of_subsets_is_counted() -> None:
    data = TensorDataset(torch.arange(6.0), torch.arange(6))
    first, second = Subset(data, [0, 1, 2]), Subset(data, [2, 3])
    assert Split.of(first).overlap(Split.of(second)) == 1


def test_a_data_set_with_several_inputs_is_read() -> None:
    pairs = [((torch.tensor([float(i)]), torch.tensor(i)), i % 2) for i in range(5)]

    class Pairs(torch.utils.data.Dataset[object]):
        def __len__(self) -> int:
            return len(pairs)

        def __getitem__(self, index: int) -> object:
            return pairs[index]

    found = Split.of(Pairs())
    assert len(found.inputs) == 2
    assert found.inputs[1].tolist() == [0, 1, 2, 3, 4]
    assert found.targets.tolist() == [0, 1, 0, 1, 0]


def test_the_digest_changes_with_one_byte_and_with_the_shape() -> None:
    x, y = torch.zeros(4, 2), torch.zeros(4)
    changed = x.clone()
    changed[3, 1] = 1e-7
    digests = {
        Split(x, y).digest(),
        Split(changed, y).digest(),
        Split(x.reshape(4, 1, 2), y).digest(),
        Split(x.to(torch.float64), y).digest(),
    }
    assert len(digests) == 4
    assert Split(x, y).digest() == Split(x.clone(), y.clone()).digest()


def test_numpy_arrays_are_taken() -> None:
    assert len(Split(np.zeros((3, 2), np.float32), np.zeros(3, np.int64))) == 3


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Split(torch.zeros(3), torch.zeros(4)), "one example each"),
        (lambda: Split(torch.zeros(3), torch.zeros(3), indices=[3]), r"lie in \[0, 3\)"),
        (lambda: Split.of(7), "expected a split"),
        (lambda: Split.of(TensorDataset(torch.zeros(3))), "pairs"),
        (
            lambda: Split.of(Subset(TensorDataset(torch.zeros(3), torch.zeros(3)), [])),
            "at least one example",
        ),
    ],
)
def test_bad_splits_are_refused(make: object, message: str) -> None:
    with pytest.raises(TaskError, match=message):
        make()  # type: ignore[operator]
