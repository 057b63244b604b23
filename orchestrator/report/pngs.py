"""The report's figures as PNG pictures, for a README, a chat or a paper."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jobs.files import written_whole
from orchestrator.report.importance import Importance, importances
from orchestrator.report.palette import LIGHT
from orchestrator.report.series import (
    Curve,
    Group,
    Panel,
    beyond_note,
    curves,
    panels,
    wide_layers,
    window,
)
from orchestrator.state import SweepView, TrialView
from orchestrator.views.standing import best_trial

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

DPI, _WIDTH, _BANDS = 160, 9.0, 40
_LINES: dict[Group, tuple[str, float, float]] = {
    # group: (colour, width, opacity)
    "complete": (LIGHT["other"], 1.2, 0.75),
    "open": (LIGHT["other"], 1.2, 0.75),
    "stopped": (LIGHT["stop"], 1.1, 0.7),
    "failed": (LIGHT["bad"], 1.1, 0.7),
    "best": (LIGHT["accent"], 2.8, 1.0),
}
_NAMES: dict[Group, str] = {
    "complete": "ran to the end",
    "open": "not ended",
    "stopped": "stopped early",
    "failed": "failed",
    "best": "best",
}


def write_pngs(view: SweepView, folder: Path) -> list[Path]:
    """Write every picture for which there is something to show; an older one is replaced."""
    best = best_trial(view)
    written = []
    with style():
        for name, figure in (
            ("mir", _mir(view)),
            ("layers", _layers(best)),
            ("mixture", _panels(panels(view, mixture=True), best)),
            ("settings", _panels(panels(view, mixture=False), best)),
            ("importance", _importance(importances(view))),
        ):
            path = folder / f"{name}.png"
            path.unlink(missing_ok=True)
            if figure is not None:
                with written_whole(path) as part:
                    figure.savefig(part, format="png", dpi=DPI)
                written.append(path)
    return written


@contextmanager
def style() -> Iterator[None]:
    """Within: matplotlib draws in the palette and type of our pictures."""
    from matplotlib import rc_context

    own: Any = {
        "font.size": 11,
        "font.family": "sans-serif",
        "text.color": LIGHT["text"],
        "axes.labelcolor": LIGHT["muted"],
        "axes.edgecolor": LIGHT["line"],
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.grid": True,
        "axes.axisbelow": True,
        "grid.color": LIGHT["line"],
        "grid.linewidth": 0.8,
        "xtick.color": LIGHT["muted"],
        "ytick.color": LIGHT["muted"],
        "legend.frameon": False,
        "figure.constrained_layout.use": True,
        # A `$` in the name of a source is a dollar sign and no mathematics.
        "text.parse_math": False,
    }
    with rc_context(own):
        yield


def _new(rows: int = 1, columns: int = 1, height: float = 4.8) -> tuple[Figure, list[Axes]]:
    # Figure and not pyplot: pyplot would keep every figure alive and pick a window system.
    from matplotlib.figure import Figure

    figure = Figure(figsize=(_WIDTH, height))
    axes = figure.subplots(rows, columns, squeeze=False, sharey=rows * columns > 1)
    return figure, list(axes.flat)


def _mir(view: SweepView) -> Figure | None:
    every = curves(view)
    if not every:
        return None
    figure, (axes,) = _new()
    named: set[str] = set()
    for curve in every:
        _curve(axes, curve, named, band=curve.group == "best" or len(every) <= _BANDS)
    for curve in every:
        _marks(axes, curve, named)
    _name_best(axes, every[-1])
    shown = window(every)
    if shown is not None:
        axes.set_ylim(shown.low, shown.high)
    axes.set_xlabel("\n".join(filter(None, ["samples seen", beyond_note(every)])))
    axes.set_ylabel("MIR, lower is better")
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:,.0f}")
    axes.legend(loc="lower left", bbox_to_anchor=(0, 1.0), ncols=6, handlelength=1.4,
                columnspacing=1.4, fontsize=10)  # fmt: skip
    return figure


def _curve(axes: Axes, curve: Curve, named: set[str], band: bool) -> None:
    colour, width, opacity = _LINES[curve.group]
    mir = [math.nan if value is None else value for value in curve.mir]
    axes.plot(
        curve.samples, mir, color=colour, linewidth=width, alpha=opacity, marker="o",
        markersize=3.5 if curve.group == "best" else 2, label=_once(_NAMES[curve.group], named),
    )  # fmt: skip
    if band:
        low = [m - e for m, e in zip(mir, curve.error, strict=True)]
        high = [m + e for m, e in zip(mir, curve.error, strict=True)]
        shade = 0.22 if curve.group == "best" else 0.10
        axes.fill_between(curve.samples, low, high, color=colour, alpha=shade, linewidth=0)


def _marks(axes: Axes, curve: Curve, named: set[str]) -> None:
    mir = [math.nan if value is None else value for value in curve.mir]
    away = [i for i, counted in enumerate(curve.counted) if not counted]
    if curve.group == "stopped" and curve.mir[-1] is not None:
        axes.plot(
            curve.samples[-1:], [curve.mir[-1]], linestyle="none", marker="s", markersize=6.5,
            color=LIGHT["stop"], label=_once("stopped here", named),
        )  # fmt: skip
    if away:
        axes.plot(
            [curve.samples[i] for i in away],
            [mir[i] for i in away],
            linestyle="none", marker="x", markersize=6, markeredgewidth=1.6,
            color=LIGHT["bad"], label=_once("does not count", named),
        )  # fmt: skip


def _name_best(axes: Axes, last: Curve) -> None:
    if last.group != "best" or last.mir[-1] is None:
        return
    axes.annotate(
        f"trial {last.trial}\n{last.mir[-1]:.2f}", (last.samples[-1], last.mir[-1]),
        xytext=(9, 0), textcoords="offset points", va="center", fontsize=10.5,
        color=LIGHT["accent"], fontweight="bold", annotation_clip=False,
    )  # fmt: skip


def _once(name: str, named: set[str]) -> str:
    """The name the first time, nothing afterwards: one entry a kind in the legend."""
    if name in named:
        return "_nolegend_"
    named.add(name)
    return name


def _layers(best: TrialView | None) -> Figure | None:
    if best is None or len(best.scores) < 2:
        return None
    from matplotlib.ticker import MaxNLocator

    figure, (axes,) = _new(height=3.6)
    for scored, name, colour in (
        (best.scores[0], "before", LIGHT["faint"]),
        (best.scores[-1], "after", LIGHT["accent"]),
    ):
        rows = scored.mir["layers"]
        axes.plot(
            [row["layer"] for row in rows], [row["distance"] for row in rows], marker="o",
            linewidth=2, color=colour, label=f"{name}, {scored.samples:,} samples",
        )  # fmt: skip
    if wide_layers(best):
        axes.set_yscale("log")
    else:
        axes.set_ylim(0, 1.06 * axes.get_ylim()[1])
    axes.set_xlabel(f"decoder layer of trial {best.number}")
    axes.set_ylabel("distance")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.legend(loc="lower left", bbox_to_anchor=(0, 1.0), ncols=2, handlelength=1.0)
    return figure


def _panels(shown: list[Panel], best: TrialView | None) -> Figure | None:
    if not shown:
        return None
    rows = -(-len(shown) // 4)
    columns = -(-len(shown) // rows)
    figure, axes = _new(rows, columns, height=2.7 * rows)
    for index, panel in enumerate(shown):
        own = axes[index]
        number = best.number if best else None
        colours = [LIGHT["accent" if n == number else "other"] for n in panel.trials]
        sizes = [70 if n == number else 28 for n in panel.trials]
        own.scatter(panel.x, panel.mir, c=colours, s=sizes, alpha=0.85, linewidth=0)
        own.set_xlabel(panel.name)
        own.margins(x=0.12)
        if panel.log:
            own.set_xscale("log")
        if panel.share:
            own.set_xlim(left=0)
            own.xaxis.set_major_formatter(lambda value, _: f"{100 * value:.0f} %")
        if index % columns == 0:
            own.set_ylabel("MIR")
    for unused in axes[len(shown) :]:
        unused.set_visible(False)
    return figure


def _importance(found: list[Importance]) -> Figure | None:
    if not found:
        return None
    shown = list(reversed(found[:16]))
    figure, (axes,) = _new(height=1.2 + 0.34 * len(shown))
    names = [item.name for item in shown]
    colours = [LIGHT["accent" if item.clear else "faint"] for item in shown]
    axes.barh(names, [item.share for item in shown], color=colours, height=0.6)
    axes.plot(
        [item.noise for item in shown], range(len(shown)), linestyle="none", marker="|",
        markersize=13, markeredgewidth=2, color=LIGHT["muted"], label="what noise reaches",
    )  # fmt: skip
    axes.xaxis.set_major_formatter(lambda value, _: f"{100 * value:.0f} %")
    axes.set_xlabel("share of the ranking by MIR that the setting explains by itself")
    axes.grid(visible=False, axis="y")
    axes.legend(loc="lower right")
    return figure
