"""A job's last word: exactly one, whatever its runner or its processes do."""

from __future__ import annotations

import traceback
from collections.abc import Callable, Generator, Iterator
from contextlib import suppress

from jobs.events import TERMINAL, Event, Failed, FailureKind
from mir.errors import MirsweepError


def broken(
    error: Exception, lost: tuple[type[Exception], ...], elsewhere: Callable[[], bool]
) -> Failed:
    """What a job says whose supervision ended in an error.

    lost: errors which say that a process is gone, or never stood. elsewhere: whether another
    attempt may come to another node. What a rank raised, or what is ours to refuse, comes again;
    whatever else broke, the checkpoints are as good as before, and another attempt may do.
    """
    if isinstance(error, lost):
        return _loss(error, elsewhere)
    lasting = _raised_by_rank(error) or isinstance(error, MirsweepError)
    named = "" if _raised_by_rank(error) else f"{type(error).__name__}: "
    return Failed(
        kind="error" if lasting else "worker-lost",
        reason=named + first_line(error),
        detail="".join(traceback.format_exception(error)),
    )


def _loss(error: Exception, elsewhere: Callable[[], bool]) -> Failed:
    """A rank that cannot even begin may do so on another node, if there is one."""
    said = (str(error) or type(error).__name__).strip().splitlines()
    if not getattr(error, "_actor_init_failed", False):
        return Failed(kind="worker-lost", reason=said[0])
    reason = f"a rank could not begin: {said[-1]}. Install the same mirsweep on every node"
    kind: FailureKind = "worker-lost"
    with suppress(Exception):  # who asks Ray in vain still has a last word to say
        kind = "worker-lost" if elsewhere() else "error"
    return Failed(kind=kind, reason=reason, detail=str(error))


def _raised_by_rank(error: BaseException) -> bool:
    return isinstance(getattr(error, "cause", None), BaseException)


def first_line(error: BaseException) -> str:
    """What went wrong; Ray puts its own address of the actor before what the actor raised."""
    cause = getattr(error, "cause", None)
    if isinstance(cause, BaseException):
        return f"{type(cause).__name__}: {first_line(cause)}"
    return (str(error) or type(error).__name__).strip().splitlines()[0]


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
        from jobs.failures import failure_of  # torch: not before a job has failed

        yield failure_of(error)
        return
    finally:
        if isinstance(events, Generator):
            events.close()
    yield Failed(kind="error", reason="the job ended without saying how")
