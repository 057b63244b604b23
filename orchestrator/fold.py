"""From records to what people see: `fold(view, record) -> view`, pure and total.

The kinds of record, each with the fields of its `data`:

session    spec, pid, host, code_version     a controller begins; the first opens the study
extended   budget                            people gave the sweep a larger one
              + request, points               the request that asked for it, for points of its own
queued     points                            to be tried next, in order; raw parameters as given
asked      trial, params, raw, job           a trial has its point: chosen, queued, or refused
             + workers                       where the search chose its number of ranks
waits      trial, reason                     a trial has no room to run
placed     trial                             a launched trial that had to wait has its room now
launched   trial, attempt                    a job is about to be started
event      trial, attempt, event             what the job said
             + violations, violation         where it was a score
             + course                        of the training loss, where it was a checkpoint
judged     trial, verdict, reason, samples   a stopping rule spoke, other than 'continue'
thawed     trial, reason, compared_from      a trial that a rule had paused will run again
requeued   trial, state, reason, counted     a job ended early and its trial will run again
             + event                         the job's last word, where it said one
             + micro_batch, shape            where it ran out of memory
             + until                         when it ended, where its controller died before that
ended      trial, state, reason, objective   a trial reached its final state
             + event, until                  as above
note       text                              a word about the sweep as a whole
held       note                              people paused it: from now on no time counts
resumed    note                              people let it go on
closed     note                              the sweep is over
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

from pydantic import ValidationError

from jobs.events import Checkpointed, Event, Scored, Skipped, Started, Step, event_from_json
from jobs.spec import Frozen, JobSpec
from jobs.spec.base import first_mistake
from mir.errors import DataError
from orchestrator.eventlog import LOG_NAME, Record, read_records
from orchestrator.hindsight import in_hindsight
from orchestrator.state import StepPoint, SweepView, TrialState, TrialView, skips_after
from sweeps.course import Mark
from sweeps.decision import Verdict
from sweeps.spec import BudgetSpec, SweepSpec

Spec = TypeVar("Spec", bound=Frozen)


def load_view(folder: Path) -> SweepView:
    """How the study in a folder stands; works while its controller runs and afterwards.

    Raises DataError where the folder holds no study.
    """
    return in_hindsight(load_log(folder))


def load_log(folder: Path) -> SweepView:
    """What the log of a study says, each trial as it was judged when it ended.

    Raises DataError where the folder holds no study.
    """
    path = folder / LOG_NAME
    if not path.exists():
        raise DataError(
            f"{folder}: no study here ({LOG_NAME} is missing). "
            "Give the folder that `mirsweep run` printed"
        )
    view = fold_all(read_records(path))
    if view is None:
        raise DataError(f"{path}: the study's log is empty. Run `mirsweep run` again")
    return view


def fold_all(records: Iterable[Record]) -> SweepView | None:
    """The view after all records, None where there are none."""
    view: SweepView | None = None
    for record in records:
        view = advance(view, record)
    return view


def fold(view: SweepView | None, record: Record) -> SweepView:
    """The view after one more record; the given view stays as it is."""
    return advance(view and replace(view, trials=dict(view.trials)), record)


def advance(view: SweepView | None, record: Record) -> SweepView:
    """As `fold`, but reuses the given view's dictionary of trials: for the view's only owner.

    Copying it for every record would make a sweep's cost quadratic in its trials.
    """
    if record.kind == "session":
        return _session(view, record)
    assert view is not None, "a log begins with a session record"
    if record.kind in _SWEEP:
        view = _SWEEP[record.kind](view, record)
    else:
        number = record.data["trial"]
        before, after = view.trials.get(number), _next(view.trials.get(number), record)
        view.trials[number] = after
        view = _spent(view, before, after)
        if record.kind == "asked":
            view = _begun(view, after)
        if "shape" in record.data:
            lowered = {record.data["shape"]: record.data["micro_batch"]}
            view = replace(view, micro_batches={**view.micro_batches, **lowered})
    return replace(view, updated=record.time)


def _queued(view: SweepView, record: Record) -> SweepView:
    return replace(view, queue=(*view.queue, *record.data["points"]), seeded=True)


def _begun(view: SweepView, trial: TrialView) -> SweepView:
    """The view without the first point in the queue, if it is the trial's."""
    number, queue = view.next_trial, view.queue
    while number in view.trials:
        number += 1
    if queue and queue[0].items() <= trial.raw.items():
        queue = queue[1:]
    return replace(view, queue=queue, next_trial=number)


def _spent(view: SweepView, before: TrialView | None, after: TrialView) -> SweepView:
    """The view with what one record added to the sums over all trials."""
    busy, samples = after.seconds, after.samples + after.redone
    if before is not None:
        busy, samples = busy - before.seconds, samples - before.samples - before.redone
    if not busy and not samples:
        return view
    busy *= view.spec.resources.share(after.workers)
    return replace(view, busy=view.busy + busy, samples=view.samples + samples)


def fold_trial(records: Iterable[Record]) -> TrialView:
    """One trial after all of its own records, from the first."""
    trial: TrialView | None = None
    for record in records:
        trial = _next(trial, record)
    assert trial is not None, "a trial has records"
    return trial


def _next(trial: TrialView | None, record: Record) -> TrialView:
    if record.kind == "asked":
        return _asked(record)
    assert trial is not None, "a trial begins with its asking"
    return _TRIAL[record.kind](trial.whole(), record)


def _session(view: SweepView | None, record: Record) -> SweepView:
    spec = _known(SweepSpec, record.data["spec"])
    now, code = record.time, record.data["code_version"]
    asked = spec.budget
    if view is None:
        return SweepView(
            spec=spec, opened=now, session=now, updated=now, code_version=code, asked=asked
        )
    if asked == view.asked:  # the same command: what `mirsweep extend` added since still counts
        spec = spec.model_copy(update={"budget": view.spec.budget})
    return replace(
        view,
        spec=spec,
        trials={number: _orphaned(t, view.updated) for number, t in view.trials.items()},
        asked=asked,
        seconds=view.elapsed,
        session=now,
        held=False,
        updated=now,
        ended=None,
        note="",
        code_version=code,
    )


def _orphaned(trial: TrialView, at: float) -> TrialView:
    """A job that was running has ended with its controller, even if nobody has said so yet."""
    if trial.launched is None or trial.left is not None:
        return trial
    return replace(trial, left=at)


def _extended(view: SweepView, record: Record) -> SweepView:
    budget = BudgetSpec.model_validate(record.data["budget"])
    taken = view.requests | {record.data["request"]} if "request" in record.data else view.requests
    spec = view.spec.model_copy(update={"budget": budget})
    queue = (*view.queue, *record.data.get("points", ()))
    return replace(view, spec=spec, requests=taken, queue=queue)


def _known(model: type[Spec], data: dict[str, Any]) -> Spec:
    """A specification of the log. What an earlier version left out has its default.

    Raises DataError for what only another version of mirsweep knows.
    """
    try:
        return model.model_validate(data)
    except ValidationError as error:
        place, words = first_mistake(error)
        raise DataError(
            f"the event log was written by another version of mirsweep: {place}: {words}. "
            "Go on with the version that wrote it"
        ) from error


def _note(view: SweepView, record: Record) -> SweepView:
    return replace(view, note=record.data["text"])


def _held(view: SweepView, record: Record) -> SweepView:
    return replace(_resumed(view, record), held=True)


def _resumed(view: SweepView, record: Record) -> SweepView:
    now, note = record.time, record.data["note"]
    return replace(view, note=note, seconds=view.elapsed_at(now), session=now, held=False)


def _closed(view: SweepView, record: Record) -> SweepView:
    return replace(view, note=record.data["note"], ended=record.time)


def _asked(record: Record) -> TrialView:
    return TrialView(
        number=record.data["trial"],
        job=_known(JobSpec, record.data["job"]),
        params=dict(record.data["params"]),
        raw=dict(record.data["raw"]),
        workers=record.data.get("workers"),
        reason="waiting for its turn",
    )


def _launched(trial: TrialView, record: Record) -> TrialView:
    return replace(
        trial,
        state=TrialState.RUNNING,
        reason="",
        waiting="",
        attempt=record.data["attempt"],
        started=record.time if trial.started is None else trial.started,
        launched=record.time,
        left=None,
    )


def _waits(trial: TrialView, record: Record) -> TrialView:
    """What waits occupies nothing, also where its executor has been given it already."""
    return replace(trial, state=TrialState.QUEUED, waiting=record.data["reason"], launched=None)


def _placed(trial: TrialView, record: Record) -> TrialView:
    return replace(trial, state=TrialState.RUNNING, waiting="", launched=record.time)


def _judged(trial: TrialView, record: Record) -> TrialView:
    return replace(
        trial,
        verdict=Verdict(record.data["verdict"]),
        verdict_reason=record.data["reason"],
        verdict_samples=record.data["samples"],
    )


def _thawed(trial: TrialView, record: Record) -> TrialView:
    return replace(
        trial,
        state=TrialState.QUEUED,
        reason=record.data["reason"],
        verdict=Verdict.CONTINUE,
        verdict_reason="",
        verdict_samples=None,
        resumed=trial.resumed + 1,
        compared_from=record.data["compared_from"],
    )


def _left(trial: TrialView, record: Record) -> TrialView:
    """The trial with the time of the attempt that is over added up."""
    until = record.data.get("until", record.time)
    ran = 0.0 if trial.launched is None else max(0.0, until - trial.launched)
    samples = (record.data.get("event") or {}).get("samples", 0)
    return replace(
        trial,
        seconds=trial.seconds + ran,
        launched=None,
        left=None,
        waiting="",
        samples=max(trial.samples, samples),
    )


def _requeued(trial: TrialView, record: Record) -> TrialView:
    job = trial.job
    if "micro_batch" in record.data:
        job = with_micro_batch(job, record.data["micro_batch"])
    return replace(
        _left(trial, record),
        job=job,
        state=TrialState(record.data["state"]),
        reason=record.data["reason"],
        restarts=trial.restarts + bool(record.data["counted"]),
    )


def with_micro_batch(job: JobSpec, micro_batch: int) -> JobSpec:
    """The same job computed in smaller pieces; the global batch is unchanged."""
    deepspeed = job.deepspeed.model_copy(update={"micro_batch": micro_batch})
    return job.model_copy(update={"deepspeed": deepspeed})


def _ended(trial: TrialView, record: Record) -> TrialView:
    return replace(
        _left(trial, record),
        state=TrialState(record.data["state"]),
        reason=record.data["reason"],
        objective=record.data["objective"],
        ended=record.time,
    )


def _event(trial: TrialView, record: Record) -> TrialView:
    event = event_from_json(record.data["event"])
    if isinstance(event, Scored):
        return _scored(trial, event, record.data)
    heard = _heard(trial, event)
    course = record.data.get("course")
    return heard if course is None else replace(heard, mark=Mark.from_json(course))


def _scored(trial: TrialView, event: Scored, data: dict[str, Any]) -> TrialView:
    """A score replaces those at its samples and beyond: a restarted job goes that way again."""
    kept = sum(score.samples < event.samples for score in trial.scores)
    feasible = not data["violation"]
    return replace(
        trial,
        samples=event.samples,
        scores=(*trial.scores[:kept], event),
        counted=(*trial.counted[:kept], feasible),
        feasible=feasible,
        violation=data["violation"],
        violations=dict(data["violations"]),
    )


def _heard(trial: TrialView, event: Event) -> TrialView:
    match event:
        case Started(resumed_samples=samples):
            kept = sum(score.samples <= samples for score in trial.scores)
            return replace(
                trial,
                samples=samples,
                redone=trial.redone + max(0, trial.samples - samples),
                steps=tuple(step for step in trial.steps if step.samples <= samples),
                scores=trial.scores[:kept],
                counted=trial.counted[:kept],
                feasible=trial.counted[kept - 1] if kept else None,
                violation=trial.violation if kept == len(trial.scores) else "",
                skips=skips_after(trial.skips, event),
            )
        case Step():
            point = StepPoint(
                samples=event.samples, loss=event.loss, samples_per_second=event.samples_per_second
            )
            return replace(trial, samples=event.samples, steps=(*trial.steps, point))
        case Checkpointed():
            samples = max(trial.samples, event.samples)  # it is told when it is on the disk
            return replace(trial, samples=samples, checkpoint=event.path)
        case Skipped():
            return replace(trial, skips=skips_after(trial.skips, event))
        case _:
            return trial


_SWEEP: dict[str, Callable[[SweepView, Record], SweepView]] = {
    "extended": _extended,
    "queued": _queued,
    "note": _note,
    "held": _held,
    "resumed": _resumed,
    "closed": _closed,
}
_TRIAL: dict[str, Callable[[TrialView, Record], TrialView]] = {
    "launched": _launched,
    "event": _event,
    "waits": _waits,
    "placed": _placed,
    "judged": _judged,
    "thawed": _thawed,
    "requeued": _requeued,
    "ended": _ended,
}
