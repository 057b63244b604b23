"""The two distances of the paper's published code, as our own rendering of what they compute.

Both take float32 covariances of features that were scaled and cleaned in float32. They are kept
to compare with published figures, not to be trusted: see `fast_root`.

Shape suffixes: N tokens, D hidden size.
"""

from __future__ import annotations

import torch
from scipy.linalg import sqrtm
from torch import Tensor

from mir.errors import MirError

FAST_STEPS = 5


def accurate_root_trace(product_DD: Tensor) -> float:
    """Real part of the trace of the general matrix square root of a product of covariances."""
    return float(sqrtm(product_DD.cpu().numpy()).real.trace())


def fast_root_trace(product_DD: Tensor) -> float:
    """Trace of what the paper's default mode takes for the square root. It is none.

    The iteration Y <- (Y + Z^-1 A) / 2, Z <- (Z + Y^-1 A) / 2 starts at Y = A, Z = I, which is
    its own fixed point: in exact arithmetic the answer is A itself. In float32 the rounding of
    the inverses pushes it off, by 0.01 to 0.09 in MIR and differently for each number of
    threads where A is ill-conditioned.
    """
    y_DD, z_DD = product_DD, torch.eye(len(product_DD), device=product_DD.device)
    for _ in range(FAST_STEPS):
        y_DD = 0.5 * (y_DD + torch.linalg.inv(z_DD) @ product_DD)
        z_DD = 0.5 * (z_DD + torch.linalg.inv(y_DD) @ product_DD)
    return float(y_DD.trace())


def _moments(tokens_ND: Tensor) -> tuple[Tensor, Tensor]:
    mean_D = tokens_ND.mean(dim=0)
    centred_ND = tokens_ND - mean_D
    return mean_D, centred_ND.T @ centred_ND / (len(tokens_ND) - 1)


def paper_distance(vision_ND: Tensor, text_ND: Tensor, *, fast: bool) -> float:
    """The paper's distance of float32 features after scaling and outlier replacement.

    fast: its default mode instead of its accurate one. The result may be negative.
    Raises MirError where the fast mode meets a matrix that cannot be inverted.
    """
    mean_v, cov_v = _moments(vision_ND.float())
    mean_t, cov_t = _moments(text_ND.float())
    try:
        root = (fast_root_trace if fast else accurate_root_trace)(cov_v @ cov_t)
    except torch.linalg.LinAlgError as error:  # type: ignore[attr-defined]
        raise MirError(
            "the paper's fast mode is not defined here: a matrix that it inverts is singular "
            "(a constant dimension?). Use the variant 'exact'."
        ) from error
    gap = (mean_v - mean_t).square().sum()
    return float(gap + cov_v.trace() + cov_t.trace()) - 2 * root
