"""From the layers' parts to the report: the log of the sum, shares, aggregates, error bar."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import torch

from mir.aggregates import aggregates
from mir.errors import MirError
from mir.layer import LayerScore
from mir.report import LayerReport, MirReport, Protocol, Variant


def combine(
    scores: Sequence[LayerScore],
    *,
    variant: Variant,
    protocol: Protocol | None = None,
    seconds: float = 0.0,
) -> MirReport:
    """The report of a model from the scores of its layers, in the order given.

    protocol: how the features were taken; `variant` and `layers` are filled in from the scores.
    Raises MirError where there is no layer, or the sum of the distances is not positive: the
    modalities are identical in every layer, or a paper variant went below zero.
    """
    if not scores:
        raise MirError("no layers were given, so there is nothing to score")
    distances = [score.distance for score in scores]
    total = math.fsum(distances)
    if not total > 0:
        raise MirError(
            f"the layer distances sum to {total:g}, so their logarithm is not defined "
            f"(variant {variant}; 0 means that both modalities are identical in every layer)"
        )
    return MirReport(
        mir=math.log10(total),
        standard_error=standard_error(scores, total),
        protocol=replace(
            protocol or Protocol(variant=variant),
            variant=variant,
            layers=tuple(score.layer for score in scores),
        ),
        layers=tuple(_layer_report(score, total) for score in scores),
        aggregates=aggregates(distances, [score.clean_distance for score in scores]),
        seconds=seconds,
    )


def standard_error(scores: Sequence[LayerScore], total: float) -> float | None:
    """Standard error of log10 of `total` over pairs; None unless every layer has influences.

    The infinitesimal jackknife over P pairs: sqrt(P / (P - 1) * sum of squared influences).
    """
    influences = [score.influence_P for score in scores if score.influence_P is not None]
    if len(influences) < len(scores) or len(influences[0]) < 2:
        return None
    influence_P = torch.stack(influences).sum(dim=0) / (total * math.log(10))
    pairs = len(influence_P)
    return math.sqrt(pairs / (pairs - 1) * float(influence_P.square().sum()))


def _layer_report(score: LayerScore, total: float) -> LayerReport:
    return LayerReport(
        layer=score.layer,
        distance=score.distance,
        share=score.distance / total,
        text_scale=score.text_scale,
        vision_tokens=score.vision_tokens,
        text_tokens=score.text_tokens,
        vision_outliers=score.vision_outliers,
        text_outliers=score.text_outliers,
    )
