"""Talks to Optuna in a thread of its own, in order: a slow or dead storage delays no decision.

The log has everything already when it is told here, so what the storage does not take now it
takes later, or from the next controller.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from mir.errors import ClusterError
from orchestrator.ports import Suggester
from orchestrator.trackers.background import Background, TryLaterError
from sweeps.samplers import ExhaustedError
from sweeps.study import RefusedError, Trial

if TYPE_CHECKING:
    from sweeps.axes import Raw

UNREACHABLE_S = 0.05
"""How long one look takes for an answer that has been waited for, or out of reach."""


@dataclass(frozen=True, kw_only=True)
class Refused:
    """The point was no valid job, and Optuna counts its trial as failed."""

    number: int
    raw: Raw
    reason: str


@dataclass(frozen=True)
class Exhausted:
    """There is no point left that was not tried."""

    reason: str


Answer = Trial | Refused | Exhausted


@dataclass(kw_only=True)
class _Asked:
    answer: Answer | None = None
    done: threading.Event = field(default_factory=threading.Event)


class Clerk:
    """Tells a study, and asks it for trials. One caller.

    What is told is not waited for: an ask comes after it in the same thread, and nothing else
    needs it. patience_s: how long a new ask is waited for before it is done without the caller.
        With an unlimited patience everything is done when a call returns, so that a deterministic
        executor gives the very same sweep each time; a storage that fails is never waited for.
    """

    def __init__(self, study: Suggester, patience_s: float) -> None:
        self._study = study
        self._unlimited = math.isinf(patience_s)
        self._patience_s = min(patience_s, threading.TIMEOUT_MAX)
        self._waiting = 0
        self._lock = threading.Lock()
        self._background: Background[None] = Background(lambda _: None, "study")
        self._out_of_reach = False
        self._broken: BaseException | None = None
        self._asked: _Asked | None = None

    def ask(self, number: int, given: Raw) -> Answer | None:
        """The trial of this number; None if the storage has not answered yet: ask again.

        given: what is not for Optuna to choose, as it was when this trial was first asked for.
        """
        again = self._asked is not None
        if self._asked is None:
            self._asked = asked = _Asked()
            self._do(lambda: self._answer(asked, number, given), asked.done)
        hurried = again or self._out_of_reach
        self._wait(self._asked.done, UNREACHABLE_S if hurried else self._patience_s)
        answer = self._asked.answer
        if answer is not None:
            self._asked = None
        return answer

    def _answer(self, asked: _Asked, number: int, given: Raw) -> None:
        try:
            asked.answer = self._study.ask(number, given)
        except RefusedError as error:
            reason = f"bad-configuration: {error}"
            asked.answer = Refused(number=error.number, raw=error.raw, reason=reason)
        except ExhaustedError as error:
            asked.answer = Exhausted(str(error))

    def report(self, number: int, samples: int, value: float, error: float = 0.0) -> None:
        """Note a feasible score of a running trial."""
        self._say(lambda: self._study.report(number, samples, value, error))

    def paused(self, number: int, *, paused: bool) -> None:
        """Note that a trial waits to be resumed, perhaps for ever, or that it goes on."""
        self._say(lambda: self._study.paused(number, paused=paused))

    def also(self, number: int, values: Sequence[float]) -> None:
        """Note the other objectives of a trial that is about to end."""
        self._say(lambda: self._study.also(number, values))

    def tell_complete(self, number: int, objective: float, violations: Mapping[str, float]) -> None:
        """End a trial with its value."""
        self._say(lambda: self._study.tell_complete(number, objective, violations))

    def tell_pruned(self, number: int, reason: str, violations: Mapping[str, float]) -> None:
        """End a trial that was stopped."""
        self._say(lambda: self._study.tell_pruned(number, reason, violations))

    def tell_failed(self, number: int, reason: str) -> None:
        """End a trial without a value."""
        self._say(lambda: self._study.tell_failed(number, reason))

    def flush(self, timeout_s: float) -> bool:
        """Wait until all is told; False if the storage does not take it in time."""
        done = self._background.flush(timeout_s)
        self._complain()
        return done

    def close(self) -> None:
        """End the thread; what the storage did not take is left to the next controller."""
        self._background.close(0.0)

    def _say(self, act: Callable[[], None]) -> None:
        done = threading.Event()
        self._do(act, done)
        self._wait(done, self._patience_s if self._unlimited and not self._out_of_reach else 0.0)

    def _do(self, act: Callable[[], None], done: threading.Event) -> None:
        if self._unlimited and not self._waiting:
            # Handing over to a thread and waiting for it would only cost time.
            try:
                act()
                done.set()
                return
            except ClusterError:
                self._out_of_reach = True
        with self._lock:
            self._waiting += 1
        self._background.do(lambda: self._act(act, done))

    def _act(self, act: Callable[[], None], done: threading.Event) -> None:
        """In the background: storage errors are for later, all others for the caller."""
        try:
            if self._broken is None:
                act()
        except ClusterError as error:
            self._out_of_reach = True
            done.set()  # nobody waits for a storage that fails
            raise TryLaterError(str(error)) from error
        except BaseException as error:  # noqa: BLE001 - raised again in the caller's thread
            self._broken = error
        else:
            self._out_of_reach = False
        with self._lock:
            self._waiting -= 1
        done.set()

    def _wait(self, done: threading.Event, timeout_s: float) -> None:
        done.wait(timeout_s)
        self._complain()

    def _complain(self) -> None:
        """Raise what an act raised, other than that the storage is out of reach."""
        if self._broken is not None:
            raise self._broken
