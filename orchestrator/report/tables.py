"""The page's tables. Every text that comes from a recipe, a path or a log is escaped here."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape

from orchestrator.report.palette import SOURCES
from orchestrator.state import SweepView, TrialState, TrialView
from orchestrator.views.leaderboard import WORDS
from orchestrator.views.standing import best_trial, counts, ranked
from orchestrator.views.text import (
    MIXTURE,
    count,
    number,
    percent,
    plus_minus,
    setting,
    weights,
)

_SHOWN = 25


def table(head: Sequence[tuple[str, str]], rows: Iterable[str]) -> str:
    """A table that scrolls sideways by itself. head: (title, class of the column)."""
    cells = "".join(f'<th class="{kind}">{escape(title)}</th>' for title, kind in head)
    return (
        f'<div class="scroll"><table><thead><tr>{cells}</tr></thead>'
        f"<tbody>{''.join(rows)}</tbody></table></div>"
    )


def cell(text: str, kind: str = "") -> str:
    """One cell of escaped text."""
    return f'<td class="{kind}">{escape(text)}</td>' if kind else f"<td>{escape(text)}</td>"


def leaderboard(view: SweepView) -> str:
    """All trials best first; what comes after the first rows opens on demand."""
    trials = ranked(view)
    names = _columns(trials)
    sources = list(view.spec.base.data.sources)
    mixed = any(weights(trial.params) for trial in trials)
    head = [("trial", "number"), ("state", ""), ("MIR before", "number"), ("after", "number"),
            ("val. loss", "number"), ("gap", "number"), ("samples", "number")]  # fmt: skip
    head += [(name, "number") for name in names] + ([("mixture", "")] if mixed else [])
    best = best_trial(view)
    rows = [_row(trial, trial is best, names, sources if mixed else []) for trial in trials]
    shown = table(head, rows[:_SHOWN])
    if mixed:
        shown = source_key(sources) + shown
    if len(rows) > _SHOWN:
        rest = table(head, rows[_SHOWN:])
        shown += f"<details><summary>{len(rows) - _SHOWN} more trials</summary>{rest}</details>"
    return shown


def _columns(trials: Sequence[TrialView]) -> list[str]:
    found = dict.fromkeys(name for trial in trials for name in trial.params)
    return [name for name in found if not name.startswith(MIXTURE)]


def _row(trial: TrialView, best: bool, names: Sequence[str], sources: Sequence[str]) -> str:
    state = WORDS.get(trial.state, trial.state.value)
    dot = "best" if best else trial.state.value
    cells = [
        cell(str(trial.number), "number"),
        f'<td><span class="state {dot}">{state}</span></td>',
    ]
    if trial.scores:
        first, last = trial.scores[0], trial.scores[-1]
        mir = plus_minus(last.mir["mir"], last.mir["standard_error"])
        cells += [
            cell(plus_minus(first.mir["mir"], None), "number"),
            cell(mir if trial.feasible is not False else f"{mir} ✗", "number"),
            cell(number(last.guard.validation_loss), "number"),
            cell(number(last.guard.gap), "number"),
        ]
    else:
        cells += [cell("-", "number")] * 4
    cells.append(cell(count(trial.samples), "number"))
    cells += [
        cell(setting(trial.params[name]) if name in trial.params else "-", "number")
        for name in names
    ]
    if sources:
        cells.append(f"<td>{mixture_bar(trial, sources)}</td>")
    kind = "best" if best else "" if counts(trial) else "away"
    return f'<tr class="{kind}">{"".join(cells)}</tr>'


def mixture_bar(trial: TrialView, sources: Sequence[str]) -> str:
    """The mixture as one bar of coloured parts, its figures in the tooltip."""
    shares = weights(trial.params)
    title = ", ".join(f"{source} {percent(share)}" for source, share in shares.items())
    parts = "".join(
        f'<i style="--source:{_colour(i)};width:{100 * shares.get(source, 0.0):.1f}%"></i>'
        for i, source in enumerate(sources)
    )
    return f'<div class="bar" title="{escape(title)}">{parts}</div>'


def source_key(sources: Sequence[str]) -> str:
    """Which colour is which source."""
    items = "".join(
        f'<li><i style="--source:{_colour(i)}"></i>{escape(source)}</li>'
        for i, source in enumerate(sources)
    )
    return f'<ul class="key">{items}</ul>'


def _colour(index: int) -> str:
    return SOURCES[index % len(SOURCES)]


def stopped(view: SweepView) -> str:
    """Trials stopped early or paused by a rule: at which share of the budget and why, or ''."""
    trials = [t for t in view.trials.values() if t.state is TrialState.PRUNED or t.frozen]
    head = [("trial", "number"), ("samples seen", "number"), ("last MIR", "number"), ("why", "")]
    rows = [
        "<tr>"
        + cell(str(trial.number), "number")
        + cell(f"{count(trial.samples)} ({percent(trial.samples / trial.budget)})", "number")
        + cell(number(trial.mir), "number")
        + cell(trial.reason, "reason")
        + "</tr>"
        for trial in trials
    ]
    return table(head, rows) if rows else ""


def not_counting(view: SweepView) -> str:
    """Trials whose last score does not count and trials that failed; '' if there are none.

    Without those that were stopped for that very reason, which `stopped` says.
    """
    rows = []
    for trial in view.trials.values():
        unsaid = trial.feasible is False and trial.violation not in trial.reason
        reasons = [f"does not count: {trial.violation}"] if unsaid else []
        if trial.state is TrialState.FAILED:
            reasons.insert(0, f"failed: {trial.reason}")
        if reasons:
            cells = cell(str(trial.number), "number") + cell(number(trial.mir), "number")
            rows.append(f"<tr>{cells}{cell('; '.join(reasons), 'reason')}</tr>")
    head = [("trial", "number"), ("last MIR", "number"), ("why", "")]
    return table(head, rows) if rows else ""
