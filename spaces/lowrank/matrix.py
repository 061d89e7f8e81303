"""A layer's weight as a matrix: the rank to keep, and the best factors of that rank."""

from __future__ import annotations

import math

import torch


def chosen_rank(rows: int, columns: int, ratio: float, multiple: int) -> int | None:
    """The rank to keep of a matrix, or `None` if no multiple of `multiple` saves parameters.

    A matrix of rank `r` in two factors has `r * (rows + columns)` parameters, so that factors
    break even with the dense matrix at `rows * columns / (rows + columns)`.

    Args:
        rows: Rows of the matrix.
        columns: Columns of the matrix.
        ratio: Rank wanted, as a fraction in (0, 1] of the break-even rank.
        multiple: The rank is rounded down to a multiple of this, but at least to `multiple`.
    """
    break_even = rows * columns / (rows + columns)
    largest = math.ceil(break_even) - 1  # the largest rank that saves anything
    if largest < multiple:
        return None
    rank = max(multiple, min(int(ratio * break_even), largest))
    return rank - rank % multiple


def saves(rows: int, columns: int, rank: int) -> bool:
    """Whether a matrix in two factors of a rank has fewer parameters than as it is."""
    return rank * (rows + columns) < rows * columns


def truncate(matrix: torch.Tensor, rank: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Factors `(left, right)` whose product is the nearest matrix of a rank.

    The truncated singular value decomposition is nearest in the Frobenius norm (Eckart and Young
    1936). The singular values are split evenly between the factors, which keeps them equally
    large for training.

    Args:
        matrix: Matrix of shape `(rows, columns)`.
        rank: Rank to keep, from 1 to the smaller dimension.

    Returns:
        Factors of shapes `(rows, rank)` and `(rank, columns)`, in the type of `matrix`.
    """
    # There is no decomposition in half precision.
    exact = matrix if matrix.dtype == torch.float64 else matrix.float()
    u, s, vh = torch.linalg.svd(exact, full_matrices=False)
    root = s[:rank].sqrt()
    return (u[:, :rank] * root).to(matrix.dtype), (root[:, None] * vh[:rank]).to(matrix.dtype)
