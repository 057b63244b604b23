"""The optimal maps between two Gaussians, which are the derivative of their distance.

T_p = F_q (F_q^T S_p F_q)^(-1/2) F_q^T carries p to q (Dowson and Landau 1982; Bhatia et al. 2019,
arXiv 1712.01504). They serve the error bar, which is not needed to seven digits, so low
precision mostly suffices beyond the eigenvectors. Whether it does is seen from the identity
tr(T_p S_p) = tr(T_q S_q) = tr((S_p S_q)^(1/2)), whose right side is known and whose left side the
tokens give (`mir.exact`). Float32 eigenvectors were tried: they miss the identity by a quarter of
the distance where covariances are only slightly ill-conditioned.

Shape suffixes: D hidden size, R and Q ranks of the two factors, K rank of the map.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from mir.blocks import Shape, gram, lower_times, multiplies_bfloat16
from mir.frechet import EPS, Distance, Gaussian, cholesky_factor, tall_side

LEAST_PIVOT = 1e-4


@dataclass(frozen=True, eq=False)
class OptimalMap:
    """The optimal map between two Gaussians as T = B B^T, in the dimensions' own order.

    factor_DK: B, in the type in which it is to be multiplied. shape: what of it is 0.
    """

    factor_DK: Tensor
    shape: Shape

    def to(self, dtype: torch.dtype) -> OptimalMap:
        """The same in another precision."""
        return OptimalMap(self.factor_DK.to(dtype), self.shape)


Maps = tuple[OptimalMap, OptimalMap]


def optimal_maps(p: Gaussian, q: Gaussian, distance: Distance) -> Iterator[Maps]:
    """From p to q and from q to p, which are inverse to each other where both are invertible.

    Several times the same, the cheapest first and the most exact last: to be taken as far as
    the identity above asks for. distance: measured with vectors.
    """
    squares_K, near_KK = distance.squares_K, distance.near_KK
    if p.lower and q.lower:
        assert squares_K is not None and near_KK is not None
        maps = _triangular(p, q, distance, squares_K, near_KK, torch.float32)
        if maps is not None:
            # Beside a massive channel bfloat16 was measured to miss, so it is not tried there.
            even = p.order_D is None and p.mean_D.device.type == "cpu"
            if even and multiplies_bfloat16():
                yield maps[0].to(torch.bfloat16), maps[1].to(torch.bfloat16)
            yield maps
        _, values_K, right_KK = torch.linalg.svd(distance.cross_RQ)
        squares_K, near_KK = values_K.square().flip(0), right_KK.T.flip(1)
        maps = _triangular(p, q, distance, squares_K, near_KK, torch.float64)
        if maps is not None:
            yield maps
    yield _between_deficient(p, q, distance)


def _triangular(
    p: Gaussian,
    q: Gaussian,
    distance: Distance,
    seen_K: Tensor,
    near_KK: Tensor,
    dtype: torch.dtype,
) -> Maps | None:
    """With triangular factors, from eigenvalues as the solver saw them and their vectors.

    With B = F_q V s^(-1/2) the trace of T_p S_p is the sum of v^T G v / s over eigenvectors v.
    Where v^T G v, which the solver gives as eigenvalue, exceeds the true one, that larger value
    is taken for s^2, or a small s would blow it up.
    """
    widest = distance.roots_K[-1].square()
    seen_K, true_K = seen_K / widest, distance.roots_K.square() / widest
    squares_K = torch.maximum(seen_K, true_K).clamp(min=EPS**2)
    # Scaled so that float32 holds it, whatever the unit of the tokens.
    factor_DD = (q.factor_DR / widest**0.25).to(dtype)
    to_q_DK = lower_times(factor_DD, (near_KK * squares_K.pow(-0.25)).to(dtype))
    map_DD = gram(_own(to_q_DK, p.order_D).T).double()
    to_q_DD = cholesky_factor(map_DD, least=LEAST_PIVOT if dtype == torch.float32 else None)
    if to_q_DD is None:
        return None
    to_q_DD = to_q_DD.to(dtype)
    identity = torch.eye(len(to_q_DD), dtype=dtype, device=to_q_DD.device)
    inverse_DD = torch.linalg.solve_triangular(to_q_DD, identity, upper=False)
    return OptimalMap(to_q_DD, "lower"), OptimalMap(inverse_DD.T, "upper")


def _between_deficient(p: Gaussian, q: Gaussian, distance: Distance) -> Maps:
    """Where a covariance is singular: each map lives in the other's range."""
    cross_RQ, squares_K, near = distance.cross_RQ, distance.squares_K, distance.near_KK
    if squares_K is None or near is None:
        nowhere = OptimalMap(p.factor_DR.new_zeros(len(p.factor_DR), 0), "full")
        return nowhere, nowhere
    tall = tall_side(cross_RQ)
    keep = squares_K > 4 * EPS * len(squares_K) * squares_K[-1]
    values_K, near = squares_K[keep].sqrt(), near[:, keep]
    far = tall @ (near / values_K)
    left, right = (near, far) if tall is not cross_RQ else (far, near)
    to_q = _own(q.factor_DR @ (right / values_K.sqrt()), q.order_D)
    to_p = _own(p.factor_DR @ (left / values_K.sqrt()), p.order_D)
    return OptimalMap(to_q, "full"), OptimalMap(to_p, "full")


def _own(rows_DK: Tensor, order_D: Tensor | None) -> Tensor:
    """Rows in the dimensions' own order."""
    return rows_DK if order_D is None else rows_DK[order_D.argsort()]
