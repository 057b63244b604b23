"""The influence of every pair on a layer's distance, from the closed-form derivative.

The derivative of the squared Frechet distance in the covariance S_p is I - T_p with the optimal
map T_p (`mir.maps`), in the mean mu_p it is 2 (mu_p - mu_q). A token's influence is that
derivative along its own contribution to the moments. Outlier rows count as the constant row that
replaces them, and a token also moves the thresholds beyond which rows are outliers.

Shape suffixes: N tokens, D hidden size, P pairs.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor

from mir.blocks import SquareLengths
from mir.frechet import Gaussian
from mir.maps import OptimalMap
from mir.moments import CHUNK, TINY, Roles
from mir.outliers import SIGMAS, median_row

WINDOW = 0.5
"""Half the width, in standard deviations of the norms, in which tokens are next to a threshold."""
FEWEST = 8
"""Tokens next to a threshold below which they have no density: one token of massive norm alone
would decide the error bar, and whether it is near changes with the last digits of the norms."""


@dataclass(frozen=True, eq=False)
class _Derivative:
    """Derivative of the distance along one row's contribution, up to a constant.

    unit: what rows are multiplied with so that their squares stay within float32.
    centred_ND: room for as many rows as are taken at a time.
    """

    mean_D: Tensor
    gap_D: Tensor
    moved: SquareLengths
    unit: float
    centred_ND: Tensor

    @classmethod
    def of(cls, own: Gaussian, other: Gaussian, to: OptimalMap, dtype: torch.dtype) -> Self:
        unit = float((own.trace + other.trace).clamp(min=TINY).rsqrt())
        gap_D = 2 * unit * (own.mean_D - other.mean_D)
        moved = SquareLengths(to.factor_DK, to.shape)
        centred_ND = own.mean_D.new_empty(CHUNK, len(own.mean_D), dtype=dtype)
        return cls(own.mean_D.to(dtype), gap_D.to(dtype), moved, unit, centred_ND)

    def parts(self, rows_ND: Tensor) -> tuple[Tensor, Tensor]:
        """What grows with the row [N], and what its map takes off [N]."""
        parts = [self._of_chunk(chunk_ND) for chunk_ND in rows_ND.split(CHUNK)]
        grown_N, moved_N = (torch.cat(part) for part in zip(*parts, strict=True))
        return grown_N, moved_N

    def _of_chunk(self, rows_ND: Tensor) -> tuple[Tensor, Tensor]:
        centred_ND = self.centred_ND[: len(rows_ND)]
        torch.sub(rows_ND, self.mean_D, out=centred_ND).mul_(self.unit)
        grown_N = centred_ND @ self.gap_D + torch.linalg.vector_norm(centred_ND, dim=1).square_()
        moved_N = self.moved(centred_ND)
        return grown_N.double() / self.unit**2, moved_N.double() / self.unit**2

    def __call__(self, rows_ND: Tensor) -> Tensor:
        grown_N, moved_N = self.parts(rows_ND)
        return grown_N - moved_N


def token_influence(
    tokens_ND: Tensor,
    norms_N: Tensor,
    roles: Roles,
    gaussians: tuple[Gaussian, Gaussian],
    to_other: OptimalMap,
) -> tuple[Tensor, float]:
    """Derivative of the distance in the weight of every token, float64 [N]; sums to 0. And the
    trace of the map times the tokens' covariance, as these tokens give it.

    gaussians: the tokens' own and the other modality's. to_other: own to other.
    """
    dtype = torch.promote_types(to_other.factor_DK.dtype, torch.float32)
    derivative = _Derivative.of(*gaussians, to_other, dtype)
    of_tokens, of_row = derivative.parts(tokens_ND), derivative.parts(roles.row_D[None])
    grown_N, moved_N = (
        torch.where(roles.replaced_N, row_1, own_N)
        for own_N, row_1 in zip(of_tokens, of_row, strict=True)
    )
    influence_N = grown_N - moved_N
    influence_N += _threshold_influence(tokens_ND, norms_N, roles, derivative)
    trace = float(moved_N.sum()) / (len(moved_N) - 1)
    return (influence_N - influence_N.mean()) / len(influence_N), trace


def _threshold_influence(
    tokens_ND: Tensor, norms_N: Tensor, roles: Roles, derivative: _Derivative
) -> Tensor:
    """What a token changes by moving the outlier thresholds, median +- 3 deviations.

    A threshold that moves changes sides for the tokens next to it: the derivative is their
    density there times what replacing one of them changes. Without this the standard error
    is a tenth too small where pairs differ in the spread of their norms.
    """
    influence_N = torch.zeros_like(norms_N)
    deviation, median = norms_N.std(), norms_N.median()
    if float(deviation) == 0:
        return influence_N
    of_deviation_N = ((norms_N - norms_N.mean()).square() - deviation**2) / (2 * deviation)
    low, high = (norms_N.kthvalue(1 + int(part * (len(norms_N) - 1))).values for part in (0.4, 0.6))
    of_median_N = (norms_N - median).sign() * (high - low) / (2 * (0.6 - 0.4))
    width = WINDOW * deviation
    for side in (1.0, -1.0):
        near_N = (norms_N - (median + side * SIGMAS * deviation)).abs() < width
        if int(near_N.sum()) >= FEWEST:
            replaced = bool(roles.replaced_N.any())
            row_D = roles.row_D if replaced else median_row(tokens_ND)
            change_N = derivative(tokens_ND[near_N]) - derivative(row_D[None])
            gain = change_N.sum() / (2 * width * len(norms_N))
            influence_N += side * gain * (of_median_N + side * SIGMAS * of_deviation_N)
    return influence_N


def sum_by_pair(influence_N: Tensor, pair_N: Tensor, pair_count: int) -> Tensor:
    """Influences of the tokens added up by pair: float64 [P] on the host."""
    summed_P = influence_N.new_zeros(pair_count)
    return summed_P.index_add_(0, pair_N.to(influence_N.device), influence_N).cpu()
