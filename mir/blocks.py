"""Matrix products that do half the work, because half of the result or operand is known.

torch has no symmetric or triangular product, so columns are taken in a few blocks and the
known half is left out; what remains are ordinary products, on any device. On the host, float32
products go through oneDNN's own tensor layout: torch's default there (MKL) keeps to half of the
vector width on processors that are not Intel's and was measured at half the speed.

Shape suffixes: N rows, M rows, D columns, K inner.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from typing import Literal

import torch
from torch import Tensor

Shape = Literal["lower", "upper", "full"]

BLOCKS = 8
NARROWEST = 192
ROWS_TOGETHER = 256


def column_blocks(size: int) -> Iterator[slice]:
    """At most eight slices that cover range(size), not narrower than 192: narrow products are
    slow and, in float32, add up in an order that rounds more."""
    width = max(-(-size // BLOCKS), NARROWEST)
    for start in range(0, size, width):
        yield slice(start, min(start + width, size))


def operand(rows_NK: Tensor) -> Tensor:
    """`rows_NK` in the layout in which `times` multiplies fastest; made once, used often."""
    dnn = torch.backends.mkldnn.is_available() and rows_NK.device.type == "cpu"
    return rows_NK.contiguous().to_mkldnn() if dnn and rows_NK.dtype == torch.float32 else rows_NK


@cache
def multiplies_bfloat16() -> bool:
    """Whether the host's processor has instructions for bfloat16 products, which make them
    several times as fast as float32's; without them they are slower."""
    can = torch.cpu.get_capabilities()
    dnn = torch.backends.mkldnn.is_available()
    return dnn and bool(can.get("avx512_bf16") or can.get("amx_bf16"))


def times(left_NK: Tensor, right_MK: Tensor) -> Tensor:
    """left @ right.T [N, M] of two operands of one layout."""
    # Not nn.functional.linear: DeepSpeed's ZeRO-3 puts another function in its place, for good,
    # which knows no oneDNN tensors.
    product_NM: Tensor = torch._C._nn.linear(left_NK, right_MK)
    return product_NM.to_dense() if product_NM.is_mkldnn else product_NM


def add_lower_gram(into_DD: Tensor, rows_ND: Tensor) -> None:
    """into += rows.T @ rows, in blocks on and below the diagonal only; `into` may be wider."""
    blocks = list(column_blocks(rows_ND.shape[1]))
    parts = [operand(rows_ND[:, block].T) for block in blocks]
    for number, (below, left) in enumerate(zip(blocks, parts, strict=True)):
        for block, right in zip(blocks[: number + 1], parts, strict=False):
            into_DD[below, block] += times(left, right)


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


class SquareLengths:
    """Squared length of every row of rows @ factor, for one factor and many rows.

    factor_DK: the factor. shape: what of it is known to be 0.
    """

    def __init__(self, factor_DK: Tensor, shape: Shape) -> None:
        # Kept from call to call: memory fresh from the system costs more than the arithmetic.
        self._rows_ND = factor_DK.new_empty(0, len(factor_DK))
        self._parts = []
        for block in column_blocks(factor_DK.shape[1]):
            inner = {
                "lower": slice(block.start, None),
                "upper": slice(None, block.stop),
                "full": slice(None),
            }[shape]
            self._parts.append((inner, operand(factor_DK[inner, block].T)))

    def __call__(self, rows_ND: Tensor) -> Tensor:
        """Squared lengths [N] of rows [N, D]."""
        # oneDNN compiles and keeps code for every number of rows, so there shall be few numbers.
        count = len(rows_ND)
        padded = count + -count % ROWS_TOGETHER
        if len(self._rows_ND) < padded:
            self._rows_ND = self._rows_ND.new_empty(padded, rows_ND.shape[1])
        own_ND = self._rows_ND[:padded]
        own_ND[:count] = rows_ND
        own_ND[count:] = 0
        lengths_N = rows_ND.new_zeros(padded)
        for inner, part in self._parts:
            product_NK = times(operand(own_ND[:, inner]), part)
            lengths_N += torch.linalg.vector_norm(
                product_NK, dim=1, dtype=lengths_N.dtype
            ).square_()
        return lengths_N[:count]
