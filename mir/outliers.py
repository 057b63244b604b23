"""Step 2 of MIR: which tokens are outliers, what replaces them, and which norms are massive.

Shape suffixes: N tokens, D hidden size.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import torch
from torch import Tensor

SIGMAS = 3.0
MASSIVE = 10.0
ROUNDING = 1e-13
"""Share of the median below which norms are equal: float64 adds up D squares with an error under
1e-14, and one float32 digit of one of 4,096 channels moves the norm by 1e-11."""
COLUMNS = 64
"""Dimensions whose values are brought together at a time to find their medians."""
ROWS = 1024
"""Tokens whose values are brought there at a time."""


def outlier_mask(norms_N: Tensor) -> Tensor:
    """Tokens whose norm lies further than 3 standard deviations from the median norm.

    norms_N: L2 norms [N], N >= 2; returns bool [N]. The deviation is the unbiased one, the
    median is the lower one (`torch.median`). Scaling all norms changes nothing. Norms that
    differ only by the rounding of their own sum are equal (infra/decisions/0006).
    Source: Huang et al. 2024 (arXiv 2410.07167), section 3.
    """
    median = norms_N.median()
    return (norms_N - median).abs() > (SIGMAS * norms_N.std()).clamp(min=ROUNDING * median)


def massive_mask(norms_N: Tensor) -> Tensor:
    """Tokens whose norm is more than ten times the median norm; bool [N].

    A few tokens of such "massive activations" inflate the standard deviation so much that the
    3-sigma rule does not see them (Sun et al. 2024, arXiv 2402.17762).
    """
    return norms_N > MASSIVE * norms_N.median()


def median_row(tokens_ND: Tensor) -> Tensor:
    """The lower median of every dimension over all tokens, outliers included: [D], float32 or
    float64."""
    wide = torch.promote_types(tokens_ND.dtype, torch.float32)
    if tokens_ND.device.type != "cpu":
        return tokens_ND.to(wide).median(dim=0).values
    middle = (len(tokens_ND) - 1) // 2

    def of(columns_NC: Tensor) -> Tensor:
        # Faster than torch's median, which walks down the columns; equal to it. A few rows are
        # turned at a time because a column's next value would be far away.
        values_CN = torch.empty(columns_NC.shape[1], len(columns_NC), dtype=wide)
        for into, part in zip(values_CN.split(ROWS, 1), columns_NC.split(ROWS), strict=True):
            into.copy_(part.T)
        ordered_CN = values_CN.numpy()
        ordered_CN.partition(middle, axis=1)
        return torch.from_numpy(ordered_CN[:, middle].copy())

    with ThreadPoolExecutor(torch.get_num_threads()) as pool:
        return torch.cat(list(pool.map(of, tokens_ND.detach().split(COLUMNS, dim=1))))
