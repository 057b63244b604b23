"""The number of ranks as a search parameter: drawn, shown, kept beside the job, split checked."""

import pytest
from sweeps_scores import a_sweep, ask

from jobs.spec import JobSpec
from mir.errors import ConfigError
from sweeps.recipe import load_recipe
from sweeps.space import parse_space, space_of
from sweeps.study import Study

RANKS = {"resources": {"workers": {"choices": [1, 2, 5]}}}


def sweep(space=RANKS, **fields):
    return a_sweep(space=space, **fields)


def test_the_number_of_ranks_stands_beside_the_job():
    space = space_of(sweep())
    made, shown = space.job({"resources.workers": 2})
    assert made == sweep().base
    assert shown == {"workers": 2}
    assert space.workers({"resources.workers": 2}) == 2
    assert space_of(a_sweep()).workers({}) is None


def test_the_first_trial_has_the_recipes_own_number(tmp_path):
    study = Study(sweep(resources={"workers": 2}, study={"sampler": "random"}), tmp_path)
    trials = [ask(study) for _ in range(12)]
    assert trials[0].workers == 2
    assert {trial.workers for trial in trials} == {1, 2, 5}
    assert len({trial.job.digest for trial in trials}) == 1


def test_a_range_of_ranks_takes_whole_numbers():
    space = {"resources": {"workers": {"low": 1, "high": 2, "integer": True}}}
    assert space_of(sweep(space)).workers({"resources.workers": 2}) == 2
    half = {"resources": {"workers": {"low": 1, "high": 2}}}
    base = sweep().base
    assert "takes whole numbers" in parse_space(base, half)[1][0].text


@pytest.mark.parametrize(
    ("space", "place", "text"),
    [
        ({"resources": {"workers": {"choices": [1, 3]}}}, "resources.workers", "use 9 or 12"),
        ({"resources": {"workers": {"choices": [0, 1]}}}, "resources.workers", "0"),
        ({"resources": {"cpus": {"choices": [1, 2]}}}, "resources.cpus", "Known: workers"),
        ({"resources": {"workers": 2}}, "resources.workers", "does not vary"),
        (
            {**RANKS, "deepspeed": {"micro_batch": {"choices": [2, 5]}}},
            "resources.workers",
            "cannot be divided over 2 ranks x micro_batch 2",
        ),
    ],
)
def test_what_cannot_be_split_or_searched_is_refused_with_its_place(space, place, text):
    mistakes = parse_space(sweep().base, space)[1]
    assert mistakes
    found = [m for m in mistakes if ".".join(map(str, m.path)).startswith(f"space.{place}")]
    assert found, mistakes
    assert any(text in m.text for m in found), found


def test_a_batch_varies_over_what_a_fixed_number_of_ranks_can_share():
    space = {"optim": {"global_batch": {"choices": [6, 9]}}}
    assert parse_space(sweep().base, space, workers=3)[1] == []
    mistakes = parse_space(sweep().base, space, workers=2)[1]
    assert [m.path[:3] for m in mistakes] == [("space", "optim", "global_batch")]
    assert "9 cannot be divided over 2 ranks: use 8 or 10" in mistakes[0].text


def test_a_fixed_gang_that_cannot_share_the_batch_is_refused_when_the_recipe_is_read(tmp_path):
    recipe = tmp_path / "r.yaml"
    recipe.write_text(
        """
name: x
base:
  data:
    sources: {a: {style: detailed}}
    validation: {split: validation}
  optim: {samples: 64, global_batch: 8}
space: {optim: {learning_rate: {low: 0.001, high: 0.1}}}
resources: {workers: 3}
"""
    )
    words = r"r\.yaml:9: resources\.workers: optim\.global_batch: 8 cannot be divided over 3 ranks"
    with pytest.raises(ConfigError, match=words):
        load_recipe(recipe)


def test_a_job_does_not_know_its_ranks():
    assert "resources" not in JobSpec.model_fields
