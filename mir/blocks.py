"""Matrix products that do half the work, because half of the result or operand is known.

torch has no symmetric or triangular product, so columns are taken in a few blocks and the
known half is left out; what remains are ordinary products, on any device.

Shape suffixes: N rows, D columns, K inner.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

import torch
from torch import Tensor

Shape = Literal["lower", "upper", "full"]

BLOCKS = 8
NARROWEST = 128


def column_blocks(size: int) -> Iterator[slice]:
    """At most eight slices that cover range(size), not narrower than 128: narrow products are
    slow and, in float32, add up in an order that rounds more."""
    width = max(-(-size // BLOCKS), NARROWEST)
    for start in range(0, size, width):
        yield slice(start, min(start + width, size))


def add_lower_gram(into_DD: Tensor, rows_ND: Tensor) -> None:
    """into += rows.T @ rows, in blocks on and below the diagonal only; `into` may be wider."""
    for block in column_blocks(rows_ND.shape[1]):
        into_DD[block.start :, block] += rows_ND[:, block.start :].T @ rows_ND[:, block]


def gram(rows_ND: Tensor) -> Tensor:
    """rows.T @ rows, valid on and below the diagonal (what `torch.linalg` reads)."""
    result_DD = rows_ND.new_zeros(rows_ND.shape[1], rows_ND.shape[1])
    add_lower_gram(result_DD, rows_ND)
    return result_DD


def lower_cross(left_DD: Tensor, right_DD: Tensor) -> Tensor:
    """left.T @ right of two lower triangular matrices, for a third of a product's work."""
    result_DD = torch.empty_like(left_DD)
    for rows in column_blocks(len(left_DD)):
        for columns in column_blocks(len(left_DD)):
            inner = slice(max(rows.start, columns.start), None)
            result_DD[rows, columns] = left_DD[inner, rows].T @ right_DD[inner, columns]
    return result_DD


def lower_times(left_DD: Tensor, right_DK: Tensor) -> Tensor:
    """left @ right with `left` lower triangular, for half of a product's work."""
    return torch.cat(
        [left_DD[b, : b.stop] @ right_DK[: b.stop] for b in column_blocks(len(left_DD))]
    )


def square_lengths(rows_ND: Tensor, factor_DK: Tensor, shape: Shape) -> Tensor:
    """Squared length of every row of rows @ factor: [N]. `shape`: what is known to be 0."""
    if shape == "full":
        return (rows_ND @ factor_DK).square().sum(dim=1)
    lengths_N = rows_ND.new_zeros(len(rows_ND))
    for block in column_blocks(factor_DK.shape[1]):
        inner = slice(block.start, None) if shape == "lower" else slice(None, block.stop)
        product = rows_ND[:, inner] @ factor_DK[inner, block]
        lengths_N += product.square().sum(dim=1)
    return lengths_N
