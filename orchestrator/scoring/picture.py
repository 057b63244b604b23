"""Distances per layer as a picture, of one score or of several beside each other."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jobs.files import written_whole
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

    Several scores get a second panel with their differences from the first. warning: written
    across the top, for scores that should not be compared.
    """
    from matplotlib.figure import Figure

    several = len(scores) > 1
    with _style():
        figure = Figure(figsize=(8.0, 6.5 if several else 4.5), layout="constrained")
        panels = figure.subplots(
            2 if several else 1, sharex=True, squeeze=False, height_ratios=[3, 2][: 1 + several]
        )
        _distances(panels[0, 0], scores, labels)
        if several:
            _differences(panels[1, 0], scores, labels[0])
        panels[-1, 0].set_xlabel("decoder layer")
        if warning is not None:
            figure.suptitle(warning, color=LIGHT["bad"], fontsize=9, wrap=True)
        with written_whole(path) as part:
            figure.savefig(part, format=path.suffix[1:], dpi=160)


def _distances(axes: Axes, scores: Sequence[Score], labels: Sequence[str]) -> None:
    from matplotlib.ticker import MaxNLocator

    for score, label, colour in zip(scores, labels, _colours(len(scores)), strict=True):
        report = score.report
        name = f"{label}: MIR {plus_minus(report.mir, report.standard_error)} ({report.variant})"
        layers = [layer.layer for layer in report.layers]
        axes.plot(layers, report.per_layer, "o-", color=colour, markersize=4, label=name)
    _scale(axes, [distance for score in scores for distance in score.report.per_layer])
    axes.set_ylabel("squared Frechet distance")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.legend(frameon=False)


def _differences(axes: Axes, scores: Sequence[Score], first: str) -> None:
    """Of the layers that both have."""
    base = {layer.layer: layer.distance for layer in scores[0].report.layers}
    axes.axhline(0.0, color=LIGHT["muted"], linewidth=1.0)
    for score, colour in zip(scores[1:], _colours(len(scores))[1:], strict=True):
        common = [layer for layer in score.report.layers if layer.layer in base]
        gaps = [layer.distance - base[layer.layer] for layer in common]
        axes.plot([layer.layer for layer in common], gaps, "o-", color=colour, markersize=4)
    axes.set_ylabel(f"minus {first}")


def _scale(axes: Axes, distances: Sequence[float]) -> None:
    """Logarithmic where the distances span more than a decade, else linear from zero."""
    if 0 < 10 * min(distances) < max(distances):
        axes.set_yscale("log")
    else:
        axes.set_ylim(min(0.0, *distances), 1.08 * max(distances))


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
