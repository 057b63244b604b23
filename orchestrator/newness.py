"""What jobs say counts once: it may come twice, or late, on its way to the controller."""

from __future__ import annotations

from dataclasses import dataclass

from jobs.events import Checkpointed, Event, Started, Step
from orchestrator.state import TrialView


@dataclass
class _Said:
    """How far an attempt has come by its own words: samples of its newest step and checkpoint."""

    attempt: int
    begun: bool = False
    step: int = -1
    saved: int = -1


class Newness:
    """Remembers of every running trial what its attempt has said; scores are told by the log."""

    def __init__(self) -> None:
        self._said: dict[int, _Said] = {}

    def has(self, trial: TrialView, event: Event) -> bool:
        """Whether the event is news; then what came before it is not any more.

        A second start would take back what was scored since the first, an old step the samples
        seen, and an old checkpoint may be gone.
        """
        said = self._said.get(trial.number)
        if said is None or said.attempt != trial.attempt:
            said = self._said[trial.number] = _Said(trial.attempt)
        match event:
            case Started():
                news, said.begun = not said.begun, True
                return news
            case Step(samples=samples):
                news, said.step = samples > said.step, max(samples, said.step)
                return news
            case Checkpointed(samples=samples):
                news, said.saved = samples > said.saved, max(samples, said.saved)
                return news
            case _:
                return True

    def ended(self, number: int) -> None:
        """The attempt is over."""
        self._said.pop(number, None)
