"""The one place that turns an exception into what the user sees: one line and an exit code."""

from __future__ import annotations

import os
import shlex
import sys
import tempfile
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import typer
from typer.exceptions import TyperException

from mir.errors import MirsweepError

INTERRUPTED, BUG = 130, 70


def one_line(text: str) -> str:
    """Text without line breaks, as every message to the user is."""
    return " ".join(text.split())


def say_error(message: str) -> None:
    """Print one line on stderr, its head red where colours are shown."""
    head = typer.style("error:", fg=typer.colors.RED, bold=True)
    # NO_COLOR is a convention (no-color.org) that click does not follow by itself.
    colour = False if os.environ.get("NO_COLOR") else None
    typer.echo(f"{head} {one_line(message)}", err=True, color=colour)


def same_command() -> str:
    """The command line that was given, to be copied into a shell."""
    return shlex.join(["mirsweep", *sys.argv[1:]])


def save_traceback(error: BaseException) -> Path:
    """Write the traceback to a new file of the temporary folder and return its path."""
    handle, name = tempfile.mkstemp(prefix="mirsweep-traceback-", suffix=".txt")
    with os.fdopen(handle, "w", encoding="utf-8") as file:
        file.write("".join(traceback.format_exception(error)))
    return Path(name)


def _misused(error: TyperException) -> Exception:
    """A wrong command line, said in one line; typer would draw a box of five."""
    context, say = getattr(error, "ctx", None), getattr(error, "format_message", None)
    if say is None or type(error).__name__ == "NoArgsIsHelpError":  # which is the whole help
        return error
    command = "mirsweep" if context is None else context.command_path
    say_error(f"{command}: {one_line(say()).rstrip('.')}. `{command} -h` says what it takes")
    return typer.Exit(getattr(error, "exit_code", 2))


@contextmanager
def shown_to_the_user() -> Iterator[None]:
    """Leave with one line on stderr and the error's exit code instead of a traceback."""
    try:
        yield
    except (typer.Exit, typer.Abort):
        raise  # how typer itself leaves a command
    except TyperException as error:
        raise _misused(error) from error
    except MirsweepError as error:
        say_error(str(error))
        raise typer.Exit(error.exit_code) from error
    except KeyboardInterrupt as error:
        say_error("interrupted; nothing that was finished is lost")
        raise typer.Exit(INTERRUPTED) from error
    except BrokenPipeError:
        # The reader of our output has gone (`mirsweep ... | head`): nobody is left to tell.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise typer.Exit(0) from None
    except OSError as error:
        say_error(f"{error.filename or 'system'}: {error.strerror or error}")
        raise typer.Exit(1) from error
    except Exception as error:
        path = save_traceback(error)
        say_error(
            f"this is a bug in mirsweep: {type(error).__name__}: {error}. "
            f"Please report it with the traceback saved in {path}"
        )
        raise typer.Exit(BUG) from error
