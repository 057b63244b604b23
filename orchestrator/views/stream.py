"""A sweep as lines of JSON, one for everything that changed: for programs that follow it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from types import TracebackType
from typing import Any

from orchestrator.state import SweepView, TrialView
from orchestrator.views.as_json import trial_json
from orchestrator.views.standing import best_trial


def changes(before: SweepView | None, after: SweepView, folder: Path) -> Iterator[dict[str, Any]]:
    """What a reader of `before` does not know: trials that moved or scored, then the sweep."""
    known = before.trials if before else {}
    for number, trial in sorted(after.trials.items()):
        old = known.get(number)
        if old is None or (old is not trial and _told(old) != _told(trial)):
            yield {"time": after.updated, **trial_json(trial, folder)}
    if before is None or (before.note, before.ended) != (after.note, after.ended):
        best = best_trial(after)
        yield {
            "time": after.updated,
            "study": after.spec.name,
            "ended": after.ended is not None,
            "note": after.note,
            "best_trial": None if best is None else best.number,
        }


def _told(trial: TrialView) -> tuple[object, ...]:
    state = (trial.state, trial.attempt, trial.reason, trial.feasible)
    return *state, len(trial.scores), trial.checkpoint


class StreamView:
    """Writes changes of the study in `folder` as they come; the twin of PlainView for programs."""

    def __init__(self, write: Callable[[dict[str, Any]], None], folder: Path) -> None:
        self._write, self._folder = write, folder
        self._seen: SweepView | None = None

    def __enter__(self) -> StreamView:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        return None

    def __call__(self, view: SweepView) -> None:
        for change in changes(self._seen, view, self._folder):
            self._write(change)
        self._seen = view
