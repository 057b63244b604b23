"""The outcome of `correlate` as a table for the terminal and as figures for a page."""

from __future__ import annotations

from html import escape
from itertools import cycle
from pathlib import Path
from typing import TYPE_CHECKING

from jobs.files import written_whole
from orchestrator.correlate.outcome import Outcome, Point
from orchestrator.correlate.readings import MIR
from orchestrator.report import tables
from orchestrator.report.figures import Figure, axis, label, layout
from orchestrator.report.page import document, figure, note, section
from orchestrator.report.tables import cell
from orchestrator.views.text import number, percent, plus_minus
from sweeps.correlation import LEVEL, Correlation, Interval

if TYPE_CHECKING:
    from rich.table import Table

PAGE, PICTURE = "index.html", "correlate.png"
HEADS = ("training", "reading", "trials", "Spearman", "Kendall", "p")
# reading: colour of its line; named aggregates of MIR share a faint one.
COLOURS = {MIR: "accent", "validation loss": "other", "gap": "stop", "training loss": "muted"}


def rows(found: tuple[Correlation, ...], *, only_last: bool) -> list[tuple[str, ...]]:
    """A row a reading and time as text, in time; those without spread say so."""
    last = max((one.fraction for one in found), default=0.0)
    shown = [one for one in found if not only_last or one.fraction == last]
    return [
        (
            percent(one.fraction),
            one.name,
            str(one.n),
            interval(one.spearman),
            interval(one.kendall),
            "-" if one.p is None else f"{one.p:.3f}",
        )
        for one in shown
    ]


def interval(one: Interval | None) -> str:
    """'+0.52 [+0.10, +0.80]', or '-' where nothing varies."""
    if one is None:
        return "-"
    bounds = "" if one.low is None or one.high is None else f" [{one.low:+.2f}, {one.high:+.2f}]"
    return f"{one.value:+.2f}{bounds}"


def table(outcome: Outcome) -> Table:
    """All correlations, a block a time."""
    from rich.box import SIMPLE_HEAD
    from rich.table import Table

    made = Table(box=SIMPLE_HEAD, caption=f"intervals: {LEVEL:.0%} bootstrap over trials")
    for head in HEADS:
        made.add_column(head, justify="left" if head == "reading" else "right")
    before = ""
    for row in rows(outcome.found, only_last=False):
        if before and row[0] != before:
            made.add_section()
        before = row[0]
        made.add_row(*row, style="bold" if row[1] == MIR else "")
    return made


def within_lines(outcome: Outcome) -> list[str]:
    """A line for every choice that enough trials share."""
    return [
        f"within {one.setting} {one.choice}, {mir.n} trials: MIR {interval(mir.spearman)}"
        for one in outcome.within
        for mir in one.found
        if mir.name == MIR
    ]


def write_page(outcome: Outcome, folder: Path) -> Path:
    """Write the page with its two figures and tables; it fetches nothing."""
    verdict, _, figures = outcome.sentence.partition(": ")
    parts = [
        f'<header><p class="eyebrow">{escape(outcome.study)} · {len(outcome.points)} trials, '
        f"{escape(outcome.measure)}</p><h1>{escape(verdict)}</h1>"
        f"<p>{escape(figures[:1].upper() + figures[1:])}</p></header>",
        section(
            "MIR before, downstream score after",
            note(
                "One point a trial. A cross marks a trial whose MIR does not count. "
                + escape(beyond_note(outcome))
            ),
            figure(scatter(outcome)),
        ),
    ]
    if len({one.fraction for one in outcome.found}) > 1:
        text = "Rank correlation with the downstream score by when it was read; +1 is perfect."
        parts.append(section("From when on", note(text), figure(course(outcome))))
    if outcome.within:
        text = (
            "At the end of training, among trials that share one choice. Where a reading ranks "
            "them better than it ranks all, the choice may move the reading and not the score; "
            "with few trials it may also be chance."
        )
        body = [
            (f"{one.setting}: {one.choice}", *row[1:])
            for one in outcome.within
            for row in rows(one.found, only_last=True)
        ]
        table_ = _html_table(("choice", *HEADS[1:]), body)
        parts.append(section("Within one choice", note(text), table_))
    every = rows(outcome.found, only_last=False)
    parts.append(section("All correlations", _html_table(HEADS, every)))
    if outcome.counted:
        counted = rows(outcome.counted, only_last=True)
        parts.append(section("Among trials whose scores count", _html_table(HEADS, counted)))
    parts.append(section("The trials", _html_table(*_trials(outcome))))
    path = folder / PAGE
    with written_whole(path) as part:
        part.write_text(document(f"{outcome.study} - does MIR predict?", parts), encoding="utf-8")
    return path


def scatter(outcome: Outcome) -> Figure:
    """Final MIR against the downstream score."""
    groups = (
        ("counts", "@accent", "circle", [p for p in outcome.points if p.counted]),
        ("does not count", "@bad", "x", [p for p in outcome.points if not p.counted]),
    )
    data = [_cloud(name, colour, symbol, points) for name, colour, symbol, points in groups]
    cut = beyond(outcome)
    reach = {} if cut is None else {"range": list(cut[0])}
    return {
        "data": [one for one in data if one["x"]],
        "layout": layout(
            height=420,
            showlegend=True,
            legend={"orientation": "h", "y": 1.02, "yanchor": "bottom", "x": 0},
            margin={"l": 56, "r": 12, "t": 40, "b": 44},
            xaxis=axis("final MIR, lower is better", **reach),
            yaxis=axis(label(outcome.measure)),
        ),
    }


def beyond_note(outcome: Outcome) -> str:
    """Which trials leave the picture, in words; empty where none does."""
    cut = beyond(outcome)
    if cut is None:
        return ""
    return f"Beyond: {', '.join(f'trial {p.trial} at MIR {p.mir:.2f}' for p in cut[1])}."


def beyond(outcome: Outcome) -> tuple[tuple[float, float], list[Point]] | None:
    """From where to where to draw MIR, and the trials beyond; None to draw all.

    Of the trials with the highest MIR, at most a quarter, those are cut off without which the
    others fill more than twice as much of the picture.
    """
    ranked = sorted(outcome.points, key=lambda point: point.mir)
    for kept in range(len(ranked) - len(ranked) // 4, len(ranked)):
        low, high, gone = ranked[0].mir, ranked[kept - 1].mir, ranked[kept:]
        if high > low and gone[0].mir - low > 2 * (high - low):
            margin = 0.12 * (high - low)
            return (low - margin, high + margin), gone
    return None


def _cloud(name: str, colour: str, symbol: str, points: list[Point]) -> Figure:
    return {
        "type": "scatter", "mode": "markers", "name": name,
        "x": [p.mir for p in points], "y": [p.score for p in points],
        "error_x": {"array": [p.mir_error or 0 for p in points], "color": f"{colour}/0.4"},
        "error_y": {"array": [p.score_error or 0 for p in points], "color": f"{colour}/0.4"},
        "marker": {"color": colour, "size": 9, "symbol": symbol},
        "customdata": [p.trial for p in points],
        "hovertemplate": "trial %{customdata}<br>MIR %{x:.3f}<br>%{y:.3f}<extra></extra>",
    }  # fmt: skip


def course(outcome: Outcome) -> Figure:
    """Spearman of every reading over the training, with MIR's interval."""
    data: list[Figure] = []
    dashes = cycle(("dash", "dot", "dashdot"))
    for name, told in lines(outcome.found).items():
        x = [one.fraction for one in told]
        y = [one.spearman.value for one in told if one.spearman is not None]
        colour = f"@{COLOURS.get(name, 'faint')}"
        if name == MIR:
            data.append(_band(told, colour))
        data.append({
            "type": "scatter", "mode": "lines+markers", "name": label(name), "x": x, "y": y,
            "line": {
                "color": colour,
                "width": 3 if name == MIR else 1.6,
                "dash": "solid" if name in COLOURS else next(dashes),
            },
            "hovertemplate": f"{label(name)}<br>%{{x:.0%}}: %{{y:+.2f}}<extra></extra>",
        })  # fmt: skip
    return {
        "data": data,
        "layout": layout(
            height=420,
            showlegend=True,
            legend={"orientation": "h", "y": 1.02, "yanchor": "bottom", "x": 0},
            margin={"l": 56, "r": 12, "t": 60, "b": 44},
            xaxis=axis("share of the training", tickformat=".0%", rangemode="tozero"),
            yaxis=axis("Spearman with the downstream score", range=[-1.05, 1.05]),
        ),
    }


def lines(found: tuple[Correlation, ...]) -> dict[str, list[Correlation]]:
    """Correlations by reading, in time; perplexity ranks as the loss does and is left out."""
    told: dict[str, list[Correlation]] = {}
    for one in found:
        if one.spearman is not None and one.name != "perplexity":
            told.setdefault(one.name, []).append(one)
    return told


def band(told: list[Correlation]) -> list[tuple[float, float, float]]:
    """Share of training, lower and upper bound, where there are bounds."""
    found = []
    for one in told:
        if one.spearman and one.spearman.low is not None and one.spearman.high is not None:
            found.append((one.fraction, one.spearman.low, one.spearman.high))
    return found


def _band(told: list[Correlation], colour: str) -> Figure:
    edges = band(told)
    outline = [(x, high) for x, _, high in edges] + [(x, low) for x, low, _ in reversed(edges)]
    return {
        "type": "scatter", "mode": "lines", "fill": "toself", "fillcolor": f"{colour}/0.15",
        "line": {"width": 0}, "hoverinfo": "skip", "showlegend": False,
        "x": [x for x, _ in outline], "y": [y for _, y in outline],
    }  # fmt: skip


def _trials(outcome: Outcome) -> tuple[tuple[str, ...], list[tuple[str, ...]]]:
    names = sorted({name for point in outcome.points for name in point.downstream})
    ordered = sorted(outcome.points, key=lambda point: point.mir)
    heads = ("trial", "final MIR", "counts", *names)
    return heads, [
        (
            str(point.trial),
            plus_minus(point.mir, point.mir_error),
            "yes" if point.counted else "no",
            *(number(point.downstream.get(name)) for name in names),
        )
        for point in ordered
    ]


def _html_table(heads: tuple[str, ...], body: list[tuple[str, ...]]) -> str:
    kinds = ["" if head in ("reading", "counts", "choice") else "number" for head in heads]
    rows_ = (
        f"<tr>{''.join(cell(text, kind) for text, kind in zip(row, kinds, strict=True))}</tr>"
        for row in body
    )
    return tables.table(list(zip(heads, kinds, strict=True)), rows_)
