"""The report as one self-contained HTML page: it fetches nothing and escapes all users' text."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Sequence
from html import escape
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from string import Template

from orchestrator.earlier import transfers
from orchestrator.ledger import ledger
from orchestrator.report import figures, tables
from orchestrator.report.facts import caution, favourites, tiles, verdict, witnesses
from orchestrator.report.importance import MIN_TRIALS, common_samples, importances, most_counted
from orchestrator.report.palette import root_style
from orchestrator.report.series import beyond_note, counting, curves, panels
from orchestrator.state import SweepView, TrialState
from orchestrator.views.standing import best_trial
from orchestrator.views.text import count
from sweeps.secrets import recorded

_HERE = Path(__file__).parent
_PACKAGES = ("mirsweep", "torch", "transformers", "deepspeed", "ray", "optuna", "mlflow")


def page(view: SweepView) -> str:
    """The whole page as text; about 5 MB, nearly all of it the figures' library."""
    return document(f"{view.spec.name} - mirsweep", [build(view) for build in _SECTIONS])


def document(title: str, sections: Sequence[str]) -> str:
    """A self-contained page of these sections; empty ones are left out. The title is escaped."""
    from plotly.offline import get_plotlyjs

    return Template(_asset("template.html")).substitute(
        title=escape(title),
        style=f"{root_style()}\n{_asset('page.css')}",
        body="\n".join(section for section in sections if section),
        plotly=get_plotlyjs(),
        script=_asset("page.js"),
    )


def _asset(name: str) -> str:
    return (_HERE / name).read_text(encoding="utf-8")


def figure(value: figures.Figure) -> str:
    """The place of a figure with its data. '<' is escaped, or '</script>' in a name ends it."""
    text = json.dumps(value, allow_nan=False, separators=(",", ":")).replace("<", "\\u003c")
    return f'<div class="figure"><script type="application/json">{text}</script></div>'


def section(title: str, *parts: str) -> str:
    """A heading and what follows it."""
    return f"<section><h2>{escape(title)}</h2>{''.join(parts)}</section>"


def note(text: str) -> str:
    """A paragraph of explanation in quieter type; its text is escaped."""
    return f'<p class="note">{escape(text)}</p>'


def _head(view: SweepView) -> str:
    when = time.strftime("%d %B %Y, %H:%M UTC", time.gmtime(view.updated))
    items = "".join(
        f"<li><b>{escape(tile.value)}</b><span>{escape(tile.text)}</span></li>"
        for tile in tiles(view)
    )
    going = "" if view.ended is not None else ", not ended"
    ended = f'<p class="note">{escape(view.note)}</p>' if view.note else ""
    return (
        f'<header><p class="eyebrow">{escape(view.spec.name)} · as of {when}{going}</p>'
        f'<h1>{escape(verdict(view))}</h1>{ended}<ul class="tiles">{items}</ul></header>'
    )


def _curves(view: SweepView) -> str:
    if not curves(view):
        return section("MIR while training", note("No trial has been scored yet."))
    return section(
        "MIR while training",
        note(
            "One line a trial, with its standard error. MIR often rises before it falls. A cross "
            "marks a score that does not count, a square the end of a trial that was stopped. "
            f"{beyond_note(curves(view))}"
        ),
        figure(figures.mir_curves(view)),
    )


def _agreement(view: SweepView) -> str:
    trials = counting(view)
    best = best_trial(view)
    parts = [f"<p>{escape(witness.sentence)}</p>" for witness in witnesses(view)]
    if caution(view):
        parts.insert(0, f"<p><strong>{escape(caution(view))}</strong></p>")
    parts += [note(text) for text in favourites(view)]
    if not trials:
        return ""
    parts.append(
        note(
            "The gap is the validation loss with a wrong picture minus that with the "
            "right one; a lower loss and a wider gap are better."
        )
    )
    if len(trials) >= 2:
        parts.append(figure(figures.agreement(trials, best)))
    parts += [note(f"Warm start: {str(found).removesuffix('.')}.") for found in transfers(view)]
    return section("Can MIR be trusted here?", *parts)


def _leaderboard(view: SweepView) -> str:
    return section("Leaderboard", tables.leaderboard(view)) if view.trials else ""


def _layers(view: SweepView) -> str:
    best = best_trial(view)
    if best is None or len(best.scores) < 2:
        return ""
    text = (
        f"Distance between vision and text tokens in each layer of trial {best.number}, before "
        "and after training, with the samples seen."
    )
    return section("MIR by layer", note(text), figure(figures.layers(best)))


def _mixture(view: SweepView) -> str:
    if not panels(view, mixture=True):
        return ""
    text = "Weight of each source against the final MIR, over the trials that count."
    return section(
        "Mixture against MIR",
        note(text),
        figure(figures.settings(view, best_trial(view), mixture=True)),
    )


def _settings(view: SweepView) -> str:
    if not panels(view, mixture=False):
        return ""
    return section(
        "Other settings against MIR",
        figure(figures.settings(view, best_trial(view), mixture=False)),
    )


def _importance(view: SweepView) -> str:
    found = importances(view)
    if not found:
        text = (
            f"Needs at least {MIN_TRIALS} trials with scores that count at equal samples; "
            f"there are {most_counted(view)}."
        )
        return section("Which settings matter", note(text)) if view.trials else ""
    samples = count(common_samples(view) or 0)
    text = (
        f"How much of the ranking by MIR at {samples} samples, the furthest that {MIN_TRIALS} "
        "trials came and count, each setting explains by itself: adjusted R² of a parabola in its "
        "rank, or of group means for a choice. The tick is the level that 95 of 100 settings "
        "without any effect stay below; grey bars do not reach it. Shares do not add up to 100 %."
    )
    return section("Which settings matter", note(text), figure(figures.importance_bars(found)))


def _endings(view: SweepView) -> str:
    stopped, away = tables.stopped(view), tables.not_counting(view)
    parts = [f"<h3>Stopped early</h3>{stopped}"] if stopped else []
    parts += [f"<h3>Failed, or not counting</h3>{away}"] if away else []
    skipped: dict[str, int] = {}
    for trial in view.trials.values():
        for reason, n in trial.skipped.items():
            skipped[reason] = skipped.get(reason, 0) + n
    parts += [note(f"Skipped {count(n)} samples: {reason}.") for reason, n in skipped.items()]
    if not parts and any(trial.state is TrialState.COMPLETE for trial in view.trials.values()):
        parts = [note("Every trial that ended ran to the end, and every score counts.")]
    if not parts:
        return ""
    parts += [note(f"{name}: {text}.") for name, text in ledger(view, view.updated).lines()]
    return section("What was stopped, and why", *parts)


def _origin(view: SweepView) -> str:
    from sweeps.recipe import dump_recipe

    recipe = escape(dump_recipe(recorded(view.spec)))
    versions = ", ".join(f"{name} {_version(name)}" for name in _PACKAGES)
    code = f"Commit {view.code_version}. " if view.code_version else ""
    return section(
        "To reproduce it",
        f"<details><summary>Resolved recipe</summary><pre>{recipe}</pre></details>",
        note(f"{code}Where this report was written: {versions}."),
    )


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "not installed"


_SECTIONS: tuple[Callable[[SweepView], str], ...] = (
    _head, _curves, _agreement, _leaderboard, _layers, _mixture, _settings, _importance, _endings,
    _origin,
)  # fmt: skip
