"""Other ways to add up the layers, by name, beside the paper's sum.

The sum is carried by the layers with massive norms. `correlate` asks which of these predicts
best, so each report holds them all. All are on the scale of MIR: log10, lower is better.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from statistics import fmean, median

Aggregate = Callable[[Sequence[float]], float]


def log_of_sum(distances: Sequence[float]) -> float:
    """The paper's MIR: log10 of the sum."""
    return math.log10(math.fsum(distances))


def mean_of_logs(distances: Sequence[float]) -> float:
    """Mean of log10 of the distances: every layer counts alike."""
    return fmean(math.log10(d) for d in distances)


def log_of_median(distances: Sequence[float]) -> float:
    """log10 of the median distance: a few layers of massive norms do not count."""
    return math.log10(median(distances))


AGGREGATES: dict[str, Aggregate] = {"mean-of-logs": mean_of_logs, "median": log_of_median}
WITHOUT_MASSIVE = "sum-without-massive"


def aggregates(distances: Sequence[float], clean: Sequence[float | None]) -> dict[str, float]:
    """Every aggregate that is defined for these layers.

    distances: one a layer. clean: the same without tokens of massive norm, None where too few
    tokens remain. One that would take the logarithm of 0 or less is left out.
    """
    cleaned = [d for d in clean if d is not None]
    inputs = {name: (f, list(distances)) for name, f in AGGREGATES.items()}
    if len(cleaned) == len(clean):
        inputs[WITHOUT_MASSIVE] = (log_of_sum, cleaned)
    results: dict[str, float] = {}
    for name, (function, values) in inputs.items():
        try:
            results[name] = function(values)
        except ValueError:
            continue
    return results
