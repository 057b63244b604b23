"""What samplers are told of a study: the same to one who listened all along as to a newcomer."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sweeps_scores import a_sweep, ask

from sweeps.history import History
from sweeps.study import Study

WHICH, VALUE = st.integers(0, 5), st.integers(0, 9).map(float)
SPEC = a_sweep(study={"sampler": "random", "storage": "memory:"})
OPEN = ("RUNNING", "WAITING")


@settings(max_examples=60, deadline=None)
@given(
    st.lists(
        st.one_of(
            st.tuples(st.just("ask")),
            st.tuples(st.just("listen")),
            st.tuples(st.just("report"), WHICH, st.sampled_from([100, 200]), VALUE),
            st.tuples(st.just("pause"), WHICH, st.booleans()),
            st.tuples(st.sampled_from(["complete", "pruned", "failed"]), WHICH, VALUE),
        ),
        max_size=40,
    ),
    st.sampled_from([1.0, -1.0]),
)
def test_who_listens_all_along_knows_what_a_newcomer_is_told(tmp_path_factory, said, sign):
    study = Study(SPEC, tmp_path_factory.getbasetemp())
    kept = History(sign)
    for what, *args in [("ask",), ("ask",), *said]:
        if what == "ask":
            ask(study)
        elif what == "listen":
            kept.told(study._trials())
        elif study.states().get(args[0]) in OPEN:
            tell(study, what, *args)
    assert kept.told(study._trials()) == History(sign).told(study._trials())


def tell(study, what, number, *args):
    if what == "report":
        study.report(number, *args, error=0.1)
    elif what == "pause":
        study.paused(number, paused=args[0])
    elif what == "complete":
        study.tell_complete(number, args[0], {"gap-not-negative": args[0] - 4})
    elif what == "pruned":
        study.tell_pruned(number, "late")
    else:
        study.tell_failed(number, "lost")


@pytest.mark.parametrize("pause", [True, False])
def test_a_stopped_trial_counts_with_what_the_first_complete_ones_gained(
    tmp_path, monkeypatch, pause
):
    monkeypatch.setattr("sweeps.history.ENOUGH", 2)
    study = Study(SPEC, tmp_path)
    stops, *others = (ask(study).number for _ in range(5))
    study.report(stops, 50, 9.0)
    study.report(stops, 100, 4.0)
    if pause:
        study.paused(stops, paused=True)
    else:
        study.tell_pruned(stops, "late")
    seen = [study._told(99)[stops].values]
    for number, last in zip(reversed(others), (0.5, 2.5, 1.0, 2.0), strict=True):
        study.report(number, 100, 3.0)
        study.tell_complete(number, last, {})
        seen.append(study._told(99)[stops].values)
    assert study._told(99)[stops].state == "stopped"
    # One, then two, then the two of the lowest numbers.
    assert [value for (value,) in seen] == pytest.approx([4.0, 1.5, 2.5, 2.75, 2.5])


def test_what_has_ended_is_not_read_again(tmp_path, monkeypatch):
    study = Study(SPEC, tmp_path)
    for end in (study.tell_failed, study.tell_pruned):
        end(ask(study).number, "over")
    running = ask(study).number
    known = study._told(99)
    read = []
    monkeypatch.setattr("sweeps.history._told", lambda trial, *_: read.append(trial) or known[2])
    assert study._told(99) == known
    assert [trial.number for trial in read] == [running]
