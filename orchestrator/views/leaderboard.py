"""The sweep's trials as tables for the terminal, best first."""

from __future__ import annotations

from rich.markup import escape
from rich.table import Table
from rich.text import Text

from orchestrator.front import pareto
from orchestrator.state import SweepView, TrialState, TrialView
from orchestrator.views.standing import best_trial, ranked
from orchestrator.views.text import count, number, plus_minus, settings

STYLES = {
    TrialState.QUEUED: "dim",
    TrialState.RUNNING: "cyan",
    TrialState.PAUSED: "yellow",
    TrialState.PREEMPTED: "yellow",
    TrialState.PRUNED: "yellow",
    TrialState.COMPLETE: "green",
    TrialState.FAILED: "red",
}
WORDS = {TrialState.PRUNED: "stopped"}


def state_text(trial: TrialView) -> Text:
    """The state in the words and colours used everywhere: a pruned trial reads 'stopped'."""
    return Text(WORDS.get(trial.state, trial.state.value), style=STYLES[trial.state])


def mir_text(trial: TrialView) -> Text:
    """Newest MIR with its error bar; struck out and marked where it does not count."""
    if not trial.scores:
        return Text("-", style="dim")
    last = trial.scores[-1].mir
    text = plus_minus(last["mir"], last["standard_error"])
    if trial.feasible is False:
        return Text(f"{text} ✗", style="red")
    return Text(f"{text} ✓" if trial.feasible else text)


def leaderboard(view: SweepView, limit: int | None = None) -> Table:
    """Trials best first: state, MIR before and after, validation loss, gap, samples, settings."""
    table = Table(box=None, header_style="bold", pad_edge=False, padding=(0, 2, 0, 0), expand=True)
    table.add_column("trial", justify="right", no_wrap=True)
    table.add_column("state", no_wrap=True)
    for name in ("MIR before", "after", "val. loss", "gap", "samples"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("settings, or why it ended", overflow="ellipsis", no_wrap=True, ratio=1)
    best, on_front = best_trial(view), frozenset(pareto(view))
    for trial in ranked(view)[:limit]:
        mark = "★ " if trial is best else "◆ " if trial.number in on_front else ""
        table.add_row(
            f"{mark}{trial.number}",
            state_text(trial),
            *_score_cells(trial),
            count(trial.samples),
            escape(ending(trial)),
            style="bold" if trial is best else "",
        )
    return table


def _score_cells(trial: TrialView) -> list[Text | str]:
    if not trial.scores:
        return ["-", "-", "-", "-"]
    first, last = trial.scores[0], trial.scores[-1]
    return [
        plus_minus(first.mir["mir"], None) if first.samples == 0 else "-",
        mir_text(trial),
        number(last.guard.validation_loss),
        number(last.guard.gap),
    ]


def ending(trial: TrialView) -> str:
    """Why a trial waits, ended or does not count, otherwise its settings."""
    if trial.waiting:
        return f"waiting: {trial.waiting}"
    if trial.state is TrialState.COMPLETE and trial.feasible is False:
        return f"does not count: {trial.violation}"
    if trial.state is not TrialState.COMPLETE and trial.reason:
        return trial.reason
    return settings(trial.params)
