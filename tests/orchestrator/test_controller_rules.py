"""The pure parts that the loop decides with: placement, remedies, endings, budget."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from small_world import SAMPLES, make_sweep, score

from jobs.events import Failed, Finished, Stopped
from mir.errors import ConfigError
from orchestrator.budget import spent, trials_left
from orchestrator.endings import Leaving, ending
from orchestrator.placement import job_slots, require_fit, why_not
from orchestrator.ports import Capacity
from orchestrator.remedy import Action, hopeless, memory_shape, remedy, smaller_micro_batch
from orchestrator.state import SweepView, TrialState, TrialView
from sweeps.decision import Verdict
from sweeps.spec import ResourceSpec

SPEC = make_sweep()


def job(batch=8, micro=None):
    base = SPEC.base
    return base.model_copy(
        update={
            "optim": base.optim.model_copy(update={"global_batch": batch}),
            "deepspeed": base.deepspeed.model_copy(update={"micro_batch": micro}),
        }
    )


@pytest.mark.parametrize(
    ("nodes", "resources", "slots"),
    [
        (((2.0, 0.0),), ResourceSpec(), 2),
        (((2.0, 0.0),), ResourceSpec(workers=2), 1),
        (((2.0, 0.0),), ResourceSpec(workers=3), 0),
        (((3.0, 0.0), (3.0, 0.0)), ResourceSpec(workers=3), 2),
        (((3.0, 0.0), (3.0, 0.0)), ResourceSpec(cpus_per_worker=2), 2),
        (((64.0, 8.0), (64.0, 8.0)), ResourceSpec(workers=4, gpus_per_worker=1), 4),
        (((64.0, 1.0),), ResourceSpec(gpus_per_worker=0.1), 10),
        (((64.0, 8.0),), ResourceSpec(max_concurrent=3), 3),
        ((), ResourceSpec(), 0),
    ],
)
def test_slots_are_counted_in_whole_gangs(nodes, resources, slots):
    capacity = Capacity(nodes=nodes)
    assert job_slots(capacity, resources) == slots
    assert (why_not(capacity, resources) is None) == (slots > 0)


@pytest.mark.parametrize(
    ("resources", "words"),
    [
        (ResourceSpec(gpus_per_worker=8), "a worker needs 8 GPUs on one node, largest node has 4"),
        (ResourceSpec(cpus_per_worker=99), "a worker needs 99 CPUs on one node"),
        (ResourceSpec(workers=7, gpus_per_worker=1), "7 workers of 1 CPUs and 1 GPUs each"),
    ],
)
def test_what_never_fits_is_refused_with_the_numbers(resources, words):
    with pytest.raises(ConfigError, match=words):
        require_fit(Capacity(nodes=((16.0, 4.0), (16.0, 2.0))), resources)


@given(st.integers(1, 512), st.integers(1, 8))
def test_micro_batches_shrink_through_divisors_down_to_one(batch, workers):
    per_rank = max(1, batch // workers)
    sizes = [per_rank]
    while (size := smaller_micro_batch(job(batch, sizes[-1]), workers)) is not None:
        assert per_rank % size == 0
        assert size <= sizes[-1] // 2
        sizes.append(size)
    assert sizes[-1] == 1
    assert smaller_micro_batch(job(batch), workers) == (sizes[1] if len(sizes) > 1 else None)


@pytest.mark.parametrize(
    ("kind", "restarts", "action", "state", "counted"),
    [
        ("worker-lost", 0, Action.RESTART, TrialState.QUEUED, True),
        ("worker-lost", 2, Action.FAIL, TrialState.FAILED, False),
        ("preempted", 9, Action.RESTART, TrialState.PREEMPTED, False),
        ("out-of-memory", 9, Action.RESTART, TrialState.QUEUED, False),
        ("diverged", 0, Action.FAIL, TrialState.FAILED, False),
        ("bad-configuration", 0, Action.FAIL, TrialState.FAILED, False),
        ("bad-data", 0, Action.FAIL, TrialState.FAILED, False),
        ("error", 0, Action.FAIL, TrialState.FAILED, False),
        ("no-resources", 1, Action.RESTART, TrialState.QUEUED, True),
        ("no-resources", 2, Action.FAIL, TrialState.FAILED, False),
        ("disk-full", 0, Action.HALT, TrialState.PAUSED, False),
    ],
)
def test_the_table_of_remedies(kind, restarts, action, state, counted):
    failure = Failed(kind=kind, reason="the reason")
    chosen = remedy(failure, job=job(), workers=1, restarts=restarts, limit=2)
    assert (chosen.action, chosen.state, chosen.counted) == (action, state, counted)
    assert chosen.reason.startswith(f"{kind}: the reason")


def test_out_of_memory_with_nothing_left_to_halve_fails():
    failure = Failed(kind="out-of-memory", reason="full")
    chosen = remedy(failure, job=job(micro=1), workers=1, restarts=0, limit=2)
    assert chosen.action is Action.FAIL
    assert "use more workers" in chosen.reason


def test_jobs_that_differ_in_rate_alone_share_their_memory_shape():
    base = job()
    faster = base.model_copy(
        update={"optim": base.optim.model_copy(update={"learning_rate": 0.5}), "seed": 3}
    )
    assert memory_shape(base, 1) == memory_shape(faster, 1) == memory_shape(job(micro=2), 1)
    assert memory_shape(base, 1) != memory_shape(base, 2)
    assert memory_shape(base, 1) != memory_shape(job(batch=16), 1)


@pytest.mark.parametrize(
    ("kinds", "found"),
    [
        (["bad-data"] * 2, None),
        (["bad-data"] * 3, "bad-data"),
        (["bad-data", "bad-data", "bad-configuration"], None),
        (["diverged", "bad-data", "bad-data", "bad-data"], "bad-data"),
        (["diverged"] * 5, None),
        (["worker-lost"] * 5, None),
    ],
)
def test_three_alike_are_hopeless(kinds, found):
    assert hopeless(kinds) == found


def trial(**fields):
    return TrialView(number=0, job=SPEC.base, params={}, state=TrialState.RUNNING, **fields)


FINISHED = Finished(samples=SAMPLES, seconds=1.0)
STOPPED = Stopped(samples=8, reason="asked")
DIVERGED = Failed(kind="diverged", reason="NaN")
LOST = Failed(kind="worker-lost", reason="gone")
PAUSE, OVER = Leaving(reason="SIGINT"), Leaving(reason="budget", final=True)
PRUNED = {"verdict": Verdict.PRUNE, "verdict_reason": "worse"}
SCORED = {"scores": (score(SAMPLES, 2.5),), "counted": (True,), "feasible": True}


@pytest.mark.parametrize(
    ("fields", "word", "leaving", "state"),
    [
        (SCORED, FINISHED, None, TrialState.COMPLETE),
        ({**SCORED, **PRUNED}, FINISHED, None, TrialState.COMPLETE),
        (SCORED, FINISHED, PAUSE, TrialState.COMPLETE),
        ({}, FINISHED, None, TrialState.FAILED),
        ({"scores": (score(SAMPLES // 2, 2.5),)}, FINISHED, None, TrialState.FAILED),
        (PRUNED, STOPPED, None, TrialState.PRUNED),
        (PRUNED, LOST, None, TrialState.PRUNED),
        (PRUNED, STOPPED, PAUSE, TrialState.PRUNED),
        ({}, STOPPED, PAUSE, TrialState.PAUSED),
        ({}, LOST, PAUSE, TrialState.PAUSED),
        ({}, DIVERGED, PAUSE, TrialState.FAILED),
        ({}, STOPPED, OVER, TrialState.PAUSED),
        ({}, LOST, OVER, TrialState.PAUSED),
        ({}, STOPPED, None, TrialState.PREEMPTED),
        ({}, LOST, None, TrialState.QUEUED),
    ],
)
def test_how_an_attempt_leaves_its_trial(fields, word, leaving, state):
    assert ending(trial(**fields), word, SPEC, leaving).state is state


def test_a_final_score_that_is_no_number_fails_the_trial():
    nan = score(SAMPLES, float("nan"))
    how = ending(trial(scores=(nan,), feasible=True), FINISHED, SPEC, None)
    assert (how.state, how.objective) == (TrialState.FAILED, None)


def test_the_time_budget_counts_all_sessions():
    spec = make_sweep(hours=1.0)
    view = SweepView(spec=spec, seconds=3000.0, session=50_000.0)
    assert spent(view, 50_599.0) is None
    assert spent(view, 50_600.0) == "the budget of 1 h is spent"
    assert spent(SweepView(spec=make_sweep()), 1e12) is None


def test_every_trial_counts_towards_the_budget():
    view = SweepView(spec=make_sweep(2), trials={0: trial(), 1: trial(), 2: trial()})
    assert trials_left(view) == 0
    assert trials_left(SweepView(spec=make_sweep(2))) == 2
