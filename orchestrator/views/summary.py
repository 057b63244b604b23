"""What is printed when a sweep has ended: leaderboard, best recipe, paths, commands."""

from __future__ import annotations

import shlex
import shutil
import sys
from pathlib import Path

from rich.text import Text

from orchestrator.earlier import transfers
from orchestrator.front import pareto
from orchestrator.ledger import ledger
from orchestrator.state import SweepView
from orchestrator.views.leaderboard import leaderboard
from orchestrator.views.standing import best_trial
from orchestrator.views.terminal import terminal
from orchestrator.views.text import duration, settings
from sweeps.secrets import without_password

_ROWS = 20


def print_summary(view: SweepView, folder: Path, best: Path | None, page: Path) -> None:
    """Print the end of a sweep to the terminal, or as plain text to a pipe."""
    console = terminal()
    console.print(leaderboard(view, limit=_ROWS))
    if len(view.trials) > _ROWS:
        console.print(f"and {len(view.trials) - _ROWS} more in the report", style="dim")
    console.print()
    console.print(Text(headline(view), style="bold"))
    rows = [
        *_cut_short(view, folder),
        *_front(view),
        *ledger(view, view.updated).lines(),
        ("report", str(page)),
    ]
    rows.append(("MLflow", mlflow_command(view, folder)))
    if best is not None:
        rows = [("settings", settings(_best_params(view))), *rows]
        rows.append(("train the best", f"{program('mirsweep')} train {shlex.quote(str(best))}"))
    for name, value in rows:
        # soft_wrap: a command that is broken over lines cannot be copied.
        console.print(Text.assemble((f"{name:<16}", "dim"), value), soft_wrap=True)


def _cut_short(view: SweepView, folder: Path) -> list[tuple[str, str]]:
    """The trials that a spent budget has paused, and how they go on."""
    left = sum(not trial.state.final for trial in view.trials.values())
    if not left:
        return []
    limits = view.spec.budget.model_dump(exclude={"trials"}, exclude_none=True)
    more = " ".join(f"--{name.replace('_', '-')} N" for name in limits)
    command = f"{program('mirsweep')} extend {shlex.quote(str(folder))} {more}"
    trials = "1 trial" if left == 1 else f"{left} trials"
    return [("cut short", f"{trials}; to go on: `{command}`, then the same `run`")]


def _front(view: SweepView) -> list[tuple[str, str]]:
    """The trials that nobody beats in every objective, and how earlier studies rank this one's."""
    spec, rows = view.spec.study, []
    if on_front := pareto(view):
        names = " and ".join([spec.objective, *spec.also])
        rows.append(("Pareto front", f"of {names}: trials {', '.join(map(str, on_front))}"))
    return rows + [("warm start", str(found)) for found in transfers(view)]


def _best_params(view: SweepView) -> dict[str, float | int | str]:
    best = best_trial(view)
    return best.params if best else {}


def headline(view: SweepView) -> str:
    """What the sweep found, in one sentence."""
    best = best_trial(view)
    took = f"{len(view.trials)} trials in {duration(view.elapsed)}"
    if best is None:
        return f"{took}: none finished with a score that counts"
    before, after = best.scores[0].mir["mir"], best.scores[-1].mir["mir"]
    return f"{took}: trial {best.number} is best, MIR {before:.2f} → {after:.2f}"


def mlflow_command(view: SweepView, folder: Path) -> str:
    """How to see this sweep's runs in MLflow: a command, or a server's own address."""
    from orchestrator.trackers.mlflow_tracker import tracking_uri

    uri = without_password(tracking_uri(view.spec, folder))
    if uri.startswith(("http://", "https://")):
        return uri
    return f"{program('mlflow')} ui --backend-store-uri {shlex.quote(uri)}"


def program(name: str) -> str:
    """How to call a program of this environment, so that the line can be pasted as it stands.

    Its bare name where the shell finds it, else its path: nobody need activate an environment.
    """
    path = Path(sys.executable).parent / name
    if shutil.which(name) is not None or not path.exists():
        return name
    here = Path.cwd()
    return shlex.quote(str(path.relative_to(here) if path.is_relative_to(here) else path))
