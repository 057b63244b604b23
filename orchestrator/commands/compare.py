"""`mirsweep compare`: scores beside each other, layer by layer."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mir.errors import ProtocolError
from mir.report import MirReport
from orchestrator.commands.options import AsJson, print_json
from orchestrator.scoring.picture import ENDINGS, draw_layers
from orchestrator.scoring.stored import Score, check_writable, read_score
from orchestrator.views.text import number, plus_minus

if TYPE_CHECKING:
    from rich.table import Table


def compare(
    scores: Annotated[
        list[Path],
        typer.Argument(
            help="Two or more reports of mirsweep score --json.", metavar="A.json B.json"
        ),
    ],
    across_protocols: Annotated[
        bool,
        typer.Option("--across-protocols", help="Compare scores that are not comparable."),
    ] = False,
    plot: Annotated[
        Path | None, typer.Option(help="Draw distances by layer here (.png, .svg or .pdf).")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Compare scores with the first one, layer by layer."""
    if len(scores) < 2:
        raise typer.BadParameter("give at least two reports", param_hint="A.json B.json")
    check_writable("--plot", plot, ENDINGS)
    read = [read_score(path) for path in scores]
    warning = _protocol_warning(scores, read, across_protocols)
    if warning is not None:
        typer.echo(f"warning: {warning}", err=True)

    labels = _labels(scores)
    if plot is not None:
        draw_layers(read, labels, plot, warning)
    if as_json:
        print_json(_facts(scores, read, warning))
        return
    _show(labels, read)
    if plot is not None:
        typer.echo(f"picture: {plot}")


def _facts(paths: Sequence[Path], scores: Sequence[Score], warning: str | None) -> dict[str, Any]:
    """Every score with its difference from the first, as a whole and by layer."""
    first = scores[0].report
    base = {layer.layer: layer.distance for layer in first.layers}
    rows = [
        {
            "path": str(path),
            "model": score.model,
            "mir": score.report.mir,
            "standard_error": score.report.standard_error,
            "variant": score.report.variant,
            "fingerprint": score.report.fingerprint,
            "difference": score.report.mir - first.mir,
            "layers": [
                {
                    "layer": layer.layer,
                    "distance": layer.distance,
                    "difference": layer.distance - base[layer.layer]
                    if layer.layer in base
                    else None,
                }
                for layer in score.report.layers
            ],
        }
        for path, score in zip(paths, scores, strict=True)
    ]
    return {"warning": warning, "scores": rows}


def _show(labels: Sequence[str], read: Sequence[Score]) -> None:
    from rich.console import Console

    for label, score in zip(labels, read, strict=True):
        report = score.report
        typer.echo(
            f"{label}: {score.model}: MIR {plus_minus(report.mir, report.standard_error)}"
            f"{_against(report, read[0].report)} ({report.variant}, {report.fingerprint})"
        )
    Console().print(_table(labels, [score.report for score in read]))


def _protocol_warning(paths: Sequence[Path], scores: Sequence[Score], allowed: bool) -> str | None:
    """What differs, where that was allowed; ProtocolError where it was not."""
    for path, score in zip(paths[1:], scores[1:], strict=True):
        try:
            scores[0].report.require_comparable(score.report)
        except ProtocolError as error:
            if not allowed:
                raise ProtocolError(
                    f"{paths[0]} and {path}: {error}; score both alike, or add --across-protocols"
                ) from error
            return f"{paths[0].name} and {path.name} do not compare: {error}"
    return None


def _labels(paths: Sequence[Path]) -> list[str]:
    """File names without ending, with their folders where those alone are not unique."""
    stems = [path.stem for path in paths]
    if len(set(stems)) == len(stems):
        return stems
    return [str(path.with_suffix("")) for path in paths]


def _against(report: MirReport, first: MirReport) -> str:
    return "" if report is first else f" ({report.mir - first.mir:+.3f})"


def _table(labels: Sequence[str], reports: Sequence[MirReport]) -> Table:
    from rich.box import SIMPLE_HEAD
    from rich.table import Table

    table = Table(box=SIMPLE_HEAD)
    table.add_column("layer", justify="right")
    table.add_column(labels[0], justify="right")
    for label in labels[1:]:
        table.add_column(label, justify="right")
        table.add_column(f"{label} - {labels[0]}", justify="right")
    by_layer = [{layer.layer: layer.distance for layer in report.layers} for report in reports]
    for layer in sorted(set().union(*by_layer)):
        first = by_layer[0].get(layer)
        row = [str(layer), number(first)]
        for distances in by_layer[1:]:
            other = distances.get(layer)
            difference = None if first is None or other is None else other - first
            row += [number(other), number(difference)]
        table.add_row(*row)
    return table
