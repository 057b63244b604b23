"""The influence of every pair on a layer's distance, from the closed-form derivative.

The derivative of the squared Frechet distance in the covariance S_p is I - T_p with the optimal
map T_p = F_q (F_q^T S_p F_q)^(-1/2) F_q^T, in the mean mu_p it is 2 (mu_p - mu_q) (Dowson and
Landau 1982; Bhatia et al. 2019, arXiv 1712.01504). A token's influence is that derivative along
its own contribution to the moments. Outlier rows count as the constant row that replaces them, and
a token also moves the thresholds beyond which rows are outliers.
Float32 suffices: an error bar is not needed to seven digits.

Shape suffixes: N tokens, D hidden size, P pairs, K rank.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor

from mir.blocks import Shape, gram, lower_times, square_lengths
from mir.frechet import Distance, Gaussian, psd_factor
from mir.moments import CHUNK, Roles
from mir.outliers import SIGMAS, median_row

WINDOW = 0.5
"""Half the width, in standard deviations of the norms, in which tokens are next to a threshold."""


@dataclass(frozen=True, eq=False)
class OptimalMap:
    """The optimal map between two Gaussians as T = B B^T, in the dimensions' own order."""

    factor_DK: Tensor
    shape: Shape


def optimal_maps(p: Gaussian, q: Gaussian, distance: Distance) -> tuple[OptimalMap, OptimalMap]:
    """From p to q and from q to p, which are inverse to each other where both are invertible."""
    assert distance.right_QK is not None
    roots_K = distance.values_K.sqrt()
    if distance.left_RK is not None:
        to_q, to_p = (
            q.factor_DR @ (distance.right_QK / roots_K),
            p.factor_DR @ (distance.left_RK / roots_K),
        )
        return OptimalMap(_own(to_q, p.order_D), "full"), OptimalMap(_own(to_p, p.order_D), "full")
    product = lower_times if q.lower else torch.matmul
    to_q = _own(product(q.factor_DR, distance.right_QK / roots_K), p.order_D)
    factor, lower = psd_factor(gram(to_q.T))
    if not lower:
        # Orthogonal columns, so the inverse only inverts their lengths.
        return OptimalMap(factor, "full"), OptimalMap(factor / factor.square().sum(dim=0), "full")
    identity = torch.eye(len(factor), dtype=factor.dtype, device=factor.device)
    inverse = torch.linalg.solve_triangular(factor, identity, upper=False)
    return OptimalMap(factor, "lower"), OptimalMap(inverse.T.contiguous(), "upper")


def _own(rows_DK: Tensor, order_D: Tensor | None) -> Tensor:
    return rows_DK if order_D is None else rows_DK[order_D.argsort()]


@dataclass(frozen=True, eq=False)
class _Derivative:
    """Derivative of the distance along one row's contribution, up to a constant."""

    mean_D: Tensor
    gap_D: Tensor
    factor_DK: Tensor
    shape: Shape

    @classmethod
    def of(cls, own: Gaussian, other: Gaussian, to: OptimalMap, dtype: torch.dtype) -> Self:
        gap_D = 2 * (own.mean_D - other.mean_D)
        return cls(own.mean_D.to(dtype), gap_D.to(dtype), to.factor_DK.to(dtype), to.shape)

    def __call__(self, rows_ND: Tensor) -> Tensor:
        centred_ND = rows_ND.to(self.mean_D.dtype) - self.mean_D
        moved_N = square_lengths(centred_ND, self.factor_DK, self.shape)
        return (centred_ND @ self.gap_D + centred_ND.square().sum(dim=1) - moved_N).double()


def token_influence(
    tokens_ND: Tensor,
    norms_N: Tensor,
    roles: Roles,
    gaussians: tuple[Gaussian, Gaussian],
    to_other: OptimalMap,
) -> Tensor:
    """Derivative of the distance in the weight of every token, float64 [N]; sums to 0.

    gaussians: the tokens' own and the other modality's. to_other: own to other.
    """
    derivative = _Derivative.of(*gaussians, to_other, tokens_ND.dtype)
    influence_N = torch.cat(
        [
            derivative(torch.where(replaced_N[:, None], roles.row_D, rows_ND))
            for rows_ND, replaced_N in zip(
                tokens_ND.split(CHUNK), roles.replaced_N.split(CHUNK), strict=True
            )
        ]
    )
    influence_N += _threshold_influence(tokens_ND, norms_N, roles, derivative)
    return (influence_N - influence_N.mean()) / len(influence_N)


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
        if bool(near_N.any()):
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
