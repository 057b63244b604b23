"""The judge: told score by score it says what it says of all scores at once; rules combined."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sweeps_scores import a_sweep, scored

from jobs.events import Step
from mir.errors import ConfigError
from sweeps.decision import Verdict
from sweeps.recipe import load_recipe
from sweeps.stopping import Judge, decide

START = scored(0, 3.7, loss=8.0, gap=0.0)
moves = st.lists(
    st.tuples(
        st.integers(0, 4),
        st.sampled_from([300, 400, 500]),
        st.sampled_from([1.0, 2.0, 3.0]),
        st.sampled_from([2.0, 9.0]),
    ),
    max_size=25,
)


@settings(max_examples=100, deadline=None)
@given(moves, st.sampled_from(["median", "successive-halving", "hyperband"]))
def test_score_by_score_it_decides_as_over_all_scores_at_once(told, rule):
    sweep = a_sweep(stop={"rule": rule, "min_trials": 1})
    judge, curves = Judge(sweep), {}
    for number, samples, mir, loss in told:
        before = [s for s in curves.get(number, [START]) if s.samples < samples]
        mine = [*before, scored(samples, mir, loss=loss)]
        others = {n: curve for n, curve in curves.items() if n != number}
        expected = decide(number, mine, others, sweep=sweep, job=sweep.base)
        assert judge.decide(number, mine, sweep.base) == expected
        judge.note(number, mine[-1], counts=judge.feasibility(number, mine).feasible)
        curves[number] = mine


@settings(max_examples=100, deadline=None)
@given(moves, st.sampled_from(["median", "successive-halving"]), st.sampled_from([0.0, 0.9]))
def test_a_trial_is_paused_exactly_where_it_stands_behind_beyond_error(told, rule, confidence):
    stop = {"rule": rule, "min_trials": 1, "confidence": confidence, "pause": True}
    sweep = a_sweep(stop=stop)
    judge, curves = Judge(sweep), {}
    for number, samples, mir, loss in told:
        before = [s for s in curves.get(number, [START]) if s.samples < samples]
        mine = curves[number] = [*before, scored(samples, mir, loss=loss)]
        found = judge.decide(number, mine, sweep.base)
        counts = judge.feasibility(number, mine).feasible
        judge.note(number, mine[-1], counts=counts)
        if counts:
            behind = judge.standing(number, mine, sweep.base).behind > 0
            assert (found.verdict is Verdict.PAUSE) == behind


def test_only_comparisons_pause_and_what_is_resumed_is_left_alone_for_a_while():
    rivals = [course([2.0] * 4)] * 4
    mine = course([2.5] * 4)
    assert verdict(mine, rivals, pause=True).verdict is Verdict.PAUSE
    assert verdict(mine, rivals, pause=True, rules=["plateau"]).verdict is Verdict.PRUNE
    lost = [scored(s, 2.5, loss=9.0) for s in (300, 400)]
    assert verdict(lost, rivals, pause=True).verdict is Verdict.PRUNE
    assert verdict(mine, rivals, pause=True, audit=1.0).verdict is Verdict.AUDIT
    sweep = a_sweep(stop={"pause": True, "min_trials": 1})
    judge = Judge(sweep)
    for scores in (START, *course([2.0] * 4)):
        judge.note(0, scores, counts=True)
    left = judge.decide(1, [START, *mine], sweep.base, compared_from=601)
    assert left.verdict is Verdict.CONTINUE
    assert left.reason == "resumed, and not compared before 601 samples"
    assert judge.decide(1, [START, *mine], sweep.base, 600).verdict is Verdict.PAUSE
    behind = judge.standing(1, [START, *course([2.5])], sweep.base)
    nearer = judge.standing(1, [START, *course([2.1])], sweep.base)
    assert behind.behind > nearer.behind > 0


def verdict(mine, others=(), **stop):
    sweep = a_sweep(stop=stop)
    curves = {n: [START, *curve] for n, curve in enumerate(others)}
    return decide(99, [START, *mine], curves, sweep=sweep, job=sweep.base)


def course(values, first=300, **kwargs):
    return [scored(first + 100 * i, value, **kwargs) for i, value in enumerate(values)]


def test_a_plateau_stops_a_trial_that_others_have_left_behind():
    flat = course([2.5, 2.5, 2.5, 2.5])
    better = [course([2.0, 1.9, 1.8, 1.7])]
    found = verdict(flat, better, rules=["plateau"])
    assert found.verdict is Verdict.PRUNE
    assert found.reason.startswith("a plateau: gained 0.000 over the last 3 scores, noise 0.014")
    for mine, rivals in ((course([2.5, 2.4, 2.3, 2.2]), better), (flat, []), (flat[:3], better)):
        assert verdict(mine, rivals, rules=["plateau"]).verdict is Verdict.CONTINUE
    assert "no other trial is better" in verdict(flat, [], rules=["plateau"]).reason


def test_a_plateau_of_the_gap_looks_upwards():
    sweep = a_sweep(stop={"rules": ["plateau"]}, study={"objective": "gap"})
    better = {0: [START, *(scored(s, 2.0, gap=0.9) for s in (300, 400, 500, 600))]}
    for gaps, expected in (((0.5,) * 4, Verdict.PRUNE), ((0.5, 0.6, 0.7, 0.8), Verdict.CONTINUE)):
        mine = [START, *(scored(300 + 100 * i, 2.0, gap=gap) for i, gap in enumerate(gaps))]
        assert decide(9, mine, better, sweep=sweep, job=sweep.base).verdict is expected


def test_an_exploding_loss_stops_a_trial_at_once():
    mine = [scored(300, 2.0, loss=2.0), scored(400, 1.0, loss=4.5)]
    found = verdict(mine, rules=["divergence"])
    assert found.verdict is Verdict.PRUNE
    assert "validation loss 4.50, more than 2 x its lowest 2.00" in found.reason
    wider = [{"rule": "divergence", "factor": 3}]
    assert verdict(mine, rules=wider).verdict is Verdict.CONTINUE


def steps_of(losses, first=300, every=10):
    return [
        Step(samples=first + every * i, loss=loss, learning_rate=1, grad_norm=1,
             samples_per_second=1)
        for i, loss in enumerate(losses)
    ]  # fmt: skip


def first_stop(losses, first=300, **stop):
    sweep = a_sweep(stop={"rules": ["divergence"], **stop})
    judge = Judge(sweep)
    for step in steps_of(losses, first):
        found = judge.stepped(0, step, sweep.base)
        if found.verdict is not Verdict.CONTINUE:
            return step.samples, found
    return None


def test_a_training_loss_that_explodes_between_scores_stops_its_trial():
    samples, found = first_stop([5.0] * 8 + [2.0] * 8 + [50.0] * 8)
    assert found.verdict is Verdict.PRUNE
    assert samples == 300 + 10 * 16  # (7 x 2 + 50) / 8 = 8, above 5 and 2 x 2
    assert found.reason == (
        "diverged: training loss 8.00 over 8 steps, above 5.00 at its beginning and more than "
        "2 x its lowest 2.00 at 460 samples"
    )
    samples, found = first_stop([5.0, float("nan")])
    assert (samples, found.reason) == (310, "diverged: training loss became nan at 310 samples")


@given(st.lists(st.floats(0.1, 9.9), max_size=60))
def test_a_loss_that_never_comes_above_its_beginning_never_explodes(losses):
    assert first_stop([10.0] * 8 + losses) is None


def test_steps_stop_nothing_too_early_without_the_rule_or_for_the_audit():
    bad = [5.0] * 8 + [2.0] * 8 + [50.0] * 8
    assert first_stop(bad, first=0, min_samples=1000) is None
    assert first_stop(bad, rules=["median"]) is None
    assert first_stop(bad, audit=1.0)[1].verdict is Verdict.AUDIT
    judge, sweep = Judge(a_sweep(stop={"rules": ["divergence"]})), a_sweep()
    verdicts = []
    for step in steps_of([5.0] * 8 + [50.0] * 7):
        verdicts.append(judge.stepped(0, step, sweep.base).verdict)
    assert Verdict.PRUNE in verdicts
    judge.ended(0)
    assert judge.stepped(0, steps_of([50.0])[0], sweep.base).verdict is Verdict.CONTINUE


def test_the_first_of_several_rules_that_says_so_stops_the_trial():
    rivals = [course([2.0] * 4)] * 4
    mine = course([2.5] * 4)
    assert "against a median" in verdict(mine, rivals, rules=["median", "plateau"]).reason
    assert "plateau" in verdict(mine, rivals, rules=["plateau", "median"]).reason
    careful = [{"rule": "percentile", "percentile": 90, "min_trials": 9}, "divergence"]
    found = verdict(mine, rivals, rules=careful)
    assert found.verdict is Verdict.CONTINUE
    assert found.reason.startswith("4 other trials") and "validation loss" in found.reason
    assert verdict(mine, rivals, rules=[]).verdict is Verdict.CONTINUE


def test_an_unknown_rule_is_named_with_its_place(tmp_path):
    recipe = tmp_path / "r.yaml"
    text = """
name: x
base:
  data:
    sources: {a: {style: detailed}}
    validation: {split: validation}
  optim: {samples: 64}
space: {optim: {learning_rate: {low: 0.001, high: 0.1}}}
stop: {rules: [median, {rule: plateu}]}
"""
    recipe.write_text(text)
    with pytest.raises(ConfigError, match=r"stop\.rules\.1\.rule: 'plateu'"):
        load_recipe(recipe)
