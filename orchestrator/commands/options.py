"""Arguments and options that several verbs share."""

from __future__ import annotations

import json
from typing import Annotated, Any

import typer

Study = Annotated[
    str, typer.Argument(help="Folder of a study, or its name below runs/.", metavar="STUDY")
]
TrialNumber = Annotated[int, typer.Argument(help="Number of the trial.", metavar="TRIAL")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON for programs.")]
AsLines = Annotated[bool, typer.Option("--json", help="Print lines of JSON for programs.")]


def print_json(value: dict[str, Any] | list[Any]) -> None:
    """JSON on stdout; NaN and infinity become null, because JSON has no word for them."""
    typer.echo(json.dumps(_finite(value), indent=2, allow_nan=False))


def json_line(value: dict[str, Any]) -> str:
    """One line of a stream of JSON."""
    return json.dumps(_finite(value), separators=(",", ":"), allow_nan=False)


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {str(key): _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    if isinstance(value, float) and (value != value or value in (float("inf"), float("-inf"))):
        return None
    return value
