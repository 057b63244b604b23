"""Trials that a rule has paused: which of them goes on when there is room.

A paused trial keeps its newest checkpoint. It goes on before anything new is begun if the rule
that paused it would let it go on by now, because others have come out worse. Otherwise it waits
until nothing better is left to begin; then the most promising goes on, by how far it is behind
beyond its error bars. Source: Li et al. 2020 (ASHA, promotion), Swersky et al. 2014 (freeze-thaw).
"""

from __future__ import annotations

import math
from collections import defaultdict

from orchestrator.desk import Desk
from orchestrator.endings import Ending
from orchestrator.state import TrialState, TrialView
from sweeps.objective import turned
from sweeps.stopping import Standing

ASKED = 8
"""How many of those paused at equal samples are judged: all are measured against the same."""


class Frozen:
    """The paused trials of an open sweep."""

    def __init__(self, desk: Desk) -> None:
        self._desk = desk
        self._values: dict[int, tuple[int, float]] = {}
        for number, trial in sorted(desk.journal.view.trials.items()):
            if trial.frozen:
                self.add(number)

    def __len__(self) -> int:
        return len(self._values)

    def add(self, number: int) -> None:
        """A rule has paused this trial."""
        trial = self._desk.trial(number)
        objective = self._desk.spec.study.objective
        value = trial.value(objective)
        self._values[number] = (
            trial.scores[-1].samples,
            math.inf if value is None else turned(objective, value),
        )

    def thaw(self, *, idle: bool) -> TrialView | None:
        """The trial that goes on now, None if there is none; its reason says why.

        idle: there is room that nothing better wants, so one goes on that is still behind.
        """
        if not self._values:
            return None
        number, standing = min(self._judged().items(), key=lambda one: (one[1].behind, one[0]))
        if standing.behind > 0 and not idle:
            return None
        trial = self._desk.trial(number)
        why = "nothing better to begin" if standing.behind > 0 else "no longer worse beyond error"
        factor = self._desk.spec.stop.chain[0].reduction_factor
        self._desk.thaw(
            number,
            f"resumed, {why}: {standing.reason}",
            min(trial.scores[-1].samples * factor, trial.budget),
        )
        del self._values[number]
        return self._desk.trial(number)

    def give_up(self, number: int, why: str) -> None:
        """End a paused trial as stopped; its checkpoints go."""
        reason = f"{self._desk.trial(number).verdict_reason}; {why}"
        del self._values[number]
        self._desk.finish(number, Ending(state=TrialState.PRUNED, reason=reason), None)

    def give_up_all(self, why: str) -> None:
        """The sweep is over: nobody goes on."""
        for number in sorted(self._values):
            self.give_up(number, why)

    def give_up_worst(self, why: str) -> None:
        """End the least promising one."""
        judged = self._judged(worst=True)
        self.give_up(max(judged, key=lambda number: (judged[number].behind, number)), why)

    def _judged(self, *, worst: bool = False) -> dict[int, Standing]:
        """The standing of those that lead, or trail, where they were paused."""
        groups: defaultdict[int, list[tuple[float, int]]] = defaultdict(list)
        for number, (samples, value) in self._values.items():
            groups[samples].append((value, number))
        chosen = [
            number
            for group in groups.values()
            for _, number in sorted(group, reverse=worst)[:ASKED]
        ]
        return {number: self._standing(number) for number in chosen}

    def _standing(self, number: int) -> Standing:
        trial = self._desk.trial(number)
        return self._desk.judge.standing(number, trial.scores, trial.job)
