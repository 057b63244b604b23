"""The influence of every pair on a layer's distance, from the closed-form derivative.

The derivative of the squared Frechet distance in the covariance S_p is I - T_p with the optimal
map T_p = F_q (F_q^T S_p F_q)^(-1/2) F_q^T, in the mean mu_p it is 2 (mu_p - mu_q) (Dowson and
Landau 1982; Bhatia et al. 2019, arXiv 1712.01504). A token's influence is that derivative along
its own contribution to the moments. Outlier rows count as the constant row that replaces them.
Float32 suffices: an error bar is not needed to seven digits.

Shape suffixes: N tokens, D hidden size, P pairs, K rank.
"""

from __future__ import annotations

import torch
from torch import Tensor

from mir.blocks import gram, square_lengths
from mir.frechet import Distance, Gaussian, psd_factor
from mir.moments import CHUNK, Roles


def map_factors(p: Gaussian, q: Gaussian, distance: Distance) -> tuple[Tensor, Tensor]:
    """Factors B [D, K] of the optimal maps T = B B^T from p to q and from q to p, in the
    dimensions' own order."""
    assert distance.left_RK is not None and distance.right_QK is not None
    roots_K = distance.values_K.sqrt()
    to_q = q.factor_DR @ (distance.right_QK / roots_K)
    to_p = p.factor_DR @ (distance.left_RK / roots_K)
    if p.order_D is None:
        return to_q, to_p
    back_D = p.order_D.argsort()
    return to_q[back_D], to_p[back_D]


def token_influence(
    tokens_ND: Tensor, roles: Roles, own: Gaussian, other: Gaussian, map_DK: Tensor
) -> Tensor:
    """Derivative of the distance in the weight of every token, float64 [N]; sums to 0."""
    size, rank = map_DK.shape
    factor, lower = (map_DK, False) if rank < size else psd_factor(gram(map_DK.T))
    dtype = torch.promote_types(tokens_ND.dtype, torch.float32)
    factor, mean_D = factor.to(dtype), own.mean_D.to(dtype)
    gap_D = 2 * (own.mean_D - other.mean_D).to(dtype)
    values = []
    for start in range(0, len(tokens_ND), CHUNK):
        rows = slice(start, start + CHUNK)
        kept_ND = torch.where(roles.replaced_N[rows, None], roles.row_D, tokens_ND[rows])
        centred_ND = kept_ND.to(dtype) - mean_D
        moved_N = square_lengths(centred_ND, factor, lower=lower)
        values.append(centred_ND @ gap_D + centred_ND.square().sum(dim=1) - moved_N)
    influence_N = torch.cat(values).double()
    return (influence_N - influence_N.mean()) / len(influence_N)


def sum_by_pair(influence_N: Tensor, pair_N: Tensor, pair_count: int) -> Tensor:
    """Influences of the tokens added up by pair: float64 [P] on the host."""
    summed_P = influence_N.new_zeros(pair_count)
    return summed_P.index_add_(0, pair_N.to(influence_N.device), influence_N).cpu()
