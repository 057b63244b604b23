"""Step 2 of MIR: which tokens are outliers, what replaces them, and which norms are massive.

Shape suffixes: N tokens, D hidden size.
"""

from __future__ import annotations

from torch import Tensor

SIGMAS = 3.0
MASSIVE = 10.0


def outlier_mask(norms_N: Tensor) -> Tensor:
    """Tokens whose norm lies further than 3 standard deviations from the median norm.

    norms_N: L2 norms [N], N >= 2; returns bool [N]. The deviation is the unbiased one, the
    median is the lower one (`torch.median`). Scaling all norms changes nothing.
    Source: Huang et al. 2024 (arXiv 2410.07167), section 3.
    """
    return (norms_N - norms_N.median()).abs() > SIGMAS * norms_N.std()


def massive_mask(norms_N: Tensor) -> Tensor:
    """Tokens whose norm is more than ten times the median norm; bool [N].

    A few tokens of such "massive activations" inflate the standard deviation so much that the
    3-sigma rule does not see them (Sun et al. 2024, arXiv 2402.17762).
    """
    return norms_N > MASSIVE * norms_N.median()


def median_row(tokens_ND: Tensor) -> Tensor:
    """The lower median of every dimension over all tokens, outliers included: [D]."""
    return tokens_ND.median(dim=0).values
