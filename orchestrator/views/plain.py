"""Plain lines for a log file or a pipe: one for each transition and each score."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from types import TracebackType

from jobs.events import Scored
from orchestrator.state import SweepView, TrialState, TrialView
from orchestrator.views.leaderboard import WORDS
from orchestrator.views.standing import finished
from orchestrator.views.text import count, number, plus_minus, settings


def news(before: SweepView | None, after: SweepView) -> Iterator[str]:
    """One line for everything that happened between two states, in order of trials."""
    known = before.trials if before else {}
    for trial in after.trials.values():
        old = known.get(trial.number)
        if old is trial:
            continue
        fresh = trial.scores[len(old.scores) if old else 0 :]
        opened = old is None or not old.steps
        moved = old is None or (old.state, old.attempt) != (trial.state, trial.attempt)
        if trial.waiting and (old is None or old.waiting != trial.waiting):
            yield f"trial {trial.number} waiting: {trial.waiting}"
        elif moved and not trial.state.final:
            yield _transition(trial, first=opened)
        for scored in fresh:
            yield _score(trial, scored, newest=scored is trial.scores[-1])
        if moved and trial.state.final:
            yield f"{_transition(trial, first=False)} ({_tally(after)})"
        elif trial.state.final and old is not None and old.feasible and not trial.feasible:
            yield f"trial {trial.number} no longer counts: {trial.violation}"
    if after.note and after.note != (before.note if before else ""):
        yield after.note


def _tally(view: SweepView) -> str:
    return f"{len(finished(view))} of {view.spec.budget.trials} trials finished"


def _transition(trial: TrialView, first: bool) -> str:
    word = WORDS.get(trial.state, trial.state.value)
    line = f"trial {trial.number} {word}"
    if trial.attempt > 1 and trial.state is TrialState.RUNNING:
        line += f", attempt {trial.attempt} from {count(trial.samples)} samples"
    if trial.state.final:
        line += f" after {count(trial.samples)} of {count(trial.budget)} samples"
    if trial.reason:
        return f"{line}: {trial.reason}"
    return f"{line}: {settings(trial.params)}" if first else line


def _score(trial: TrialView, scored: Scored, newest: bool) -> str:
    mir = plus_minus(scored.mir["mir"], scored.mir["standard_error"])
    line = (
        f"trial {trial.number} scored MIR {mir} at {count(scored.samples)} samples, "
        f"validation loss {number(scored.guard.validation_loss)}, gap {number(scored.guard.gap)}"
    )
    if newest and trial.feasible is False:
        return f"{line}; does not count: {trial.violation}"
    return line


class PlainView:
    """Prints news as it comes; the twin of LiveView where the output is no terminal."""

    def __init__(self, write: Callable[[str], None]) -> None:
        self._write = write
        self._seen: SweepView | None = None

    def __enter__(self) -> PlainView:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        return None

    def __call__(self, view: SweepView) -> None:
        done = finished(view)
        if self._seen is None and done:
            # A sweep that goes on: what an earlier command told is no news.
            self._tell(f"going on: {_tally(view)}")
            self._seen = replace(view, trials={trial.number: trial for trial in done})
        for line in news(self._seen, view):
            self._tell(line)
        self._seen = view

    def _tell(self, line: str) -> None:
        self._write(f"{time.strftime('%H:%M:%S')} {line}")
