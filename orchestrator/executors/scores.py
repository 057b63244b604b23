"""A job's scores kept in its folder, so that none is lost between its checkpoint and the log.

A checkpoint remembers that a score was made, and a resumed job does not make it again. If the
controller died after the checkpoint and before it heard the score, only this file has it.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from pydantic import ValidationError

from jobs.events import Event, Scored, Started
from jobs.files import written_whole

SCORES = "scores.jsonl"


def with_scores_kept(events: Iterator[Event], folder: Path) -> Iterator[Event]:
    """The lead rank's events; after Started come the kept scores up to the resumed checkpoint.

    Each new score is in the file before it is passed on, hence before the next checkpoint.
    """
    for event in events:
        known = keep_scores(event, folder)
        yield event
        yield from known


def keep_scores(event: Event, folder: Path) -> list[Scored]:
    """Bring the file up to an event of the lead rank; returns what was known when it started.

    A job that trains nothing leaves the file of the one whose folder it was given as it is.
    """
    path = folder / SCORES
    if isinstance(event, Scored):
        with path.open("a") as file:
            file.write(event.model_dump_json() + "\n")
    if not isinstance(event, Started) or not event.trainable:
        return []
    begin = event.resumed_samples
    known = [score for score in read_scores(path) if begin and score.samples <= begin]
    _write(path, known)
    return known


def read_scores(path: Path) -> list[Scored]:
    """Whole scores in order; a torn last line had no checkpoint after it."""
    if not path.exists():
        return []
    scores = []
    for line in path.read_text().splitlines():
        try:
            scores.append(Scored.model_validate_json(line))
        except ValidationError:
            break
    return scores


def _write(path: Path, scores: list[Scored]) -> None:
    with written_whole(path) as part:
        part.write_text("".join(score.model_dump_json() + "\n" for score in scores))
