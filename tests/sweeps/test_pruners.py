"""Optuna's pruners give the verdict, over the points of the board shown to them as a study."""

from dataclasses import replace

import optuna
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from optuna.pruners import (
    BasePruner,
    HyperbandPruner,
    NopPruner,
    PercentilePruner,
    SuccessiveHalvingPruner,
)
from sweeps_scores import a_sweep, scored

from mir.errors import MirsweepError
from sweeps import pruners
from sweeps.board import EVERYONE, Board
from sweeps.decision import Verdict
from sweeps.pruners import View
from sweeps.rules import Comparison, Point, Race, ask, bracket_of
from sweeps.spec import RuleSpec
from sweeps.stopping import Judge

RULES = ["median", "percentile", "successive-halving", "hyperband"]
DIRECTIONS = st.sampled_from(["minimize", "maximize"])
ANY = st.floats(-1e6, 1e6)
TIED = st.integers(0, 4).map(float)
POINTS = st.lists(
    st.tuples(st.integers(0, 12), st.sampled_from([100, 250, 300, 900]), ANY | TIED), max_size=40
)


def a_race(number=99, value=5.0, samples=300, direction="minimize"):
    return Race(
        number=number, mine=[Point(samples, value, 0.0)], rivals={}, direction=direction,
        min_samples=100, budget=900, slack=100, seed=0,
    )  # fmt: skip


def a_board(points):
    board = Board()
    for number, samples, value in points:
        board.add(number, Point(samples, value, 0.0))
    return board


def answers(race, board, rule, monkeypatch, says):
    """Is the trial behind, where Optuna's pruners say `says` to all, and who was asked."""
    asked = []

    def prune(self, study, trial):
        asked.append(self)
        return says

    with monkeypatch.context() as patch:
        for pruner in (PercentilePruner, SuccessiveHalvingPruner):
            patch.setattr(pruner, "prune", prune)
        return ask(race, board, RuleSpec(rule=rule, min_trials=1)).behind, asked


@pytest.mark.parametrize("rule", RULES)
def test_nobody_falls_behind_unless_the_pruner_says_so(rule, monkeypatch):
    race = next(one for n in range(9) if bracket_of(one := a_race(n), n, 3) == 0)
    board = a_board([(n, 300, 1.0) for n in range(100, 140)])
    halving = {rule in ("successive-halving", "hyperband")}
    for says in (True, False):
        found, asked = answers(race, board, rule, monkeypatch, says)
        assert found is says
        assert {isinstance(pruner, SuccessiveHalvingPruner) for pruner in asked} == halving
    leader = replace(race, mine=[Point(300, 0.5, 0.0)])
    assert answers(leader, board, rule, monkeypatch, True) == (False, [])


def test_inside_a_bracket_hyperbands_own_pruner_is_asked(monkeypatch):
    hyperband = HyperbandPruner(min_resource=100, max_resource=900, reduction_factor=3)
    study = optuna.create_study()
    study.ask()
    hyperband.prune(study, study.trials[0])
    for bracket, expected in enumerate(hyperband._pruners):
        numbers = [n for n in range(60) if bracket_of(a_race(), n, 3) == bracket]
        board = a_board([(n, 900, 1.0) for n in numbers])
        race = a_race(numbers[0], samples=900)
        _, asked = answers(race, board, "hyperband", monkeypatch, True)
        assert vars(asked[0]) == vars(expected)
    assert bracket == 2


@pytest.mark.parametrize("rule", RULES[:3])
def test_what_the_pruner_lets_go_on_is_neither_stopped_nor_kept_paused(rule, monkeypatch):
    sweep = a_sweep(stop={"rule": rule, "min_samples": 100, "min_trials": 1, "pause": True})
    judge, start = Judge(sweep), scored(0, 3.7, loss=8.0, gap=0.0)
    judge.note(0, scored(100, 1.0), counts=True)
    mine = [start, scored(100, 2.0)]
    assert judge.decide(1, mine, sweep.base).verdict is Verdict.PAUSE
    assert judge.standing(1, mine, sweep.base).behind > 0
    for pruner in (PercentilePruner, SuccessiveHalvingPruner):
        monkeypatch.setattr(pruner, "prune", NopPruner.prune)
    assert judge.decide(1, mine, sweep.base).verdict is Verdict.CONTINUE
    assert judge.standing(1, mine, sweep.base).behind <= 0


@settings(max_examples=300, deadline=None)
@given(POINTS, ANY | TIED, st.sampled_from([100, 300, 900]), DIRECTIONS, st.integers(0, 3))
def test_a_trial_that_is_not_behind_the_figure_is_never_pruned(
    points, value, samples, direction, rule
):
    """So the pruner need not be asked about it; the figure is a necessary condition."""
    board = a_board(points)
    race = a_race(value=value, samples=samples, direction=direction)
    for percentile in (1.0, 37.5, 50.0, 99.0):
        spec = RuleSpec(rule=RULES[rule], min_trials=1, percentile=percentile)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("sweeps.rules._worse", lambda *_: True)  # so that it is always asked
            found = ask(race, board, spec)
            if isinstance(found, Comparison):
                behind = value > found.value if direction == "minimize" else value < found.value
                assert found.behind == behind


@settings(max_examples=150, deadline=None)
@given(st.lists(ANY | TIED, min_size=1, max_size=12), ANY | TIED, DIRECTIONS, st.integers(0, 2))
def test_the_view_is_told_what_a_real_study_is_told(values, value, direction, rung):
    """The same pruners over a study in Optuna's own storage, in which the rungs were climbed."""
    step, mark = 100 * 3**rung, f"completed_rung_{rung}"
    study = optuna.create_study(direction=direction)
    for other in values:
        study.add_trial(
            optuna.trial.create_trial(
                value=other, intermediate_values={step: other}, system_attrs={mark: other}
            )
        )
    passed = {f"completed_rung_{k}": value for k in range(rung)}
    study.add_trial(
        optuna.trial.create_trial(
            state=optuna.trial.TrialState.RUNNING,
            intermediate_values={step: value},
            system_attrs=passed,
        )
    )
    board = a_board((n, step, other) for n, other in enumerate(values))
    at, on_rung = board.at(step, 100, 100, 99), board.rung(step, EVERYONE, 100, 99)
    for pruner, view in (
        (pruners.median(), View(at.values, step, direction)),
        (pruners.percentile(25.0), View(at.values, step, direction)),
        (pruners.halving(100, 3, 0), View(on_rung.values, step, direction, rung)),
    ):
        expected = pruner.prune(study, study.trials[-1])
        for _ in range(2):
            assert pruners.prunes(pruner, value, view) == expected


@settings(max_examples=300, deadline=None)
@given(
    st.lists(ANY | TIED, min_size=1, max_size=60).map(sorted),
    ANY | TIED,
    DIRECTIONS,
    st.sampled_from([1.0, 12.5, 25.0, 33.3, 50.0, 75.0, 99.0]),
    st.integers(2, 5),
)
def test_values_far_from_the_cut_change_no_verdict(values, value, direction, best, factor):
    percent = best if direction == "minimize" else 100 - best
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pruners, "SHOWN", 4)
        quantile = pruners.near_quantile(values, percent)
        rung = pruners.near_rung(values, factor, direction)
    assert len(rung) <= max(4, 2 * factor) + factor
    for pruner, near, passed in (
        (pruners.percentile(best), quantile, None),
        (pruners.halving(100, factor, 0), rung, 0),
    ):
        for mine in (value, *values):
            all_told, some = (
                pruners.prunes(pruner, mine, View(others, 100, direction, passed))
                for others in (values, near)
            )
            assert some == all_told


@pytest.mark.parametrize("rule", RULES)
def test_a_question_over_thousands_shows_the_pruner_few(rule, monkeypatch):
    shown = []
    whole = View.get_trials
    monkeypatch.setattr(
        View, "get_trials", lambda *args, **kw: shown.append(whole(*args, **kw)) or shown[-1]
    )
    board = a_board([(n, 300, n / 7) for n in range(100, 5100)])
    race = next(one for n in range(9) if bracket_of(one := a_race(n, 1e4), n, 3) == 0)
    assert ask(race, board, RuleSpec(rule=rule, min_trials=1)).behind
    assert max(map(len, shown)) <= 260


class Curious(BasePruner):
    """A pruner of a later Optuna that looks at other things of the study."""

    def __init__(self, look):
        self.look = look

    def prune(self, study, trial):
        self.look(study)
        return True


def kept(study):
    return [trial.system_attrs for trial in list(study.get_trials())]


def kept_values(study):
    return [values[100] for values in [t.intermediate_values for t in study.get_trials()]]


@pytest.mark.parametrize(
    ("look", "lacking"),
    [
        (lambda study: study.best_trial, "'View' object has no attribute 'best_trial'"),
        (lambda study: study._storage.get_trial(0), "no attribute 'get_trial'"),
        (lambda study: [trial.params for trial in study.get_trials()], "no attribute 'params'"),
        (lambda study: study.get_trials()[0], "not subscriptable"),
        (kept, "no attribute 'system_attrs'"),
        (kept_values, "(100)"),
    ],
)
def test_a_pruner_that_asks_for_more_than_the_view_has_is_named(look, lacking):
    view = View([1.0], 100, "minimize")
    with pytest.raises(MirsweepError) as refused:
        pruners.prunes(Curious(look), 2.0, view)
    said = str(refused.value)
    version = optuna.__version__
    assert said.startswith(f"stop: Curious of Optuna {version} asks for more than it is shown (")
    assert lacking in said
    assert said.endswith("): install a version that passes tests/sweeps/test_pruners.py")


@pytest.mark.parametrize("rule", RULES)
def test_a_pruner_that_asks_for_more_is_found_before_anything_starts(rule, monkeypatch):
    """Else the sweep would end hours in, at the first comparison whose error bars separate."""
    judged = {"rules": ["divergence", rule]}
    Judge(a_sweep(stop=judged))
    for pruner in (PercentilePruner, SuccessiveHalvingPruner):
        monkeypatch.setattr(pruner, "prune", Curious(lambda study: study.best_trial).prune)
    with pytest.raises(MirsweepError, match="has no attribute 'best_trial'"):
        Judge(a_sweep(stop=judged))
    Judge(a_sweep(stop={"rule": "none"}))


def test_only_those_that_take_part_are_shown_and_they_count_as_complete():
    board = a_board([(0, 100, 1.0), (1, 210, 2.0), (2, 300, 3.0), (99, 300, 9.0)])
    at, on_rung = board.at(300, 100, 100, 99), board.rung(300, EVERYONE, 100, 99)
    states = optuna.trial.TrialState
    view, rung = View(at.values, 300, "minimize"), View(on_rung.values, 300, "minimize", 1)
    complete = view.get_trials(deepcopy=False, states=(states.COMPLETE,))
    assert len(complete) == 2
    shown = [(dict(t.intermediate_values), dict(t.system_attrs)) for t in complete]
    assert shown == [({300: 2.0}, {}), ({300: 3.0}, {})]
    assert len(view.get_trials(deepcopy=False, states=(states.RUNNING, states.PRUNED))) == 0
    assert [dict(t.system_attrs) for t in rung.get_trials(False)] == [{"completed_rung_1": 3.0}]


def test_where_error_bars_overlap_the_pruner_is_not_asked(monkeypatch):
    sweep = a_sweep(stop={"min_samples": 100, "min_trials": 1})
    judge, start = Judge(sweep), scored(0, 3.7, loss=8.0, gap=0.0)
    judge.note(0, scored(100, 1.0, error=0.5), counts=True)
    monkeypatch.delattr(PercentilePruner, "prune")
    mine = [start, scored(100, 1.1, error=0.5)]
    found = judge.decide(1, mine, sweep.base)
    assert found.reason.endswith(", not separate at confidence 0.8")
    assert judge.standing(1, mine, sweep.base).behind < 0
