"""From an exception to the kind of failure that the controller acts on."""

from __future__ import annotations

import errno
import traceback

import torch

from jobs.events import Failed, FailureKind
from mir.errors import (
    ConfigError,
    DataError,
    DivergedError,
    EmptyModalityError,
    MirsweepError,
    NonFiniteError,
)

_KINDS: tuple[tuple[type[BaseException], FailureKind], ...] = (
    (ConfigError, "bad-configuration"),
    (DataError, "bad-data"),
    (EmptyModalityError, "bad-data"),
    (DivergedError, "diverged"),
    (NonFiniteError, "diverged"),
    (torch.OutOfMemoryError, "out-of-memory"),
    (MemoryError, "out-of-memory"),
)
# Libraries raise these as RuntimeError or an error of their own, so only the text tells.
_PHRASES: tuple[tuple[str, FailureKind], ...] = (
    ("can't allocate memory", "out-of-memory"),
    ("out of memory", "out-of-memory"),
    ("no space left on device", "disk-full"),
    ("connection closed by peer", "worker-lost"),
    ("connection reset by peer", "worker-lost"),
    ("connection refused", "worker-lost"),
    ("broken pipe", "worker-lost"),
    # The port of the ranks' meeting was taken between its choice and its use; the next is another.
    ("address already in use", "worker-lost"),
)


def failure_of(error: Exception) -> Failed:
    """The terminal event for an error that ended a job.

    Errors that mirsweep raises on purpose are one line; all others carry their traceback.
    """
    kind = _kind(error)
    lines = str(error).strip().splitlines() or [type(error).__name__]
    reason = lines[0] if isinstance(error, MirsweepError) else f"{type(error).__name__}: {lines[0]}"
    detail = ""
    if not isinstance(error, MirsweepError):
        detail = "".join(traceback.format_exception(error))
    return Failed(kind=kind, reason=reason, detail=detail)


def _kind(error: Exception) -> FailureKind:
    for known, kind in _KINDS:
        if isinstance(error, known):
            return kind
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        return "disk-full"
    text = str(error).lower()
    return next((kind for phrase, kind in _PHRASES if phrase in text), "error")
