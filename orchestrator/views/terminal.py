"""The terminal, or a pipe in its place."""

from __future__ import annotations

from rich.console import Console

_PIPE_WIDTH = 160


def terminal() -> Console:
    """A console as wide as the terminal; a pipe, which has no width, gets room for whole lines."""
    console = Console()
    return console if console.is_terminal else Console(width=_PIPE_WIDTH)
