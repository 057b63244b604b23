"""The command `mirsweep`: finds the verb, and turns every error into one line and an exit code.

Verbs are loaded when they are asked for, so that help and `plan` never wait for torch or Ray.
"""

from __future__ import annotations

from collections.abc import Iterator, MutableMapping
from importlib import import_module
from importlib.metadata import version
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from orchestrator.failures import shown_to_the_user

RUNNING, STEERING, LOOKING, SCORING, MENDING = "Run", "Steer", "Look", "Score", "Mend"
# verb: (module, function, panel in the help)
VERBS: dict[str, tuple[str, str, str]] = {
    "run": ("orchestrator.commands.run", "run", RUNNING),
    "plan": ("orchestrator.commands.plan", "plan", RUNNING),
    "train": ("orchestrator.commands.train", "train", RUNNING),
    "export": ("orchestrator.commands.export", "export", RUNNING),
    "data": ("orchestrator.commands.data", "data", RUNNING),
    "attach": ("orchestrator.commands.attach", "attach", RUNNING),
    "stop": ("orchestrator.commands.steer", "stop", STEERING),
    "pause": ("orchestrator.commands.steer", "pause", STEERING),
    "resume": ("orchestrator.commands.steer", "resume", STEERING),
    "extend": ("orchestrator.commands.steer", "extend", STEERING),
    "retry": ("orchestrator.commands.steer", "retry", STEERING),
    "enqueue": ("orchestrator.commands.steer", "enqueue", STEERING),
    "report": ("orchestrator.commands.report", "report", LOOKING),
    "status": ("orchestrator.commands.status", "status", LOOKING),
    "show": ("orchestrator.commands.show", "show", LOOKING),
    "logs": ("orchestrator.commands.logs", "logs", LOOKING),
    "replay": ("orchestrator.commands.replay", "replay", LOOKING),
    "list": ("orchestrator.commands.list_", "list_studies", LOOKING),
    "repair": ("orchestrator.commands.repair", "repair", MENDING),
    "gc": ("orchestrator.commands.gc", "gc", MENDING),
    "rebuild": ("orchestrator.commands.rebuild", "rebuild", MENDING),
    "score": ("orchestrator.commands.score", "score", SCORING),
    "compare": ("orchestrator.commands.compare", "compare", SCORING),
    "correlate": ("orchestrator.commands.correlate", "correlate", SCORING),
}
EPILOG = (
    "Exit codes: 0 done; 1 the sweep, a job or the cluster failed; 2 the recipe, the data or "
    "the command line is wrong; 70 a bug in mirsweep, with the path of a saved traceback; "
    "130 interrupted (run the same command again to go on)."
)


class _Verbs(MutableMapping[str, Any]):
    """Commands by name, each imported when it is first looked up."""

    def __init__(self) -> None:
        self._built: dict[str, Any] = {}

    def __getitem__(self, name: str) -> Any:
        if name not in self._built:
            module, function, panel = VERBS[name]
            single = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
            single.command(name, rich_help_panel=panel)(getattr(import_module(module), function))
            self._built[name] = typer.main.get_command(single)
        return self._built[name]

    def __setitem__(self, name: str, command: Any) -> None:
        self._built[name] = command

    def __delitem__(self, name: str) -> None:
        del self._built[name]

    def __iter__(self) -> Iterator[str]:
        return iter(VERBS)

    def __len__(self) -> int:
        return len(VERBS)


class _Mirsweep(TyperGroup):
    def __init__(self, **settings: Any) -> None:
        super().__init__(**settings)
        self.commands = _Verbs()

    def make_context(self, *args: Any, **settings: Any) -> Any:
        with shown_to_the_user():
            return super().make_context(*args, **settings)

    def invoke(self, ctx: Any) -> Any:
        with shown_to_the_user():
            return super().invoke(ctx)


app = typer.Typer(
    cls=_Mirsweep,
    epilog=EPILOG,
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"mirsweep {version('mirsweep')}")
        raise typer.Exit


@app.callback()
def _root(
    _version: Annotated[
        bool,
        typer.Option(
            "--version", help="Show the version and leave.", callback=_print_version, is_eager=True
        ),
    ] = False,
) -> None:
    """Find the best way to pre-train a vision-language model, judged by its MIR.

    Ray runs DeepSpeed variants, every run scores its own Modality
    Integration Rate, Optuna chooses what to try next, and MLflow
    remembers everything. Start with: mirsweep run RECIPE
    """


def main() -> None:
    """Entry point of the console script."""
    app()
