"""Distances per layer as a picture, of one score or of several beside each other."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from orchestrator.report.palette import LIGHT, SOURCES
from orchestrator.scoring.stored import Score
from orchestrator.views.text import plus_minus

if TYPE_CHECKING:
    from matplotlib.axes import Axes

ENDINGS = (".png", ".svg", ".pdf")


def draw_layers(
    scores: Sequence[Score], labels: Sequence[str], path: Path, warning: str | None = None
) -> None:
    """Draw the squared Frechet distance of every layer, one line a score.

    warning: written across the top, for scores that should not be compared.
    """
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    with _style():
        figure = Figure(figsize=(8.0, 4.5), layout="constrained")
        axes = figure.add_subplot()
        for score, label, colour in zip(scores, labels, _colours(len(scores)), strict=True):
            report = score.report
            name = f"{label}: MIR {plus_minus(report.mir, report.standard_error)}"
            layers = [layer.layer for layer in report.layers]
            axes.plot(layers, report.per_layer, "o-", color=colour, markersize=4, label=name)
        _scale(axes, [distance for score in scores for distance in score.report.per_layer])
        axes.set_xlabel("decoder layer")
        axes.set_ylabel("squared Frechet distance")
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.legend(frameon=False)
        if warning is not None:
            figure.suptitle(warning, color=LIGHT["bad"], fontsize=9, wrap=True)
        figure.savefig(path, dpi=160)


def _scale(axes: Axes, distances: Sequence[float]) -> None:
    """Logarithmic where the distances span more than a decade, else linear from zero."""
    if 0 < 10 * min(distances) < max(distances):
        axes.set_yscale("log")
    else:
        axes.set_ylim(bottom=min(0.0, *distances))


def _colours(count: int) -> list[str]:
    return [LIGHT["accent"], *(SOURCES[1 + n % (len(SOURCES) - 1)] for n in range(count - 1))]


@contextmanager
def _style() -> Iterator[None]:
    from matplotlib import rc_context

    settings: Any = {
        "text.color": LIGHT["text"],
        "axes.labelcolor": LIGHT["muted"],
        "axes.edgecolor": LIGHT["line"],
        "axes.spines.top": False,
        "axes.spines.right": False,
        "xtick.color": LIGHT["muted"],
        "ytick.color": LIGHT["muted"],
        "axes.grid": True,
        "grid.color": LIGHT["line"],
        "figure.facecolor": LIGHT["page"],
    }
    with rc_context(settings):
        yield
