"""The live view: one line a trial, redrawn in place while the sweep runs."""

from __future__ import annotations

import time
from types import TracebackType

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.markup import escape
from rich.progress_bar import ProgressBar
from rich.rule import Rule
from rich.table import Table
from rich.text import Text

from orchestrator.state import SweepView, TrialState, TrialView
from orchestrator.views.leaderboard import ending, mir_text, state_text
from orchestrator.views.standing import best_trial, elapsed, finished, seconds_left
from orchestrator.views.text import duration, number, percent, plus_minus, settings

_HEADER_LINES, _ROOM_FOR_BARS = 7, 110
_FIRST = {TrialState.RUNNING: 0, TrialState.PREEMPTED: 1, TrialState.PAUSED: 1}


def render(view: SweepView, now: float, width: int = 120, height: int = 40) -> RenderableType:
    """The whole picture at time `now`, cut to `height` lines: open trials stay, old ones go.

    Where `width` leaves little room for the reasons, progress is a percentage without its bar.
    """
    room = max(3, height - _HEADER_LINES)
    shown = _shown(view, room)
    hidden = len(view.trials) - len(shown)
    parts: list[RenderableType] = [_header(view, now), _best_line(view), Rule(style="dim")]
    parts.append(_table(shown, bars=width >= _ROOM_FOR_BARS))
    if hidden:
        parts.append(Text(f"and {hidden} more that ended earlier", style="dim"))
    if view.note:
        parts.append(Text(view.note, style="yellow"))
    return Group(*parts)


def _shown(view: SweepView, room: int) -> list[TrialView]:
    def key(trial: TrialView) -> tuple[int, float]:
        if not trial.state.final:
            return _FIRST.get(trial.state, 2), trial.number
        return 3, -(trial.ended or 0.0)

    kept = sorted(view.trials.values(), key=key)[:room]
    return sorted(kept, key=lambda trial: trial.number)


def _header(view: SweepView, now: float) -> Text:
    trials = view.trials.values()
    running = sum(trial.state is TrialState.RUNNING for trial in trials)
    stopped = sum(trial.state is TrialState.PRUNED for trial in trials)
    failed = sum(trial.state is TrialState.FAILED for trial in trials)
    facts = [f"{len(finished(view))}/{view.spec.budget.trials} trials finished"]
    facts += [f"{running} running"] if running else []
    facts += [f"{stopped} stopped early"] if stopped else []
    frozen = sum(trial.frozen for trial in trials)
    paused = sum(trial.state is TrialState.PAUSED for trial in trials) - frozen
    facts += [f"{paused} paused"] if paused else []
    facts += [f"{frozen} paused by a rule"] if frozen else []
    facts += [f"{failed} failed"] if failed else []
    facts.append(f"{duration(elapsed(view, now))} so far")
    left = seconds_left(view, now)
    if view.ended is None:
        facts.append("time left: after the first trial" if left is None else _left(left))
    return Text.assemble((view.spec.name, "bold"), "   ", " · ".join(facts))


def _left(seconds: float) -> str:
    return "almost done" if seconds < 5 else f"about {duration(seconds)} left"


def _best_line(view: SweepView) -> Text:
    best = best_trial(view)
    if best is None:
        return Text("best so far: no trial has finished with a score that counts", style="dim")
    first, last = best.scores[0].mir, best.scores[-1].mir
    now = plus_minus(last["mir"], last["standard_error"])
    return Text.assemble(
        "best: " if view.ended is not None else "best so far: ",
        (f"trial {best.number}, MIR {plus_minus(first['mir'], None)} → {now}", "bold green"),
        f"   {settings(best.params)}",
        overflow="ellipsis",
        no_wrap=True,
    )


def _table(trials: list[TrialView], bars: bool) -> Table:
    table = Table(box=None, header_style="dim", pad_edge=False, padding=(0, 2, 0, 0), expand=True)
    table.add_column("trial", justify="right", no_wrap=True)
    table.add_column("state", no_wrap=True)
    table.add_column("progress", justify="right", no_wrap=True)
    for name in ("samples/s", "loss", "MIR"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("settings, or why it ended", overflow="ellipsis", no_wrap=True, ratio=1)
    for trial in trials:
        table.add_row(
            str(trial.number),
            state_text(trial),
            _progress(trial, bars),
            number(trial.steps[-1].samples_per_second) if _moving(trial) else "",
            number(trial.steps[-1].loss) if trial.steps else "-",
            mir_text(trial),
            escape(ending(trial)),
        )
    return table


def _moving(trial: TrialView) -> bool:
    return trial.state is TrialState.RUNNING and bool(trial.steps)


def _progress(trial: TrialView, bars: bool) -> RenderableType:
    share = min(1.0, trial.samples / trial.budget)
    text = Text(percent(share).rjust(5), style="dim")
    if not bars:
        return text
    grid = Table.grid(padding=(0, 1, 0, 0))
    done = {TrialState.COMPLETE: "green", TrialState.FAILED: "red", TrialState.PRUNED: "yellow"}
    style = done.get(trial.state, "cyan")
    bar = ProgressBar(
        total=1.0, completed=share, width=9, complete_style=style, finished_style=style
    )
    grid.add_row(bar, text)
    return grid


class LiveView:
    """Shows every state it is told until it is left; usable as `on_change` of the controller."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._view: SweepView | None = None
        self._live = Live(
            console=console, get_renderable=self._draw, refresh_per_second=4, transient=True
        )

    def __enter__(self) -> LiveView:
        self._live.__enter__()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._live.__exit__(kind, error, trace)

    def __call__(self, view: SweepView) -> None:
        self._view = view

    def _draw(self) -> RenderableType:
        if self._view is None:
            return Text("starting", style="dim")
        return render(self._view, time.time(), self._console.width, self._console.height)
