"""One open sweep with everything that belongs to it, and the few things done to a trial.

Each method writes the log first and acts afterwards; repeating the act changes nothing, so a
controller that dies in between is made good by the next one (`recovery`).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from jobs.events import Checkpointed, Event, Scored, Started, Step
from jobs.place import Dismissal
from jobs.spec import JobSpec
from orchestrator.budget import trials_left
from orchestrator.clerk import Clerk, Exhausted, Refused
from orchestrator.endings import Ending
from orchestrator.fold import with_micro_batch
from orchestrator.hindsight import in_hindsight
from orchestrator.journal import Journal
from orchestrator.keeper import Keeper
from orchestrator.layout import TRIALS, trial_folder
from orchestrator.newness import Newness
from orchestrator.ports import Executor, Launch, Placed, Suggester, Tracker
from orchestrator.projections import report_one, tell
from orchestrator.remedy import memory_shape
from orchestrator.state import SweepView, TrialState, TrialView
from sweeps.decision import Decision, Verdict
from sweeps.spec import ResourceSpec, SweepSpec
from sweeps.stopping import Judge
from sweeps.study import Trial


@dataclass(kw_only=True)
class Desk:
    """An open sweep.

    study: for the recovery alone, which waits for it; `clerk` talks to it while the sweep runs.
    exhausted: why there are no new trials, though the budget has some left; '' where there are.
    """

    spec: SweepSpec
    folder: Path
    journal: Journal
    study: Suggester
    executor: Executor
    tracker: Tracker
    patience_s: float
    exhausted: str = field(init=False, default="")
    clerk: Clerk = field(init=False)
    judge: Judge = field(init=False)
    keeper: Keeper = field(init=False)
    _newness: Newness = field(init=False, default_factory=Newness)

    def __post_init__(self) -> None:
        self.clerk = Clerk(self.study, self.patience_s)
        self.keeper = Keeper(self.folder / TRIALS, self.journal.snapshot)
        self.judge = Judge(self.spec)
        for number, trial in self.journal.view.trials.items():
            for scored, counts in zip(trial.scores, trial.counted, strict=True):
                self.judge.note(number, scored, counts=counts)

    def trial(self, number: int) -> TrialView:
        """The present view of a trial."""
        return self.journal.view.trials[number]

    def view(self) -> SweepView:
        """How the sweep stands by now, the receiver's to keep."""
        return in_hindsight(self.journal.snapshot())

    def left(self) -> int:
        """How many new trials may be asked for."""
        return 0 if self.exhausted else trials_left(self.journal.view)

    def ask(self) -> TrialView | None:
        """Ask for the next trial; None if Optuna has not answered yet, or has nothing left.

        It is FAILED already if the point is no valid job.
        """
        view = self.journal.view
        answer = self.clerk.ask(view.next_trial, view.queue[0] if view.queue else {})
        match answer:
            case None:
                return None
            case Exhausted(reason):
                if not view.queue:  # else it was asked for before those points were given
                    self.exhausted = reason
                return None
            case Refused(number=number, raw=raw, reason=reason):
                self.journal.asked(Trial(number, raw, self.spec.base, {}))
                self.journal.ended(number, TrialState.FAILED, reason)
            case Trial(number=number):
                self.journal.asked(answer)
        return self.trial(number)

    def launch(self, number: int) -> None:
        """Start the next attempt of a trial."""
        trial = self.journal.launched(number)
        self.executor.start(
            Launch(
                trial=number,
                attempt=trial.attempt,
                spec=self._fitting(trial),
                resources=self.gang(trial),
                folder=trial_folder(self.folder, number),
                shared=self.folder,
                last=trial.restarts >= self.spec.resources.max_restarts,
            )
        )
        self.tracker.trial_started(number, trial.job, trial.params)

    def gang(self, trial: TrialView) -> ResourceSpec:
        """What a job of this trial occupies."""
        return self.spec.resources.of(trial.workers)

    def _fitting(self, trial: TrialView) -> JobSpec:
        """The job with a micro-batch that jobs of its shape were found to need."""
        shape = memory_shape(trial.job, self.gang(trial).workers)
        lowered = self.journal.view.micro_batches.get(shape)
        return trial.job if lowered is None else with_micro_batch(trial.job, lowered)

    def close(self, timeout_s: float) -> bool:
        """See off what Optuna still has to hear and what has to go from the disk.

        False if the study's storage does not take everything in time.
        """
        self.keeper.flush(timeout_s)
        return self.clerk.flush(timeout_s)

    def placed(self, number: int) -> None:
        """A trial that had to wait after its launch runs now."""
        if self.trial(number).waiting:
            self.journal.placed(number)

    def heard(self, number: int, event: Event | Placed) -> None:
        """Keep what a job said, once."""
        match event:
            case Placed():
                return
            case Scored():
                self._scored(number, event)
            case _ if self._newness.has(self.trial(number), event):
                self._said(number, event)

    def _said(self, number: int, event: Event) -> None:
        mark = self.judge.saved(number, event.samples) if isinstance(event, Checkpointed) else None
        self.tracker.record(number, event, self.journal.heard(number, event, mark))
        if isinstance(event, Started):
            trial = self.trial(number)
            losses = (step.loss for step in trial.steps)
            self.judge.resumed(number, event.resumed_samples, trial.mark, losses)
        if isinstance(event, Step):
            trial = self.trial(number)
            decision = self.judge.stepped(number, event, trial.job)
            if trial.verdict is Verdict.CONTINUE:
                self._carry_out(trial, decision, event.samples)
        if isinstance(event, Checkpointed):
            self.keeper.saved_or_ended(number)

    def _scored(self, number: int, event: Scored) -> None:
        """Judge a score: does it count, and does its trial go on?"""
        trial = self.trial(number)
        if _repeats(event, trial):
            return  # a resumed job repeats what it scored before its checkpoint
        mine = (*(s for s in trial.scores if s.samples < event.samples), event)
        found = self.judge.feasibility(number, mine)
        at = self.journal.scored(number, event, found.violations, found.reason)
        if trial.verdict is Verdict.CONTINUE:
            self._decide(trial, mine)
        self.judge.note(number, event, counts=found.feasible)
        # Last, because only this may have to wait.
        objective = self.spec.study.objective
        report_one(self.clerk, number, event, objective, feasible=found.feasible)
        self.tracker.record(number, event, at)

    def _decide(self, trial: TrialView, mine: tuple[Scored, ...]) -> None:
        decision = self.judge.decide(trial.number, mine, trial.job, trial.compared_from)
        self._carry_out(trial, decision, mine[-1].samples)

    def _carry_out(self, trial: TrialView, decision: Decision, samples: int) -> None:
        if decision.verdict is Verdict.CONTINUE:
            return
        self.journal.judged(trial.number, decision, samples)
        if decision.verdict is Verdict.PRUNE:
            self.executor.stop(trial.number, Dismissal(decision.reason))
        elif decision.verdict is Verdict.PAUSE:
            self.executor.stop(trial.number, decision.reason)

    def thaw(self, number: int, reason: str, compared_from: int) -> None:
        """Let a trial that a rule had paused run again from its newest checkpoint."""
        self.journal.thawed(number, reason, compared_from)
        self.clerk.paused(number, paused=False)

    def finish(self, number: int, how: Ending, event: Event | None) -> None:
        """Carry out how an attempt leaves its trial: end it everywhere, or queue it again."""
        self._newness.ended(number)
        if not how.state.final:
            self.journal.requeued(
                number,
                how.state,
                how.reason,
                event=event,
                counted=how.counted,
                lowered=how.lowered,
            )
            self.tracker.trial_left(number, how.state, how.reason)
            if self.trial(number).frozen:
                self.clerk.paused(number, paused=True)
            return
        self.judge.ended(number)
        self.journal.ended(number, how.state, how.reason, event=event, objective=how.objective)
        tell(self.clerk, self.trial(number), self.spec)
        if self.trial(number).attempt > 0:
            self.tracker.trial_ended(number, how.state, how.reason)
            self.keeper.saved_or_ended(number)


def _repeats(event: Scored, trial: TrialView) -> bool:
    """Whether the log has this score: lists and tuples in it are the same to JSON."""
    return any(
        known.samples == event.samples
        and known.guard == event.guard
        and known.mir["mir"] == event.mir["mir"]
        for known in reversed(trial.scores)
    )
