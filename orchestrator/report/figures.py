"""The page's interactive figures, as plotly's JSON. Text that users wrote is escaped here.

Colours are names of the palette's roles ('@accent', '@accent/0.2' with opacity); the page's script
puts in those of the light or the dark palette.
"""

from __future__ import annotations

import html
import math
from collections.abc import Sequence
from typing import Any

from orchestrator.report.importance import Importance
from orchestrator.report.series import Curve, Group, Panel, curves, panels, wide_layers, window
from orchestrator.state import SweepView, TrialView

Figure = dict[str, Any]
Values = list[float | int | str | None]

_STYLE: dict[Group, tuple[str, str, float, float]] = {
    # group: (label, colour, width, opacity)
    "complete": ("ran to the end", "@other", 1.4, 0.75),
    "open": ("not ended", "@other", 1.4, 0.75),
    "stopped": ("stopped early", "@stop", 1.2, 0.7),
    "failed": ("failed", "@bad", 1.2, 0.7),
    "best": ("best", "@accent", 3.0, 1.0),
}
_BANDS = 40  # beyond so many trials only the best keeps its band, or the page is one grey mass


def label(text: str) -> str:
    """User text for plotly, which reads a subset of HTML in every label."""
    return html.escape(text, quote=False)


def layout(**own: Any) -> Figure:
    """What all figures share."""
    base: Figure = {
        "margin": {"l": 56, "r": 12, "t": 12, "b": 44},
        "paper_bgcolor": "rgba(0,0,0,0)",
        "plot_bgcolor": "rgba(0,0,0,0)",
        "font": {"color": "@muted", "size": 13},
        "hoverlabel": {"bgcolor": "@panel", "bordercolor": "@line", "font": {"color": "@text"}},
        "showlegend": False,
        "height": 380,
    }
    return {**base, **own}


def axis(title: str = "", **own: Any) -> Figure:
    """An axis with light grid lines."""
    base: Figure = {
        "title": {"text": title, "standoff": 8},
        "gridcolor": "@line",
        "linecolor": "@line",
        "zeroline": False,
        "automargin": True,
    }
    return {**base, **own}


def mir_curves(view: SweepView) -> Figure:
    """MIR against samples for every trial, with error bands and marks for what does not count."""
    every = curves(view)
    banded = [c for c in every if c.group == "best" or len(every) <= _BANDS]
    data: list[Figure] = []
    for group in ("stopped", "failed", "open", "complete", "best"):
        chosen = [curve for curve in every if curve.group == group]
        if chosen:
            data.append(_band([c for c in banded if c.group == group], group))
            data.append(_lines(chosen, group))
    data += _marks(every)
    shown = window(every)
    scale = {} if shown is None else {"range": [shown.low, shown.high]}
    return {
        "data": data,
        "layout": layout(
            height=440,
            showlegend=True,
            legend={"orientation": "h", "y": 1.02, "yanchor": "bottom", "x": 0},
            margin={"l": 56, "r": 64, "t": 40, "b": 44},
            xaxis=axis("samples seen", rangemode="tozero", tickformat=",d"),
            yaxis=axis("MIR, lower is better", **scale),
            annotations=_names(every[-1:]),
        ),
    }


def _names(last: list[Curve]) -> list[Figure]:
    """The best trial's name and score at the end of its line."""
    return [
        {
            "x": curve.samples[-1], "y": curve.mir[-1], "xanchor": "left", "xshift": 8,
            "align": "left", "showarrow": False, "font": {"color": "@accent"},
            "text": f"<b>trial {curve.trial}<br>{curve.mir[-1]:.2f}</b>",
        }
        for curve in last
        if curve.group == "best"
    ]  # fmt: skip


def _lines(chosen: list[Curve], group: Group) -> Figure:
    name, colour, width, opacity = _STYLE[group]
    x: Values = []
    y: Values = []
    custom: list[list[float | int | None]] = []
    for curve in chosen:
        x += [*curve.samples, None]
        y += [*curve.mir, None]
        custom += [[curve.trial, error] for error in (*curve.error, None)]
    return {
        "type": "scatter", "x": x, "y": y, "customdata": custom, "name": name,
        "mode": "lines+markers", "opacity": opacity, "connectgaps": False,
        "line": {"color": colour, "width": width},
        "marker": {"color": colour, "size": 7 if group == "best" else 4},
        "hovertemplate": "trial %{customdata[0]}<br>%{x:,} samples<br>"
        "MIR %{y:.3f} ± %{customdata[1]:.3f}<extra></extra>",
    }  # fmt: skip


def _band(chosen: list[Curve], group: Group) -> Figure:
    x: Values = []
    y: Values = []
    for curve in chosen:
        points = [p for p in zip(curve.samples, curve.mir, curve.error, strict=True)
                  if p[1] is not None]  # fmt: skip
        upper = [(s, m + e) for s, m, e in points if m is not None]
        lower = [(s, m - e) for s, m, e in points if m is not None]
        outline = [*upper, *reversed(lower)]
        x += [*[s for s, _ in outline], None]
        y += [*[m for _, m in outline], None]
    _, colour, _, _ = _STYLE[group]
    return {
        "type": "scatter", "x": x, "y": y, "mode": "lines", "fill": "toself",
        "line": {"width": 0}, "hoverinfo": "skip", "showlegend": False,
        "fillcolor": f"{colour}/{0.22 if group == 'best' else 0.10}",
    }  # fmt: skip


def _marks(every: list[Curve]) -> list[Figure]:
    """Crosses on scores that do not count, squares where trials were stopped."""
    away = [
        (curve.samples[i], mir, curve.trial)
        for curve in every
        for i, mir in enumerate(curve.mir)
        if mir is not None and not curve.counted[i]
    ]
    ends = [
        (curve.samples[-1], curve.mir[-1], curve.trial)
        for curve in every
        if curve.group == "stopped" and curve.mir[-1] is not None
    ]
    marks = []
    if ends:
        marks.append(_points(ends, "stopped here", {"symbol": "square", "color": "@stop"}, 8))
    if away:
        cross = {"symbol": "x-thin", "line": {"color": "@bad", "width": 2}}
        marks.append(_points(away, "does not count", cross, 9))
    return marks


def _points(
    points: Sequence[tuple[int, float | None, int]], name: str, marker: Figure, size: int
) -> Figure:
    return {
        "type": "scatter", "mode": "markers", "name": name,
        "x": [x for x, _, _ in points], "y": [y for _, y, _ in points],
        "customdata": [trial for _, _, trial in points], "marker": {**marker, "size": size},
        "hovertemplate": f"trial %{{customdata}}<br>{name}: MIR %{{y:.3f}}<extra></extra>",
    }  # fmt: skip


def agreement(trials: list[TrialView], best: TrialView | None) -> Figure:
    """Final MIR against validation loss and against the gap, side by side."""
    readings = {
        "validation loss": [t.scores[-1].guard.validation_loss for t in trials],
        "gap": [t.scores[-1].guard.gap for t in trials],
    }
    y = [float(t.scores[-1].mir["mir"]) for t in trials]
    numbers = [t.number for t in trials]
    return grid([(name, x, y, numbers) for name, x in readings.items()], best, height=320)


def settings(view: SweepView, best: TrialView | None, *, mixture: bool) -> Figure:
    """Small multiples: each setting, or each source's weight, against the final MIR."""
    chosen = panels(view, mixture=mixture)
    return grid(
        [(p.name, list(p.x), list(p.mir), list(p.trials)) for p in chosen],
        best, kinds=chosen, height=270,
    )  # fmt: skip


def grid(
    cells: list[tuple[str, list[Any], list[float], list[int]]],
    best: TrialView | None,
    *,
    kinds: list[Panel] | None = None,
    height: int,
) -> Figure:
    """Scatter plots with one MIR axis. The page's script wraps them into rows that fit."""
    data: list[Figure] = []
    titles: list[str] = []
    axes: Figure = {}
    for index, (name, x, y, numbers) in enumerate(cells):
        end = "" if index == 0 else str(index + 1)
        colours = ["@accent" if best and n == best.number else "@other" for n in numbers]
        sizes = [12 if best and n == best.number else 8 for n in numbers]
        data.append({
            "type": "scatter", "mode": "markers", "x": x, "y": y, "customdata": numbers,
            "xaxis": f"x{end}", "yaxis": f"y{end}", "cliponaxis": False,
            "marker": {"color": colours, "size": sizes, "opacity": 0.85, "line": {"width": 0}},
            "hovertemplate": "trial %{customdata}<br>%{x:.4~g}<br>MIR %{y:.3f}<extra></extra>"
            if not any(isinstance(v, str) for v in x)
            else "trial %{customdata}<br>%{x}<br>MIR %{y:.3f}<extra></extra>",
        })  # fmt: skip
        own = _x_axis(kinds[index]) if kinds else {}
        axes[f"xaxis{end}"] = axis(label(name), **own)
        axes[f"yaxis{end}"] = axis("MIR", **({"matches": "y"} if end else {}))
        titles.append(label(name))
    return {"data": data, "layout": layout(**axes), "cells": len(cells), "cell_height": height}


def _x_axis(panel: Panel) -> Figure:
    if panel.share:
        return {"tickformat": ".0%", "rangemode": "tozero"}
    if panel.log:
        return {"type": "log", "dtick": 1, "exponentformat": "e"}
    if any(isinstance(value, str) for value in panel.x):
        return {"type": "category"}
    return {}


def layers(best: TrialView) -> Figure:
    """Distance of each layer before and after training."""
    data = []
    for scored, name, colour in (
        (best.scores[0], "before", "@faint"),
        (best.scores[-1], "after", "@accent"),
    ):
        rows = scored.mir["layers"]
        data.append({
            "type": "scatter", "mode": "lines+markers",
            "name": f"{name} ({scored.samples:,})",
            "x": [row["layer"] for row in rows],
            "y": [row["distance"] if math.isfinite(row["distance"]) else None for row in rows],
            "line": {"color": colour, "width": 2}, "marker": {"color": colour, "size": 8},
            "hovertemplate": "layer %{x}<br>distance %{y:.4~g}<extra></extra>",
        })  # fmt: skip
    scale: Figure = {"rangemode": "tozero"}
    if wide_layers(best):
        scale = {"type": "log", "dtick": 1, "exponentformat": "none"}
    return {
        "data": data,
        "layout": layout(
            height=320,
            showlegend=True,
            legend={"orientation": "h", "y": 1.02, "yanchor": "bottom", "x": 0},
            margin={"l": 56, "r": 12, "t": 40, "b": 44},
            xaxis=axis("decoder layer", dtick=1 if len(data[0]["x"]) <= 16 else None),
            yaxis=axis("distance", **scale),
        ),
    }


def importance_bars(found: list[Importance]) -> Figure:
    """Share of the ranking that each setting explains, with the level that noise reaches."""
    shown = list(reversed(found[:16]))
    names = [label(item.name) for item in shown]
    return {
        "data": [
            {
                "type": "bar", "orientation": "h", "y": names, "x": [i.share for i in shown],
                "marker": {"color": ["@accent" if i.clear else "@faint" for i in shown]},
                "customdata": [i.trials for i in shown],
                "hovertemplate": "%{y}<br>explains %{x:.0%} of the ranking, "
                "%{customdata} trials<extra></extra>",
            },
            {
                "type": "scatter", "mode": "markers", "y": names, "x": [i.noise for i in shown],
                "marker": {"symbol": "line-ns", "size": 16, "line": {"width": 2, "color": "@text"}},
                "hovertemplate": "noise reaches %{x:.0%}<extra></extra>",
            },
        ],
        "layout": layout(
            height=90 + 30 * len(shown),
            bargap=0.4,
            xaxis=axis("ranking explained", tickformat=".0%",
                       rangemode="tozero"),
            yaxis=axis("", type="category"),
            margin={"l": 20, "r": 12, "t": 12, "b": 44},
        ),
    }  # fmt: skip
