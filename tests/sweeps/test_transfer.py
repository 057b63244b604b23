"""Warm starts and small-to-large transfer: good points carry over, rankings are compared."""

import pytest
from sweeps_scores import a_sweep, ask

from mir.errors import ConfigError
from sweeps.recipe import load_recipe
from sweeps.space import space_of
from sweeps.study import Study
from sweeps.transfer import Earlier, start_points, transfer


@pytest.fixture
def proxy(tmp_path):
    """Trials of another study, best first."""
    study = Study(a_sweep("proxy", study={"sampler": "random", "storage": "memory:"}), tmp_path)
    trials = [ask(study) for _ in range(3)]
    values = zip((1, 2, 0), (2.0, 2.5, 3.0), strict=True)
    return [Earlier(number, trials[number].shown, value) for number, value in values]


def test_a_target_study_begins_with_the_best_of_its_proxy(proxy, tmp_path):
    sweep = a_sweep("target", study={"warm_start": ["/proxy"], "warm_points": 2})
    study = Study(sweep, tmp_path)
    base, *best = study.first(0, {"/proxy": proxy}.__getitem__)
    assert base == study.space.encode(study.space.start())
    for number, (point, before) in enumerate(zip(best, proxy, strict=False)):
        assert study.ask(number, point).shown == pytest.approx(before.shown)
    assert len(best) == 2


def test_what_the_target_space_does_not_have_is_left_out(proxy):
    narrow = a_sweep(space={"optim": {"learning_rate": {"low": 0.5, "high": 1.0}}})
    assert start_points(space_of(narrow), [proxy], 4) == []
    wide = a_sweep(space={"optim": {"learning_rate": {"low": 1e-5, "high": 1.0}}})
    found = start_points(space_of(wide), [proxy], 2)
    assert [list(point) for point in found] == [["learning_rate"]] * 2


def test_rankings_are_compared_over_what_both_have_tried(proxy):
    same = [(trial.shown, trial.value + 1) for trial in proxy]
    found = transfer("proxy", proxy, same)
    assert (found.n, found.rho) == (3, pytest.approx(1.0))
    assert "over the 3 variants in common is +1.00" in str(found)
    turned = transfer("proxy", proxy, [(trial.shown, -trial.value) for trial in proxy])
    assert turned.rho == pytest.approx(-1.0)
    few = transfer("proxy", proxy, same[:2])
    assert (few.n, few.rho) == (2, None) and "too few" in str(few)


RECIPE = """
name: x
base:
  data:
    sources: {a: {style: detailed}}
    validation: {split: validation}
  optim: {samples: 64}
"""
SPACE = "space: {optim: {learning_rate: {low: 0.001, high: 0.1}%s}}\n"
BATCHES = ", global_batch: {low: 8, high: 16, integer: true}"


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ("study: {start: [{learning_rate: 3.0}]}", r"study\.start\.0: learning_rate: 3 is outside"),
        (
            "study: {start: [{learning_rate: 0.01, global_batch: 12}]}\nresources: {workers: 8}",
            r"study\.start\.0: .*12",
        ),
        ("study: {sampler: grid}\nbudget: {trials: 5}", "more than the grid's 3 points"),
    ],
)
def test_points_that_cannot_be_are_found_beforehand(more, message, tmp_path):
    path = tmp_path / "r.yaml"
    path.write_text(RECIPE + SPACE % (BATCHES if "batch" in more else "") + more)
    with pytest.raises(ConfigError, match=message):
        load_recipe(path)
