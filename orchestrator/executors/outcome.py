"""A runner's events with exactly one last word, whatever the runner does."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator

from jobs.events import TERMINAL, Event, Failed


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
