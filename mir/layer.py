"""What one layer contributes to MIR.

Shape suffixes: N tokens, D hidden size, P pairs.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from mir.errors import EmptyModalityError, MirError, NonFiniteError
from mir.frechet import gaussian_distance
from mir.moments import gaussian
from mir.outliers import median_row, outlier_mask
from mir.paper import paper_distance
from mir.report import Variant

Pairs = tuple[Tensor, Tensor]


@dataclass(frozen=True, kw_only=True, eq=False)
class LayerScore:
    """Everything that one layer contributes; holds no tokens, so it can be sent between ranks.

    distance: squared Frechet distance in units of squared scaled activation.
    clean_distance: the same without tokens of massive norm, None where fewer than two remain.
    influence_P: derivative of `distance` in the weight of each pair, float64 [P] on the host;
        sums to 0. None where tokens were not attributed to pairs or the variant has none.
    """

    layer: int
    distance: float
    clean_distance: float | None
    text_scale: float
    vision_tokens: int
    text_tokens: int
    vision_outliers: int
    text_outliers: int
    influence_P: Tensor | None = None


@torch.no_grad()
def score_layer(
    vision_ND: Tensor,
    text_ND: Tensor,
    *,
    layer: int,
    variant: Variant = "exact",
    pairs: Pairs | None = None,
    pair_count: int | None = None,
) -> LayerScore:
    """Score one layer's tokens; nothing is modified.

    vision_ND, text_ND: hidden states [Nv, D] and [Nt, D], any floating dtype.
    layer: 1-based, used in messages and the report.
    pairs: pair index of every vision row and every text row, integers in [0, pair_count).
    Raises EmptyModalityError, NonFiniteError or MirError, naming the layer.
    """
    _check_shapes(vision_ND, text_ND, layer)
    vision, text = vision_ND.float(), text_ND.float()
    norms_v, norms_t = _norms(vision, layer, "vision"), _norms(text, layer, "text")
    scale = _text_scale(norms_t, layer)
    out_v, out_t = outlier_mask(norms_v), outlier_mask(norms_t)
    if variant == "exact":
        distance = scale**2 * float(
            gaussian_distance(gaussian(vision, out_v), gaussian(text, out_t))
        )
    else:
        cleaned = [
            torch.where(out[:, None], median_row(x), x)
            for x, out in ((vision * scale, out_v), (text * scale, out_t))
        ]
        distance = paper_distance(cleaned[0], cleaned[1], fast=variant == "paper-fast")
    return LayerScore(
        layer=layer,
        distance=distance,
        clean_distance=distance,
        text_scale=scale,
        vision_tokens=len(vision),
        text_tokens=len(text),
        vision_outliers=int(out_v.sum()),
        text_outliers=int(out_t.sum()),
    )


def _check_shapes(vision_ND: Tensor, text_ND: Tensor, layer: int) -> None:
    for name, tokens in (("vision", vision_ND), ("text", text_ND)):
        if tokens.ndim != 2 or not tokens.is_floating_point():
            raise MirError(
                f"layer {layer}: {name} tokens must be floating point of shape [N, D], "
                f"not {tokens.dtype} {list(tokens.shape)}"
            )
        if len(tokens) == 0:
            raise EmptyModalityError(f"layer {layer}: there are no {name} tokens")
        if len(tokens) == 1:
            raise MirError(f"layer {layer}: one {name} token has no covariance; give at least two")
    if vision_ND.shape[1] != text_ND.shape[1]:
        raise MirError(
            f"layer {layer}: vision tokens have {vision_ND.shape[1]} dimensions, "
            f"text tokens {text_ND.shape[1]}"
        )


def _norms(tokens_ND: Tensor, layer: int, name: str) -> Tensor:
    norms_N = torch.linalg.vector_norm(tokens_ND, dim=1)
    if not bool(norms_N.isfinite().all()):
        raise NonFiniteError(f"layer {layer}: {name} tokens hold NaN or infinity")
    return norms_N


def _text_scale(norms_N: Tensor, layer: int) -> float:
    mean = float(norms_N.double().mean())
    if mean == 0:
        raise MirError(f"layer {layer}: all text tokens are zero, so their mean norm cannot be 1")
    return 1 / mean
