"""Step 3 of MIR: the squared Frechet distance between two Gaussians, in float64.

A covariance is never multiplied with another one here. Each is held as a factor F with
S = F F^T, because then tr((S_p S_q)^(1/2)) is the nuclear norm of F_p^T F_q: no general matrix
square root, no complex numbers, and with fewer tokens than dimensions F is the tokens
themselves, so everything runs on the smaller side.

Shape suffixes: D hidden size, R and Q ranks of the two factors, K probes.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from mir.blocks import gram, lower_cross

EPS = torch.finfo(torch.float64).eps
TOLERANCE = 1e-8
PROBES = 16


@dataclass(frozen=True, eq=False)
class Gaussian:
    """Mean and covariance of one modality, float64.

    factor_DR: F [D, R] with covariance F F^T, in `order_D`.
    variances_D: diagonal of the covariance, in `order_D`.
    lower: whether F is square and lower triangular, which halves the work.
    noise: rounding error of a covariance entry relative to the two standard deviations. Where
        it is not 0 and `lower` is False, the covariance was too noisy and the factor is empty.
    order_D: the order of dimensions in the factor, None for their own. Two Gaussians that are
        compared share it; the mean keeps the own order.
    """

    mean_D: Tensor
    factor_DR: Tensor
    variances_D: Tensor
    lower: bool
    noise: float = 0.0
    order_D: Tensor | None = None

    @property
    def trace(self) -> Tensor:
        """Sum of the variances, []."""
        return self.variances_D.sum()


@dataclass(frozen=True, eq=False)
class Distance:
    """A squared Frechet distance and what its last term was computed from.

    value: never below 0; less than the rounding of the traces counts as 0.
    cross_RQ: F_p^T F_q, whose singular values are the last term.
    roots_K: its singular values, ascending.
    squares_K, near_KK: eigenvalues and vectors of the smaller of its Gram matrices, None where
        vectors were not asked for. Small eigenvalues may be less exact than `roots_K`.
    """

    value: float
    cross_RQ: Tensor
    roots_K: Tensor
    squares_K: Tensor | None = None
    near_KK: Tensor | None = None


def cholesky_factor(cov_DD: Tensor, least: float | None = None) -> Tensor | None:
    """The lower triangular factor of a float64 covariance (lower half read), or None where a
    dimension is, but for rounding, constant or a combination of those before it.

    least: smallest share of a variance that those before it may leave, None for rounding's.
    """
    factor_DD, failed = torch.linalg.cholesky_ex(cov_DD)
    if int(failed):
        return None
    pivots_D = factor_DD.diagonal().square() / cov_DD.diagonal()
    least = 8 * EPS * len(cov_DD) if least is None else least
    return factor_DD if float(pivots_D.min()) > least else None


def psd_factor(cov_DD: Tensor) -> tuple[Tensor, bool]:
    """A factor F [D, R] of a positive semi-definite float64 matrix, and whether it is lower
    triangular. Reads the lower half of `cov_DD` only.

    Cholesky where it is safe; else eigenvectors of what is left without constant dimensions,
    less the eigenvalues that are only rounding.
    """
    factor_DD = cholesky_factor(cov_DD)
    if factor_DD is not None:
        return factor_DD, True
    alive_D = cov_DD.diagonal() > 0
    if not bool(alive_D.any()):
        return cov_DD[:, :0], False
    values, vectors = torch.linalg.eigh(cov_DD[alive_D][:, alive_D])
    keep = values > values[-1] * EPS * len(values)
    factor_DR = cov_DD.new_zeros(len(cov_DD), int(keep.sum()))
    factor_DR[alive_D] = vectors[:, keep] * values[keep].sqrt()
    return factor_DR, False


def factor(cov_DD: Tensor, *, exact: bool) -> tuple[Tensor, bool]:
    """`psd_factor`; but of a covariance with rounding noise only Cholesky's, else an empty one."""
    if exact:
        return psd_factor(cov_DD)
    factor_DD = cholesky_factor(cov_DD)
    return (cov_DD[:, :0], False) if factor_DD is None else (factor_DD, True)


def measure(p: Gaussian, q: Gaussian, *, vectors: bool = False) -> Distance:
    """Squared Frechet distance between two Gaussians, with singular vectors on request.

    The eigenvalues of the smaller Gram matrix cost a fifth of the singular values but square
    the condition. Where their rounding could reach 1e-8 of the distance (nearly equal or nearly
    singular covariances) the singular values are computed after all.
    """
    known = float((p.mean_D - q.mean_D).square().sum() + p.trace + q.trace)
    cross_RQ = (
        lower_cross(p.factor_DR, q.factor_DR)
        if p.lower and q.lower
        else p.factor_DR.T @ q.factor_DR
    )
    if 0 in cross_RQ.shape:
        return Distance(known, cross_RQ, cross_RQ.new_zeros(0))
    gram_KK, determinant = gram(tall_side(cross_RQ)), _log_determinant(p, q)
    found = torch.linalg.eigh(gram_KK) if vectors else (None, None)

    def trusted(squares_K: Tensor) -> bool:
        value = known - 2 * float(squares_K.clamp(min=0).sqrt().sum())
        return 2 * _root_error(squares_K, determinant) <= TOLERANCE * value

    # A solver that finds vectors keeps less of the small eigenvalues than one that does not.
    squares_K = found[0]
    if squares_K is None or not trusted(squares_K):
        squares_K = torch.linalg.eigvalsh(gram_KK)
    exact = trusted(squares_K)
    roots_K = squares_K.clamp(min=0).sqrt() if exact else torch.linalg.svdvals(cross_RQ).flip(0)
    value = known - 2 * float(roots_K.sum())
    rounding = EPS * len(p.mean_D) * known
    return Distance(value if value > rounding else 0.0, cross_RQ, roots_K, *found)


def tall_side(cross_RQ: Tensor) -> Tensor:
    """The matrix or its transpose, whichever has no more columns than rows."""
    return cross_RQ.T if cross_RQ.shape[0] < cross_RQ.shape[1] else cross_RQ


def _log_determinant(p: Gaussian, q: Gaussian) -> float | None:
    if not (p.lower and q.lower):
        return None
    return 2 * float(sum(g.factor_DR.diagonal().log().sum() for g in (p, q)))


def _root_error(squares_K: Tensor, log_determinant: float | None) -> float:
    """Estimated rounding error of the sum of the roots of computed eigenvalues.

    A solver may err by EPS times the largest eigenvalue in each, which would ruin the roots of
    the small ones; in fact it is far better on the graded matrices that Cholesky factors give.
    The logarithm of the determinant, known from the factors, tells how good it was; errors of
    equal size and random sign are inferred from its deviation, with a factor 5 to be safe.
    """
    noise = 4 * EPS * squares_K[-1]
    if log_determinant is None or float(squares_K[0]) <= 0:
        return float((noise / squares_K.clamp(min=noise).sqrt()).sum())
    deviation = (squares_K.log().sum() - log_determinant).abs()
    error = deviation / squares_K.reciprocal().norm()
    return float(5 * error * squares_K.rsqrt().norm() / 2)


def rounding_error(p: Gaussian, q: Gaussian) -> float:
    """Estimated error of the distance that comes from rounding of the covariance entries.

    With exact variances and independent errors E_ij = noise * sqrt(S_ii S_jj) * normal beside
    them, the distance moves by
    tr((I - T) E) in first order and by tr(E S^-1 E) / 2 in second order, for each modality.
    Both need only triangular solves with a few random signs; the triangular map
    F_q [I 0] L_p^-1, which also carries p to q, stands in for the optimal map T.
    Infinite where the noise was too much for a Cholesky factor.
    """
    return _one_sided_error(p, q) + _one_sided_error(q, p)


def _one_sided_error(p: Gaussian, q: Gaussian) -> float:
    if p.noise == 0:
        return 0.0
    if not p.lower:
        return float("inf")
    deviations_D1 = p.variances_D.sqrt()[:, None]
    signs_DK = torch.randint(2, (len(deviations_D1), PROBES), generator=torch.Generator())
    signed_DK = 2 * signs_DK.to(deviations_D1) - 1
    probes_DK = deviations_D1 * signed_DK
    solved_DK = torch.linalg.solve_triangular(p.factor_DR, probes_DK, upper=False)
    second = 0.5 * p.noise**2 * float(p.trace * solved_DK.square().sum(dim=0).mean())
    moved_DK = q.factor_DR @ solved_DK[: q.factor_DR.shape[1]]
    mapped_DK = deviations_D1 * moved_DK
    diagonal_D1 = (mapped_DK * signed_DK).mean(dim=1, keepdim=True)
    first = (mapped_DK - diagonal_D1 * signed_DK).square().sum(dim=0).mean().sqrt()
    return p.noise * float(first) + second


def frechet_distance(mean_p: Tensor, cov_p: Tensor, mean_q: Tensor, cov_q: Tensor) -> Tensor:
    """Squared Frechet distance between two Gaussians.

    Shapes: means [D], covariances [D, D] positive semi-definite, result [].
    Units: squared activation after text-centric scaling. Computed in float64.
    Source: Dowson and Landau 1982.
    """
    p, q = (
        Gaussian(mean.double(), *_factor_and_variances(cov.double()))
        for mean, cov in ((mean_p, cov_p), (mean_q, cov_q))
    )
    return torch.tensor(measure(p, q).value, dtype=torch.float64)


def _factor_and_variances(cov_DD: Tensor) -> tuple[Tensor, Tensor, bool]:
    factor_DR, lower = psd_factor(cov_DD)
    return factor_DR, cov_DD.diagonal(), lower
