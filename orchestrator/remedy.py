"""Failure -> remedy: one table, pure (design section 7). The controller carries it out."""

from __future__ import annotations

import json
from dataclasses import dataclass
from enum import StrEnum

from jobs.events import Failed, FailureKind
from jobs.spec import JobSpec
from orchestrator.state import TrialState

HOPELESS: tuple[FailureKind, ...] = ("bad-configuration", "bad-data", "error")
"""Kinds of which `HOPELESS_IN_A_ROW` consecutive failures stop the sweep."""
HOPELESS_IN_A_ROW = 3


class Action(StrEnum):
    """RESTART runs the trial again, FAIL ends it, HALT keeps it for later and stops the sweep."""

    RESTART = "restart"
    FAIL = "fail"
    HALT = "halt"


@dataclass(frozen=True, kw_only=True)
class Remedy:
    """What to do about a failure, with the reason that people read.

    state: the trial's state until it runs again, FAILED where it does not.
    counted: whether this restart counts towards `max_restarts`.
    micro_batch: samples a rank and forward pass from now on, None leaves it.
    """

    action: Action
    state: TrialState
    reason: str
    counted: bool = False
    micro_batch: int | None = None


def remedy(failure: Failed, *, job: JobSpec, workers: int, restarts: int, limit: int) -> Remedy:
    """The remedy for one failure of a job that was restarted `restarts` times of `limit` before."""
    reason = f"{failure.kind}: {failure.reason}"
    match failure.kind:
        case "worker-lost" | "no-resources" if restarts < limit:
            text = f"{reason}; restart {restarts + 1} of {limit} from the newest checkpoint"
            return _restart(text, counted=True)
        case "worker-lost" | "no-resources":
            return _fail(f"{reason}; gave up after {restarts} restarts")
        case "preempted":
            text = f"{reason}; runs again from its checkpoint"
            return _restart(text, state=TrialState.PREEMPTED)
        case "out-of-memory":
            smaller = smaller_micro_batch(job, workers)
            if smaller is None:
                return _fail(f"{reason}; the micro-batch is 1 already: use more workers or ZeRO 3")
            text = f"{reason}; restart with a micro-batch of {smaller}, same global batch"
            return _restart(text, micro_batch=smaller)
        case "disk-full":
            text = f"{reason}; free some space, then run the same command again"
            return Remedy(action=Action.HALT, state=TrialState.PAUSED, reason=text)
        case "diverged" | "bad-configuration" | "bad-data" | "error":
            return _fail(reason)


def _restart(
    reason: str,
    *,
    state: TrialState = TrialState.QUEUED,
    counted: bool = False,
    micro_batch: int | None = None,
) -> Remedy:
    return Remedy(
        action=Action.RESTART, state=state, reason=reason, counted=counted, micro_batch=micro_batch
    )


def _fail(reason: str) -> Remedy:
    return Remedy(action=Action.FAIL, state=TrialState.FAILED, reason=reason)


def smaller_micro_batch(job: JobSpec, workers: int) -> int | None:
    """The largest divisor of a rank's batch up to half the present size; None below 1.

    Divisors only: micro-batch x accumulation x ranks must stay the global batch.
    """
    per_rank = max(1, job.optim.global_batch // workers)
    present = job.deepspeed.micro_batch or per_rank
    fitting = [size for size in range(1, present // 2 + 1) if per_rank % size == 0]
    return max(fitting, default=None)


def memory_shape(job: JobSpec, workers: int) -> str:
    """What decides how much memory a job needs: jobs that agree in it share a lowered size."""
    model = job.model.model_dump(mode="json", exclude={"moca": {"init_std", "learning_rate"}})
    shape = {
        "model": model,
        "workers": workers,
        "global_batch": job.optim.global_batch,
        "tokens": job.data.max_caption_tokens,
        "deepspeed": job.deepspeed.model_dump(mode="json", exclude={"micro_batch"}),
    }
    return json.dumps(shape, sort_keys=True)


def hopeless(kinds: list[FailureKind]) -> FailureKind | None:
    """The kind in which the newest ends agree so much that going on is a waste.

    kinds: of the failures since the last trial that did not fail, oldest first.
    """
    newest = kinds[-HOPELESS_IN_A_ROW:]
    same = len(newest) == HOPELESS_IN_A_ROW and len(set(newest)) == 1
    return newest[0] if same and newest[0] in HOPELESS else None
