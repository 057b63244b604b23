"""What a runner's exception means, as the event that the remedies know."""

from __future__ import annotations

import errno
import traceback
from collections.abc import Callable, Generator, Iterator

from jobs.events import TERMINAL, Event, Failed, FailureKind
from mir.errors import ConfigError, DataError, DivergedError, MirError

_KINDS: tuple[tuple[type[BaseException], FailureKind], ...] = (
    (ConfigError, "bad-configuration"),
    (DataError, "bad-data"),
    (DivergedError, "diverged"),
    (MirError, "diverged"),
    (MemoryError, "out-of-memory"),
)


def failed_from(error: BaseException) -> Failed:
    """The Failed event of a job that raised `error`."""
    return Failed(
        kind=_kind(error),
        reason=(str(error) or type(error).__name__).splitlines()[0],
        detail="".join(traceback.format_exception(error)),
    )


def _kind(error: BaseException) -> FailureKind:
    for family, kind in _KINDS:
        if isinstance(error, family):
            return kind
    # torch is not imported here: its error is known by name on every version.
    if type(error).__name__ == "OutOfMemoryError" or "out of memory" in str(error).lower():
        return "out-of-memory"
    if isinstance(error, OSError) and error.errno == errno.ENOSPC:
        return "disk-full"
    return "error"


def whole(run: Callable[[], Iterator[Event]]) -> Iterator[Event]:
    """The events of a runner up to its first terminal one; exactly one ends the stream.

    An exception becomes Failed, and so does a runner that ends without a last word.
    """
    events: Iterator[Event] = iter(())
    try:
        events = run()
        for event in events:
            yield event
            if isinstance(event, TERMINAL):
                return
    except Exception as error:  # noqa: BLE001 - whatever a job raises is its failure, not ours
        yield failed_from(error)
        return
    finally:
        if isinstance(events, Generator):
            events.close()
    yield Failed(kind="error", reason="the job ended without saying how")
