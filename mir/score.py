"""`score_layers`: features in, report out.

What happens at the edges, decided once:

identical modalities        distance 0, exactly; a sum of 0 over all layers is a MirError, since
                            its logarithm would win every comparison
a layer at 0 or below       `mean-of-logs` is left out of the aggregates
no token; one token         EmptyModalityError; MirError (one token has no unbiased covariance)
NaN or infinity             NonFiniteError with layer, modality and number of tokens
fewer tokens than D         the same distance through the smaller side; few tokens bias it upwards
constant dimension          no variance, only its mean counts; `paper-fast` inverts a singular
                            matrix there and is a MirError
massive channel or tokens   no loss of the others: widest channels first, massive tokens in float64
float16, bfloat16           widened to float32 first; float64 stays; autocast does not reach in
"""

from __future__ import annotations

import time
from collections.abc import Iterable

from torch import Tensor

from mir.combine import combine
from mir.layer import LayerScore, Pairs, score_layer
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
    scores: list[LayerScore] = []
    left = iter(layers)
    # Not a loop: its variables would keep a layer while the next one is made.
    while (layer := next(left, None)) is not None:
        scores.append(score_layer(*layer, layer=len(scores) + 1, variant=variant, pairs=pairs))
        del layer
    seconds = time.perf_counter() - started
    return combine(scores, variant=variant, protocol=protocol, seconds=seconds)
