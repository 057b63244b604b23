"""`mirsweep correlate`: what is said of the outcome, its page and its picture."""

from __future__ import annotations

import json
from dataclasses import replace

import finished_study
import pytest
from finished_study import (
    FakeJobs,
    score_of,
    take,
)
from PIL import Image

from orchestrator.correlate.choose import candidates
from orchestrator.correlate.outcome import Outcome, outcome
from orchestrator.report.correlation import beyond, scatter, table, within_lines, write_page
from orchestrator.report.correlation_png import write_picture

study, view = finished_study.study, finished_study.view


@pytest.fixture
def found(study, view):
    results, _ = take(study, view, FakeJobs())
    able = candidates(view, study)[0]
    kept = {one.trial.number: results.get(one) for one in able}
    trials = [one.trial for one in able]

    def make(measure: str = "exact-match@0", infeasible: int = 0) -> Outcome:
        away = [replace(trial, feasible=False) for trial in trials[:infeasible]]
        return outcome("demo", measure, "x", [*away, *trials[infeasible:]], kept)

    return make


def test_a_loss_and_the_score_that_it_mirrors_give_the_same_correlations(found) -> None:
    by_score, by_loss = found(), found("answer-loss@0")
    assert [c.spearman for c in by_score.found] == [c.spearman for c in by_loss.found]
    assert by_score.sentence.replace("exact-match@0", "answer-loss@0") == by_loss.sentence


def test_trials_that_count_are_judged_apart_where_others_do_not(found) -> None:
    one = found(infeasible=1)
    counted = [point for point in one.points if point.counted]
    assert 5 <= len(counted) < len(one.points)
    assert one.counted[0].n == len(counted)
    assert f"Among the {len(counted)} trials whose scores count: " in one.sentence


def test_a_score_that_cannot_tell_the_trials_apart_is_said_to_be_none(found) -> None:
    one = found()  # scores 0.03 apart, each known to 0.02
    assert one.caution == "" and "Beware" not in one.sentence
    alike = tuple(replace(p, score=0.4 + 0.001 * (p.trial % 3)) for p in one.points)
    poor = replace(one, points=alike)
    assert "exact-match@0 hardly tells these trials apart" in poor.sentence
    assert "each is known to 0.020" in poor.sentence


def test_the_outcome_is_plain_values_a_page_and_a_picture(found, tmp_path) -> None:
    one = found()
    assert json.loads(json.dumps(one.to_json()))["sentence"] == one.sentence
    assert table(one).row_count == len(one.found)
    text = write_page(one, tmp_path).read_text()
    body = text.partition("</main>")[0]
    assert body.count('<div class="figure">') == 2 and "http" not in body.partition("<body>")[2]
    with Image.open(write_picture(one, tmp_path)) as picture:
        assert picture.width > 1000


def test_a_choice_that_moves_mir_but_not_the_score_is_seen_within_each_choice(study, view) -> None:
    """Simpson's paradox: MIR ranks well with and without MoCa, and not over both."""
    results, _ = take(study, view, FakeJobs())
    able = candidates(view, study)[0]
    kept = {one.trial.number: results.get(one) for one in able}
    ranked = sorted((one.trial for one in able), key=lambda one: -score_of(one.number))
    twice = [one for trial in ranked for one in (trial, replace(trial, number=100 + trial.number))]
    kept |= {100 + number: result for number, result in kept.items()}

    def moved(trial, place):
        moca = place % 2
        last = trial.scores[-1]
        mir = {**last.mir, "mir": 1.0 + 0.1 * place + 10.0 * moca}
        scores = (*trial.scores[:-1], last.model_copy(update={"mir": mir}))
        return replace(trial, params={**trial.params, "moca": ["off", "on"][moca]}, scores=scores)

    trials = [moved(trial, place) for place, trial in enumerate(twice)]
    one = outcome("demo", "exact-match@0", "x", trials, kept)
    by_choice = {group.choice: group.found[0] for group in one.within if group.setting == "moca"}
    assert sorted(by_choice) == ["off", "on"]
    for found in by_choice.values():
        assert found.name == "MIR" and found.fraction == 1.0
        assert found.spearman.value == pytest.approx(1.0)
    over_all = next(c for c in one.found if c.name == "MIR" and c.fraction == 1.0)
    assert over_all.spearman.value < 0.9
    assert [line[:15] for line in within_lines(one)] == ["within moca off", "within moca on,"]
    assert "Within one choice" in write_page(one, study).read_text()


def test_a_runaway_trial_does_not_flatten_the_picture(found, tmp_path) -> None:
    one = found()
    assert beyond(one) is None
    assert "Beyond" not in write_page(one, tmp_path).read_text()
    mirs = sorted(point.mir for point in one.points)
    far = replace(max(one.points, key=lambda point: point.mir), mir=mirs[-1] + 9 * mirs[-1])
    ran = replace(one, points=tuple(far if p.trial == far.trial else p for p in one.points))
    (low, high), gone = beyond(ran)
    assert gone == [far]
    assert low < mirs[0] and mirs[-2] < high < far.mir
    assert (
        f"Beyond: trial {far.trial} at MIR {far.mir:.2f}." in write_page(ran, tmp_path).read_text()
    )
    assert scatter(ran)["layout"]["xaxis"]["range"] == [low, high]
