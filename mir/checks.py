"""What a layer's tokens must be before they are scored; every message names the layer.

Shape suffixes: N tokens, D hidden size.
"""

from __future__ import annotations

import torch
from torch import Tensor

from mir.errors import EmptyModalityError, MirError, NonFiniteError

ROWS = 256
"""Rows that are widened at a time, few enough to stay in the processor's cache."""

Pairs = tuple[Tensor, Tensor]
"""Pair index of every vision row [Nv] and of every text row [Nt]."""


def check_tokens(vision_ND: Tensor, text_ND: Tensor, layer: int) -> None:
    """Two floating-point matrices of equal width with at least two rows each."""
    for name, tokens in (("vision", vision_ND), ("text", text_ND)):
        if tokens.ndim != 2 or not tokens.is_floating_point() or tokens.shape[-1] == 0:
            raise MirError(
                f"layer {layer}: {name} tokens must be floating point of shape [N, D], "
                f"not {tokens.dtype} {list(tokens.shape)}"
            )
        if len(tokens) == 0:
            raise EmptyModalityError(f"layer {layer}: there are no {name} tokens")
        if len(tokens) == 1:
            raise MirError(f"layer {layer}: one {name} token has no covariance; give two or more")
    if vision_ND.shape[1] != text_ND.shape[1]:
        raise MirError(
            f"layer {layer}: vision tokens have {vision_ND.shape[1]} dimensions, "
            f"text tokens {text_ND.shape[1]}; both must come from the same layer"
        )


def check_pairs(pairs: Pairs, tokens: tuple[int, int], count: int | None, layer: int) -> int:
    """The number of pairs, after checking that every row has an index below it."""
    for name, index, rows in zip(("vision", "text"), pairs, tokens, strict=True):
        if index.ndim != 1 or len(index) != rows or index.is_floating_point():
            raise MirError(
                f"layer {layer}: {rows} {name} tokens need {rows} integer pair indices, "
                f"not {index.dtype} {list(index.shape)}"
            )
    low = min(int(index.min()) for index in pairs)
    high = max(int(index.max()) for index in pairs)
    count = high + 1 if count is None else count
    if low < 0 or high >= count:
        raise MirError(f"layer {layer}: pair indices {low} to {high} must lie in 0 to {count - 1}")
    return count


def checked_norms(tokens_ND: Tensor, layer: int, name: str) -> Tensor:
    """L2 norms of the tokens, float64 [N]; raises NonFiniteError where one is not finite.

    In float64 because one massive channel, or a final norm without gains, makes norms differ only
    in their last float32 digits, and outliers are judged by those differences. Every row is added
    up for itself, so equal tokens have equal norms on any number of threads and ranks.
    """
    norms_N = torch.cat(
        [torch.linalg.vector_norm(rows_ND.double(), dim=1) for rows_ND in tokens_ND.split(ROWS)]
    )
    bad = int((~norms_N.isfinite()).sum())
    if bad:
        raise NonFiniteError(
            f"layer {layer}: {bad} of {len(norms_N)} {name} tokens hold NaN or infinity. "
            "A diverged model has no MIR."
        )
    return norms_N


def text_scale(norms_N: Tensor, layer: int) -> float:
    """Step 1 of MIR: the factor that brings the mean norm of the text tokens to 1."""
    mean = float(norms_N.mean())
    if mean == 0:
        raise MirError(f"layer {layer}: all text tokens are zero and cannot be scaled to norm 1")
    return 1 / mean
