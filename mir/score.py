"""`score_layers`: features in, report out."""

from __future__ import annotations

import time
from collections.abc import Iterable

from torch import Tensor

from mir.combine import combine
from mir.layer import Pairs, score_layer
from mir.report import MirReport, Protocol, Variant


def score_layers(
    layers: Iterable[tuple[Tensor, Tensor]],
    variant: Variant = "exact",
    *,
    pairs: Pairs | None = None,
    protocol: Protocol | None = None,
) -> MirReport:
    """The Modality Integration Rate of captured hidden states; lower is better.

    layers: for every decoder layer in order, vision tokens [Nv, D] and text tokens [Nt, D] of
        all pairs together. Consumed one by one, so a generator never holds two layers.
    pairs: integer pair index of every vision row [Nv] and text row [Nt], the same in every
        layer; gives the standard error.
    protocol: how the features were taken; makes fingerprints meaningful.
    Raises MirError and its kinds, naming the layer. Never modifies its inputs.
    Source: Huang et al. 2024, arXiv 2410.07167.
    """
    started = time.perf_counter()
    count = None if pairs is None else 1 + int(max(index.max() for index in pairs))
    scores = [
        score_layer(vision, text, layer=number, variant=variant, pairs=pairs, pair_count=count)
        for number, (vision, text) in enumerate(layers, start=1)
    ]
    seconds = time.perf_counter() - started
    return combine(scores, variant=variant, protocol=protocol, seconds=seconds)
