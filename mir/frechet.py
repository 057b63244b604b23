"""Step 3 of MIR: the squared Frechet distance between two Gaussians, in float64.

A covariance is never multiplied with another one here. Each is held as a factor F with
S = F F^T, because then tr((S_p S_q)^(1/2)) is the nuclear norm of F_p^T F_q: no general matrix
square root, no complex numbers, and with fewer tokens than dimensions F is the tokens
themselves, so everything runs on the smaller side.

Shape suffixes: D hidden size, R and Q ranks of the two factors.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

EPS = torch.finfo(torch.float64).eps


@dataclass(frozen=True, eq=False)
class Gaussian:
    """Mean [D] and covariance factor [D, R] (covariance = factor @ factor.T), both float64."""

    mean_D: Tensor
    factor_DR: Tensor

    @property
    def trace(self) -> Tensor:
        """Sum of the variances, []."""
        return self.factor_DR.square().sum()


def psd_factor(cov_DD: Tensor) -> Tensor:
    """A factor F [D, R] of a positive semi-definite float64 matrix: F F^T = cov.

    Cholesky where it succeeds (R = D); else eigenvectors, with the eigenvalues that rounding
    made negative left out.
    """
    factor_DD, failed = torch.linalg.cholesky_ex(cov_DD)
    if not int(failed):
        return factor_DD
    values_D, vectors_DD = torch.linalg.eigh(cov_DD)
    keep = values_D > values_D[-1] * EPS * len(cov_DD)
    return vectors_DD[:, keep] * values_D[keep].sqrt()


def nuclear_norm(cross_RQ: Tensor) -> Tensor:
    """Sum of the singular values of a float64 matrix, [], to about 1e-10 of the largest.

    The eigenvalues of the smaller Gram matrix cost half as much as singular values but square
    the condition; their rounding error is estimated and, where it counts, the singular values
    are computed after all.
    """
    if 0 in cross_RQ.shape:
        return cross_RQ.new_zeros(())
    wide = cross_RQ.shape[0] < cross_RQ.shape[1]
    gram = cross_RQ @ cross_RQ.T if wide else cross_RQ.T @ cross_RQ
    values = torch.linalg.eigvalsh(gram)
    noise = EPS * values[-1] * 4
    roots = values.clamp(min=0).sqrt()
    error = (noise / roots.clamp(min=noise.sqrt())).sum()
    if float(error) > 1e-10 * float(roots.sum()):
        return torch.linalg.svdvals(cross_RQ).sum()
    return roots.sum()


def gaussian_distance(p: Gaussian, q: Gaussian) -> Tensor:
    """Squared Frechet distance, [], never below 0.

    What is less than rounding of the traces is 0, so that equal Gaussians are at distance 0.
    """
    cross_RQ = p.factor_DR.T @ q.factor_DR
    traces = p.trace + q.trace
    distance = (p.mean_D - q.mean_D).square().sum() + traces - 2 * nuclear_norm(cross_RQ)
    rounding = EPS * len(p.mean_D) * traces
    return torch.where(distance < rounding, torch.zeros_like(distance), distance)


def frechet_distance(mean_p: Tensor, cov_p: Tensor, mean_q: Tensor, cov_q: Tensor) -> Tensor:
    """Squared Frechet distance between two Gaussians.

    Shapes: means [D], covariances [D, D] positive semi-definite, result [].
    Units: squared activation after text-centric scaling. Computed in float64.
    Source: Dowson and Landau 1982.
    """
    p = Gaussian(mean_p.double(), psd_factor(cov_p.double()))
    q = Gaussian(mean_q.double(), psd_factor(cov_q.double()))
    return gaussian_distance(p, q)
