"""Requests to a running controller, from any terminal that reaches the study's folder.

A request is one small file, written whole or not at all; the controller's loop takes it, carries it
out and removes it. Where doing it twice would be too much, the log remembers the file's name.
What changes the study waits for the next controller where none runs.
"""

from __future__ import annotations

import time
import uuid
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, ValidationError

from jobs.files import written_whole
from jobs.spec import Frozen
from orchestrator.follow import Pulse

FOLDER = "control"
Verb = Literal["stop", "drain", "pause", "resume", "extend", "retry", "enqueue"]


class Request(Frozen):
    """What a person asks of a sweep.

    stop: save all jobs and leave. drain: start nothing new, leave when the running ones have
    ended. pause: save all jobs and wait. resume: go on. extend: add to the budget. retry: try
    the points of failed trials again, as new trials. enqueue: try a point next.
    """

    verb: Verb
    trials: int = 0
    gpu_hours: float = 0.0
    hours: float = 0.0
    samples: int = 0
    cost: float = 0.0
    point: dict[str, Any] = Field(default_factory=dict)

    @property
    def passing(self) -> bool:
        """Whether it is for the present controller alone, not for the study."""
        return self.verb in ("stop", "drain", "pause", "resume")


def post(folder: Path, request: Request) -> Path:
    """Leave a request; the file's name says when, so that requests are taken in order."""
    place = folder / FOLDER
    place.mkdir(exist_ok=True)
    path = place / f"{time.time_ns():020d}-{uuid.uuid4().hex[:8]}.json"
    with written_whole(path) as part:
        part.write_text(request.model_dump_json(exclude_defaults=True), encoding="utf-8")
    return path


def waiting(folder: Path) -> list[tuple[Path, Request]]:
    """All requests that were left, in order; a file that is none is taken away."""
    found = []
    for path in sorted((folder / FOLDER).glob("*.json")):
        try:
            found.append((path, Request.model_validate_json(path.read_text(encoding="utf-8"))))
        except (OSError, ValidationError):
            path.unlink(missing_ok=True)
    return found


def controlled(folder: Path) -> bool:
    """Whether a controller runs the study, as far as one look from this host can tell."""
    return Pulse(folder).alive()


def taken(path: Path, timeout_s: float) -> bool:
    """Wait until the controller has carried a request out; False if it has not in time."""
    deadline = time.monotonic() + timeout_s
    while path.exists():
        if time.monotonic() >= deadline:
            return False
        time.sleep(0.05)
    return True
