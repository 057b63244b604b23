"""The variant `exact`: the float64 Frechet distance of one layer, as cheaply as it stays exact.

Shape suffixes: N tokens, D hidden size, P pairs.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from mir.checks import Pairs
from mir.frechet import Distance, Gaussian, measure, rounding_error
from mir.influence import sum_by_pair, token_influence
from mir.maps import optimal_maps
from mir.moments import Moments, Roles, moments, widest_first

TOLERANCE = 2e-7
"""Largest estimated relative error of a distance at which float32 products are accepted."""
ACCURACY = 0.02
"""Share of the distance by which maps for the error bar may miss the trace of the root."""


@dataclass(frozen=True, eq=False)
class Modality:
    """Tokens [N, D] of any floating dtype, their float64 norms [N], and each token's role."""

    tokens_ND: Tensor
    norms_N: Tensor
    roles: Roles


@dataclass(frozen=True, eq=False)
class Outcome:
    """Distance, the same without massive tokens (None: too few left), influences by pair."""

    distance: float
    clean_distance: float | None
    influence_P: Tensor | None

    def scaled(self, scale: float) -> Outcome:
        """As if all features had been multiplied by `scale`."""
        square = scale**2
        return Outcome(
            square * self.distance,
            None if self.clean_distance is None else square * self.clean_distance,
            None if self.influence_P is None else square * self.influence_P,
        )


def exact(vision: Modality, text: Modality, pairs: Pairs | None, pair_count: int | None) -> Outcome:
    """Distance of unscaled tokens; influences include that of the text-centric scale."""
    wanted = pairs is not None
    outcome = None
    if torch.float64 not in (vision.tokens_ND.dtype, text.tokens_ND.dtype):
        outcome = _attempt(vision, text, torch.float32, wanted)
    if outcome is None:
        outcome = _attempt(vision, text, torch.float64, wanted)
    assert outcome is not None
    p, q, distance, clean = outcome
    if pairs is None or pair_count is None:
        return Outcome(distance.value, clean, None)
    of_vision, of_text = _influences(vision, text, p, q, distance)
    norms_N = text.norms_N
    of_text = of_text - 2 * distance.value * (norms_N / norms_N.mean() - 1) / len(norms_N)
    influence_P = sum_by_pair(of_vision, pairs[0], pair_count)
    influence_P += sum_by_pair(of_text, pairs[1], pair_count)
    return Outcome(distance.value, clean, influence_P)


def _influences(
    vision: Modality, text: Modality, p: Gaussian, q: Gaussian, distance: Distance
) -> tuple[Tensor, Tensor]:
    """Of every vision and text token, from the cheapest maps that are exact enough."""
    root, allowed = float(distance.roots_K.sum()), ACCURACY * distance.value
    for to_text, to_vision in optimal_maps(p, q, distance):
        v, t = vision, text
        of_vision, trace_v = token_influence(v.tokens_ND, v.norms_N, v.roles, (p, q), to_text)
        of_text, trace_t = token_influence(t.tokens_ND, t.norms_N, t.roles, (q, p), to_vision)
        if max(abs(trace_v - root), abs(trace_t - root)) <= allowed:
            break
    return of_vision, of_text


def _attempt(
    vision: Modality, text: Modality, dtype: torch.dtype, vectors: bool
) -> tuple[Gaussian, Gaussian, Distance, float | None] | None:
    """With products in `dtype`; None where its rounding could be felt."""
    whole_v, clean_v = moments(vision.tokens_ND, vision.roles, dtype)
    whole_t, clean_t = moments(text.tokens_ND, text.roles, dtype)
    found = _measured(whole_v, whole_t, vectors)
    if found is None:
        return None
    if clean_v is whole_v and clean_t is whole_t:
        return (*found, found[2].value)
    if clean_v is None or clean_t is None:
        return (*found, None)
    clean = _measured(clean_v, clean_t, False)
    return None if clean is None else (*found, clean[2].value)


def _measured(
    vision: Moments, text: Moments, vectors: bool
) -> tuple[Gaussian, Gaussian, Distance] | None:
    order_D = widest_first(vision, text)
    p, q = vision.gaussian(order_D), text.gaussian(order_D)
    error = rounding_error(p, q)
    if error == float("inf"):
        return None
    distance = measure(p, q, vectors=vectors)
    # Also true of NaN, where float32 products overflowed.
    if not error <= TOLERANCE * distance.value:
        return None
    return p, q, distance
