"""What one layer contributes to MIR.

Shape suffixes: N tokens, D hidden size, P pairs.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from mir.checks import Pairs as Pairs
from mir.checks import check_pairs, check_tokens, checked_norms, text_scale
from mir.errors import MirError, NonFiniteError
from mir.exact import Modality, Outcome, exact
from mir.moments import roles
from mir.paper import paper_distance
from mir.report import Variant


@dataclass(frozen=True, kw_only=True, eq=False)
class LayerScore:
    """Everything that one layer contributes; holds no tokens, so it can be sent between ranks.

    distance: squared Frechet distance in units of squared scaled activation.
    clean_distance: the same without tokens of massive norm, None where fewer than two remain.
    influence_P: derivative of `distance` in the weight of each pair, float64 [P] on the host;
        sums to 0. None where tokens were not attributed to pairs, and for the paper's variants.
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
    check_tokens(vision_ND, text_ND, layer)
    if pairs is not None:
        pair_count = check_pairs(pairs, (len(vision_ND), len(text_ND)), pair_count, layer)
    with torch.autocast(vision_ND.device.type, enabled=False):
        vision, text = _modality(vision_ND, layer, "vision"), _modality(text_ND, layer, "text")
        scale = text_scale(text.norms_N, layer)
        if variant == "exact":
            outcome = exact(vision, text, pairs, pair_count).scaled(scale)
        else:
            outcome = _paper(vision, text, scale, variant, layer)
    if not math.isfinite(outcome.distance):
        raise NonFiniteError(f"layer {layer}: the distance is {outcome.distance}, it overflowed")
    return LayerScore(
        layer=layer,
        distance=outcome.distance,
        clean_distance=outcome.clean_distance,
        text_scale=scale,
        vision_tokens=len(vision.norms_N),
        text_tokens=len(text.norms_N),
        vision_outliers=int(vision.roles.replaced_N.sum()),
        text_outliers=int(text.roles.replaced_N.sum()),
        influence_P=outcome.influence_P,
    )


def _modality(tokens_ND: Tensor, layer: int, name: str) -> Modality:
    # Only the mps device has no float64, which the distance needs.
    own_ND = tokens_ND.cpu() if tokens_ND.device.type == "mps" else tokens_ND
    norms_N = checked_norms(own_ND, layer, name)
    return Modality(own_ND, norms_N, roles(own_ND, norms_N))


def _paper(vision: Modality, text: Modality, scale: float, variant: Variant, layer: int) -> Outcome:
    """The paper cleans after scaling, in float32, and so does this."""
    scaled = [Modality(m.tokens_ND.float() * scale, m.norms_N, m.roles) for m in (vision, text)]
    cleaned_v, cleaned_t = (
        torch.where(m.roles.replaced_N[:, None], (m.roles.row_D * scale).float(), m.tokens_ND)
        for m in scaled
    )
    fast = variant == "paper-fast"
    try:
        distance = paper_distance(cleaned_v, cleaned_t, fast=fast)
        clean: float | None = distance
        if bool(vision.roles.massive_N.any() | text.roles.massive_N.any()):
            few_v, few_t = (
                cleaned[~m.roles.massive_N]
                for cleaned, m in ((cleaned_v, vision), (cleaned_t, text))
            )
            enough = min(len(few_v), len(few_t)) > 1
            clean = paper_distance(few_v, few_t, fast=fast) if enough else None
    except MirError as error:
        raise MirError(f"layer {layer}: {error}") from error
    return Outcome(distance, clean, None)
