"""Moments of one modality's tokens, outliers replaced, without copying the tokens.

Shape suffixes: N tokens, D hidden size, R rank of a factor.
"""

from __future__ import annotations

import torch
from torch import Tensor

from mir.frechet import Gaussian, psd_factor
from mir.outliers import median_row


def gaussian(tokens_ND: Tensor, replaced_N: Tensor | None = None) -> Gaussian:
    """Mean and unbiased covariance of tokens [N, D], N >= 2; rows in `replaced_N` (bool [N])
    count as the row of per-dimension medians."""
    tokens = tokens_ND.double()
    if replaced_N is not None and bool(replaced_N.any()):
        tokens = torch.where(replaced_N[:, None], median_row(tokens), tokens)
    mean_D = tokens.mean(dim=0)
    centred_ND = tokens - mean_D
    count, size = centred_ND.shape
    if count <= size:
        return Gaussian(mean_D, centred_ND.T / (count - 1) ** 0.5)
    return Gaussian(mean_D, psd_factor(centred_ND.T @ centred_ND / (count - 1)))
