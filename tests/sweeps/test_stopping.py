"""Stopping: the rules agree with Optuna's pruners, act only on what counts, and give reasons."""

import math

import optuna
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sweeps_scores import a_sweep, scored

from mir.errors import ProtocolError
from sweeps.decision import Verdict
from sweeps.rules import Comparison, Point, Race, bracket_of, compare
from sweeps.spec import StopSpec
from sweeps.stopping import audited, decide, min_samples, separates

START = scored(0, 3.7, loss=8.0, gap=0.0)


def judge(mine, others, *, number=99, guard=None, samples=1000, **stop):
    study = {"guard": {"constraints": guard}} if guard else {}
    sweep = a_sweep(samples=samples, stop=stop, study=study)
    curves = {n: [START, *curve] for n, curve in enumerate(others)}
    return decide(number, [START, *mine], curves, sweep=sweep, job=sweep.base)


def flat(mir, **kwargs):
    return [scored(samples, mir, **kwargs) for samples in range(100, 1001, 100)]


RIVALS = [flat(2.5), flat(2.6), flat(2.6), flat(2.7)]


def test_a_bad_trial_is_stopped_with_a_reason_that_names_everything():
    found = judge([scored(500, 2.91, error=0.04)], RIVALS)
    assert found.verdict is Verdict.PRUNE
    assert found.reason == "MIR 2.91 +/- 0.04 against a median of 2.60 +/- 0.01 at 500 samples"


def test_a_good_trial_goes_on():
    found = judge([scored(500, 2.4)], RIVALS)
    assert found.verdict is Verdict.CONTINUE
    assert "MIR 2.40" in found.reason


def test_overlapping_error_bars_stop_nothing_unless_they_are_ignored():
    mine = [scored(500, 2.65, error=0.2)]
    careful = judge(mine, RIVALS, confidence=0.8)
    assert careful.verdict is Verdict.CONTINUE
    assert "not separate at confidence 0.8" in careful.reason
    assert judge(mine, RIVALS, confidence=0).verdict is Verdict.PRUNE


def test_separation_is_one_sided_with_both_errors():
    other = Comparison(bool, 1.0, 0.3, "")
    z = 0.8416212  # the 80 % quantile of the normal distribution
    edge = 1.0 + z * math.hypot(0.4, 0.3)
    assert not separates(Point(1, edge - 1e-4, 0.4), other, 0.8)
    assert separates(Point(1, edge + 1e-4, 0.4), other, 0.8)
    assert separates(Point(1, 1.0, 9.0), other, 0)
    assert not separates(Point(1, 1.0, 9.0), other, 0.2)


def test_no_score_takes_part_before_min_samples():
    found = judge([scored(200, 9.0)], RIVALS)
    assert (found.verdict, found.reason) == (
        Verdict.CONTINUE,
        "no score takes part before 250 samples",
    )
    assert judge([scored(200, 9.0)], RIVALS, min_samples=200).verdict is Verdict.PRUNE


def test_early_scores_of_others_do_not_take_part_either():
    early = [[scored(200, 1.0)] for _ in range(4)]
    found = judge([scored(500, 9.0)], early)
    assert found.reason == "0 other trials at 500 samples, 4 needed to compare"


@pytest.mark.parametrize(("warmup", "expected"), [(0.03, 250), (0.4, 400)])
def test_by_default_warm_up_and_a_first_quarter_are_left_out(warmup, expected):
    job = a_sweep().base
    job = job.model_copy(update={"optim": job.optim.model_copy(update={"warmup_ratio": warmup})})
    assert min_samples(StopSpec(), job) == expected
    assert min_samples(StopSpec(min_samples=7), job) == 7


def test_a_trial_at_its_full_budget_is_never_stopped():
    found = judge([scored(1000, 9.0, loss=99.0)], RIVALS)
    assert (found.verdict, found.reason) == (Verdict.CONTINUE, "the full budget is spent")


def test_too_few_others_stop_nothing():
    found = judge([scored(500, 9.0)], RIVALS[:3])
    assert found.reason == "3 other trials at 500 samples, 4 needed to compare"
    assert judge([scored(500, 9.0)], RIVALS[:3], min_trials=3).verdict is Verdict.PRUNE


def test_the_rule_none_compares_nothing():
    assert judge([scored(500, 9.0)], RIVALS, rule="none").reason == "no rule compares trials"


def test_infeasible_scores_of_others_set_no_standard():
    """Collapsed rivals with the lowest MIR of all would otherwise stop every honest trial."""
    collapsed = [flat(1.0, loss=9.0) for _ in range(8)]
    honest = judge([scored(500, 2.4)], [*RIVALS, *collapsed])
    assert honest.verdict is Verdict.CONTINUE
    assert "median of 2.60" in honest.reason


def test_a_collapsed_trial_is_stopped_by_the_guard_after_its_patience():
    first = judge([scored(300, 1.0, loss=9.0)], RIVALS)
    assert first.verdict is Verdict.CONTINUE
    assert first.reason.startswith("infeasible at 1 score in a row: validation loss 9.00")
    second = judge([scored(300, 1.0, loss=9.0), scored(400, 0.9, loss=9.0)], RIVALS)
    assert second.verdict is Verdict.PRUNE
    assert "infeasible at 2 scores in a row" in second.reason


def test_patience_counts_in_a_row_past_min_samples_only_and_zero_is_endless():
    bad = {"loss": 9.0}
    recovered = [scored(300, 1.0, **bad), scored(400, 2.5), scored(500, 1.0, **bad)]
    early = [scored(100, 1.0, **bad), scored(200, 1.0, **bad), scored(300, 1.0, **bad)]
    for mine in (recovered, early):
        assert judge(mine, RIVALS).verdict is Verdict.CONTINUE
    long = [scored(samples, 1.0, **bad) for samples in range(300, 900, 100)]
    assert judge(long, RIVALS, infeasible_patience=0).verdict is Verdict.CONTINUE
    assert judge(long, RIVALS, infeasible_patience=6).verdict is Verdict.PRUNE
    assert judge(long, [], rule="none").verdict is Verdict.PRUNE


def test_constraints_that_compare_see_the_others():
    guard = {"loss-near-best": 0.1}
    mine = [scored(300, 2.0, loss=4.0), scored(400, 2.0, loss=4.0)]
    found = judge(mine, RIVALS, guard=guard)
    assert found.verdict is Verdict.PRUNE
    assert "10 % above the best feasible one" in found.reason


def test_the_audit_lets_a_fixed_share_of_stopped_trials_run_on():
    mine = [scored(500, 9.0)]
    numbers = range(200)
    verdicts = [judge(mine, RIVALS, number=n, audit=0.3).verdict for n in numbers]
    sweep = a_sweep(stop={"audit": 0.3})
    assert [v is Verdict.AUDIT for v in verdicts] == [audited(sweep, n) for n in numbers]
    assert 0.2 < sum(v is Verdict.AUDIT for v in verdicts) / len(numbers) < 0.4
    assert Verdict.PRUNE in verdicts
    everyone = judge(mine, RIVALS, audit=1.0)
    assert everyone.verdict is Verdict.AUDIT
    assert everyone.reason.startswith("runs on for the audit: MIR 9.00")
    assert not audited(a_sweep(stop={"audit": 0.0}), 3)


def test_scores_of_another_protocol_are_refused():
    with pytest.raises(ProtocolError, match="pairs"):
        judge([scored(500, 2.0)], [flat(2.5, pairs=100)])


def test_the_gap_counts_upwards():
    sweep = a_sweep(study={"objective": "gap"}, stop={"min_trials": 2})
    others = {n: [START, scored(500, 3.0, gap=gap)] for n, gap in enumerate((0.5, 0.6))}
    for gap, verdict in ((0.1, Verdict.PRUNE), (0.9, Verdict.CONTINUE)):
        mine = [START, scored(500, 1.0, gap=gap)]
        assert decide(9, mine, others, sweep=sweep, job=sweep.base).verdict is verdict


def race(mine, rivals, direction="minimize", number=99, **kwargs):
    """mine, rivals: values by samples."""
    fields = {"min_samples": 100, "budget": 900, "slack": 100, "seed": 0} | kwargs
    return Race(
        number=number,
        mine=[Point(samples, value, 0.0) for samples, value in mine.items()],
        rivals={
            n: [Point(samples, value, 0.0) for samples, value in rival.items()]
            for n, rival in enumerate(rivals)
        },
        direction=direction,
        **fields,
    )


VALUES = st.floats(0, 9).map(lambda value: round(value, 2))


@settings(max_examples=60, deadline=None)
@given(VALUES, st.lists(VALUES, min_size=1, max_size=9), st.sampled_from([10.0, 25.0, 50.0, 75.0]))
def test_percentile_and_median_are_optunas_in_both_directions(mine, rivals, percentile):
    for direction in ("minimize", "maximize"):
        study = optuna.create_study(direction=direction)
        for value in rivals:
            study.add_trial(
                optuna.trial.create_trial(value=value, intermediate_values={100: value})
            )
        trial = study.ask()
        trial.report(mine, 100)
        pruner = optuna.pruners.PercentilePruner(percentile, n_startup_trials=0)
        expected = pruner.prune(study, study.trials[-1])
        stop = StopSpec(rule="percentile", percentile=percentile, min_trials=1)
        answer = compare(race({100: mine}, [{100: v} for v in rivals], direction), stop)
        assert answer.behind == expected
        worse = mine > answer.value if direction == "minimize" else mine < answer.value
        assert answer.behind == worse or mine == pytest.approx(answer.value)
        if percentile == 50:
            median = StopSpec(rule="median", percentile=10, min_trials=1)
            again = compare(race({100: mine}, [{100: v} for v in rivals], direction), median)
            assert again == answer


@settings(max_examples=60, deadline=None)
@given(VALUES, st.lists(VALUES, min_size=1, max_size=9), st.integers(2, 4))
def test_a_rung_lets_the_best_share_go_on(mine, rivals, factor):
    stop = StopSpec(rule="successive-halving", min_trials=1, reduction_factor=factor)
    answer = compare(race({100: mine}, [{100: v} for v in rivals]), stop)
    ranked = sorted([mine, *rivals])
    goes_on = ranked[: max(len(ranked) // factor, 1)]
    assert answer.behind == (mine > goes_on[-1])
    assert answer.value == goes_on[-1]


CURVE = st.lists(VALUES, min_size=9, max_size=9)


@settings(max_examples=60, deadline=None)
@given(
    st.lists(CURVE, min_size=1, max_size=9),
    st.integers(2, 4),
    st.sampled_from(["minimize", "maximize"]),
    st.integers(0, 1),
)
def test_whole_sweeps_by_halving_are_optunas(curves, factor, direction, bracket):
    """Trial after trial, score after score; a hyperband bracket is halving from a later rung."""
    study = optuna.create_study(direction=direction)
    pruner = optuna.pruners.SuccessiveHalvingPruner(
        min_resource=100, reduction_factor=factor, min_early_stopping_rate=bracket
    )
    stop = StopSpec(rule="successive-halving", min_trials=1, reduction_factor=factor)
    first = 100 * factor**bracket
    rivals = []
    for curve in curves:
        trial = study.ask()
        seen, expected = {}, False
        for samples, value in zip(range(100, 1000, 100), curve, strict=True):
            seen[samples] = value
            trial.report(value, samples)
            expected = pruner.prune(study, study.trials[-1])
            answer = compare(race(seen, rivals, direction, min_samples=first), stop)
            found = isinstance(answer, Comparison) and answer.behind
            assert found == expected, (samples, answer)
            if expected:
                break
        state = optuna.trial.TrialState.PRUNED if expected else None
        study.tell(trial, None if expected else curve[-1], state=state)
        rivals.append(seen)


def test_halving_judges_once_a_rung():
    stop = StopSpec(rule="successive-halving", min_trials=2)
    rivals = [{100: 1.0, 300: 1.0, 900: 1.0}] * 2
    assert compare(race({100: 5.0}, rivals), stop).behind
    assert compare(race({100: 5.0, 200: 5.0}, rivals), stop) == "between rungs"
    second = compare(race({100: 0.5, 200: 5.0, 300: 5.0}, rivals), stop)
    assert second.behind
    assert second.label.format("1") == "1 for the best 1 in 3 of 3 at rung 2"


def test_a_score_that_crosses_several_rungs_falls_at_the_first_that_stops_it():
    stop = StopSpec(rule="successive-halving", min_trials=1)
    answer = compare(race({300: 5.0}, [{100: 1.0, 300: 1.0}, {100: 2.0, 300: 9.0}]), stop)
    assert answer.behind
    assert "at rung 1" in answer.label


def test_halving_waits_for_enough_others_at_the_rung():
    stop = StopSpec(rule="successive-halving", min_trials=2)
    found = compare(race({100: 5.0}, [{100: 1.0}]), stop)
    assert found == "1 other trial at 100 samples, 2 needed to compare"


def test_brackets_follow_their_shares_and_never_change():
    probe = race({100: 1.0}, [])
    brackets = [bracket_of(probe, number, 3) for number in range(3000)]
    assert brackets == [bracket_of(probe, number, 3) for number in range(3000)]
    shares = [brackets.count(bracket) / 3000 for bracket in range(3)]
    # Budget / min_samples = 9 = 3^2: three brackets, 9 : 4.5 : 3, rounded up.
    assert shares == pytest.approx([9 / 17, 5 / 17, 3 / 17], abs=0.03)


def test_hyperband_is_halving_within_a_bracket():
    probe = race({100: 5.0}, [{100: 1.0, 300: 1.0}] * 30)
    stop = StopSpec(rule="hyperband", min_trials=1)
    for number in range(12):
        one = Race(**{**vars(probe), "number": number})
        bracket = bracket_of(one, number, 3)
        answer = compare(one, stop)
        if bracket == 0:
            assert answer.behind
        else:
            assert answer == "between rungs"


def test_a_median_between_two_points_carries_half_of_each_error():
    points = {0: [Point(100, 1.0, 0.3)], 1: [Point(100, 2.0, 0.4)]}
    one = Race(**{**vars(race({100: 9.0}, [])), "rivals": points})
    answer = compare(one, StopSpec(min_trials=2))
    assert (answer.value, answer.error) == (1.5, pytest.approx(0.25))


def test_rivals_are_taken_at_the_same_samples_within_one_cadence():
    stop = StopSpec(min_trials=1)
    assert compare(race({300: 2.0}, [{210: 1.0, 400: 9.0}]), stop).value == 1.0
    assert isinstance(compare(race({300: 2.0}, [{200: 1.0, 400: 9.0}]), stop), str)
