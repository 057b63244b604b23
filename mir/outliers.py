"""Step 2 of MIR: which tokens are outliers, what replaces them, and which norms are massive.

Shape suffixes: N tokens, D hidden size, C some of its columns.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

Values = npt.NDArray[Any]

SIGMAS = 3.0
MASSIVE = 10.0
ROUNDING = 1e-13
"""Share of the median below which norms are equal: float64 adds up D squares with an error under
1e-14, and one float32 digit of one of 4,096 channels moves the norm by 1e-11."""
COLUMNS = 32
"""Dimensions whose values are brought together at a time to find their medians."""
ROWS = 256
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
    # Faster than torch's median, which walks down the columns; equal to it.
    half = tokens_ND.element_size() == 2
    values_ND = (tokens_ND.detach().view(torch.int16) if half else tokens_ND.detach()).numpy()
    of = partial(_order_statistics, place=(len(values_ND) - 1) // 2, half=half)
    parts = [values_ND[:, at : at + COLUMNS] for at in range(0, values_ND.shape[1], COLUMNS)]
    with ThreadPoolExecutor(torch.get_num_threads()) as pool:
        found_D = torch.from_numpy(np.concatenate(list(pool.map(of, parts))))
    return (found_D.view(tokens_ND.dtype) if half else found_D).to(wide)


def _order_statistics(values_NC: Values, place: int, *, half: bool) -> Values:
    """The value at this place of every column in rising order, [C].

    half: the values are the bits of half-precision numbers, and so is the result.
    """
    values_CN = np.empty(values_NC.shape[::-1], values_NC.dtype)
    # A few rows are turned at a time because a column's next value would be far away.
    for at in range(0, len(values_NC), ROWS):
        values_CN[:, at : at + ROWS] = values_NC[at : at + ROWS].T
    if half:
        _turn_negatives(values_CN)
    values_CN.partition(place, axis=1)
    found_C = values_CN[:, place].copy()
    if half:
        _turn_negatives(found_C)
    return found_C


def _turn_negatives(bits: Values) -> None:
    """Bits of half-precision numbers become integers in the numbers' order, and these the bits.

    They are sign and magnitude, so as integers negative numbers run backwards.
    """
    turned = bits >> 15
    turned &= 0x7FFF
    bits ^= turned
