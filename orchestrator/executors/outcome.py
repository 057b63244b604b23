"""A job's last word: exactly one, whatever its runner or its processes do."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator

from jobs.events import TERMINAL, Event, Failed, FailureKind


def loss(error: Exception, nodes: Callable[[], int]) -> Failed:
    """What a job says whose process is gone, or never stood.

    error: Ray's. nodes: how many are alive. A rank that cannot even begin may do so on another
    node; where there is no other, trying again is in vain.
    """
    said = (str(error) or type(error).__name__).strip().splitlines()
    if not getattr(error, "_actor_init_failed", False):
        return Failed(kind="worker-lost", reason=said[0])
    reason = f"a rank could not begin: {said[-1]}. Install the same mirsweep on every node"
    kind: FailureKind = "worker-lost" if nodes() > 1 else "error"
    return Failed(kind=kind, reason=reason, detail=str(error))


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
