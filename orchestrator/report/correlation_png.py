"""The outcome of `correlate` as one picture: points on the left, the course on the right."""

from __future__ import annotations

from itertools import cycle
from pathlib import Path
from typing import TYPE_CHECKING

from jobs.files import written_whole
from orchestrator.correlate.outcome import Outcome
from orchestrator.correlate.readings import MIR
from orchestrator.report.correlation import COLOURS, PICTURE, band, beyond, beyond_note, lines
from orchestrator.report.palette import LIGHT
from orchestrator.report.pngs import DPI, style

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_DASHES = ("--", ":", "-.")  # for readings without a colour of their own


def write_picture(outcome: Outcome, folder: Path) -> Path:
    """Write the picture and return its path."""
    from matplotlib.figure import Figure

    path = folder / PICTURE
    with style():
        figure = Figure(figsize=(11.5, 5.0))
        left, right = figure.subplots(1, 2)
        _points(left, outcome)
        _course(right, outcome)
        with written_whole(path) as part:
            figure.savefig(part, format="png", dpi=DPI)
    return path


def _points(axes: Axes, outcome: Outcome) -> None:
    for counted, name, colour, marker in (
        (True, "MIR counts", LIGHT["accent"], "o"),
        (False, "MIR does not count", LIGHT["bad"], "x"),
    ):
        points = [point for point in outcome.points if point.counted is counted]
        if not points:
            continue
        axes.errorbar(
            [p.mir for p in points], [p.score for p in points],
            xerr=[p.mir_error or 0.0 for p in points],
            yerr=[p.score_error or 0.0 for p in points],
            linestyle="none", marker=marker, markersize=6, color=colour, ecolor=LIGHT["line"],
            label=name,
        )  # fmt: skip
        for point in points:
            axes.annotate(
                str(point.trial), (point.mir, point.score), xytext=(5, 4),
                textcoords="offset points", fontsize=8.5, color=LIGHT["muted"],
            )  # fmt: skip
    cut = beyond(outcome)
    if cut is not None:
        axes.set_xlim(cut[0])
    axes.set_xlabel("\n".join(filter(None, ["final MIR, lower is better", beyond_note(outcome)])))
    axes.set_ylabel(outcome.measure)
    axes.legend(loc="lower left", bbox_to_anchor=(0, 1.0), ncols=2, fontsize=9)


def _course(axes: Axes, outcome: Outcome) -> None:
    axes.axhline(0, color=LIGHT["muted"], linewidth=0.8)
    dashes = cycle(_DASHES)
    for name, told in lines(outcome.found).items():
        colour = LIGHT[COLOURS.get(name, "faint")]
        if name == MIR:
            edges = band(told)
            axes.fill_between(
                [x for x, _, _ in edges], [low for _, low, _ in edges],
                [high for _, _, high in edges], color=colour, alpha=0.15, linewidth=0,
            )  # fmt: skip
        values = [one.spearman.value for one in told if one.spearman is not None]
        axes.plot(
            [one.fraction for one in told], values, color=colour, marker="o", label=name,
            markersize=4, linewidth=2.8 if name == MIR else 1.4,
            linestyle="-" if name in COLOURS else next(dashes),
        )  # fmt: skip
    axes.set_ylim(-1.05, 1.05)
    axes.set_xlabel("share of the training")
    axes.set_ylabel("Spearman with the downstream score")
    axes.xaxis.set_major_formatter(lambda value, _: f"{100 * value:.0f} %")
    if lines(outcome.found):
        axes.legend(loc="lower left", bbox_to_anchor=(0, 1.0), ncols=3, fontsize=9)
