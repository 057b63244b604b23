"""The space: every point is a job, names and weights as people see them, and back."""

import copy
import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jobs.spec import JobSpec
from mir.errors import ConfigError
from sweeps.axes import get
from sweeps.space import job_for, parse_space, space_of, suggest
from sweeps.space_parser import short_names
from sweeps.spec import SweepSpec
from sweeps.start import point_mistakes

BASE = {
    "data": {
        "sources": {
            name: {"style": name, "size": 400} for name in ("detailed", "short", "tags", "glyphs")
        },
        "validation": {"split": "validation"},
    },
    "optim": {"samples": 1000},
}
MOCA = {
    "branches": {
        "off": None,
        "on": {"kind": "scale-shift", "init_std": {"low": 0.0, "high": 0.05}},
        "noise": {"kind": "noise", "learning_rate": {"low": 1e-5, "high": 1e-2, "log": True}},
    }
}
SPACE = {
    "data": {"mixture": {"floor": 0.05}},
    "optim": {
        "learning_rate": {"low": 1e-4, "high": 1e-1, "log": True},
        "global_batch": {"choices": [8, 16]},
        "samples": {"low": 500, "high": 1000, "integer": True},
    },
    "model": {"moca": MOCA},
}


def sweep(space=None, base=None):
    return SweepSpec(name="demo", base=base or BASE, space=space or SPACE)


class Drawn:
    """Answers as Optuna would, from hypothesis."""

    def __init__(self, data):
        self.data = data

    def suggest_float(self, name, low, high, *, log=False):
        return self.data.draw(st.floats(low, high), label=name)

    def suggest_int(self, name, low, high, *, log=False):
        return self.data.draw(st.integers(low, high), label=name)

    def suggest_categorical(self, name, choices):
        return self.data.draw(st.sampled_from(choices), label=name)


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_every_point_is_a_job_whose_shown_parameters_lead_back_to_it(data):
    demo = sweep()
    space = space_of(demo)
    raw = suggest(space, Drawn(data))
    job, shown = job_for(demo, raw)
    assert job.optim.learning_rate == shown["learning_rate"] == raw["optim.learning_rate"]
    assert job.optim.samples == shown["samples"]
    assert sum(job.data.mixture.values()) == pytest.approx(1)
    assert job.data.mixture == {n: shown[f"mixture/{n}"] for n in job.data.sources}
    assert (job.model.moca is None) == (shown["moca"] == "off")
    if shown["moca"] == "on":
        assert job.model.moca.init_std == shown["moca/init_std"]
    again, shown_again = space.job(space.encode(shown))
    assert shown_again == pytest.approx(shown, abs=1e-6)
    assert again.optim == job.optim
    assert again.model == job.model


def test_only_the_chosen_branch_is_drawn():
    space = space_of(sweep())
    raw = space.encode({**space.start(), "moca": "noise", "moca/learning_rate": 1e-3})
    assert raw["model.moca"] == "noise"
    assert raw["model.moca/noise/learning_rate"] == 1e-3
    assert "model.moca/on/init_std" not in raw
    job, shown = space.job(raw)
    assert job.model.moca.kind == "noise"
    assert "moca/init_std" not in shown


def test_a_branch_replaces_the_base_as_a_whole():
    base = copy.deepcopy(BASE) | {"model": {"moca": {"init_std": 0.04, "layers": [1, 2]}}}
    space = space_of(sweep(base=base))
    assert space.start()["moca"] == "on"
    assert space.start()["moca/init_std"] == 0.04
    job, _ = space.job(space.encode(space.start()))
    assert job.model.moca.layers == "all"


def test_the_start_is_the_base_with_the_uniform_mixture():
    space = space_of(sweep())
    job, shown = space.job(space.encode(space.start()))
    assert shown["learning_rate"] == JobSpec.model_validate(BASE).optim.learning_rate
    assert list(job.data.mixture.values()) == pytest.approx([0.25] * 4)
    assert job.model.moca is None


def sized(**sizes):
    sources = {name: {"style": "detailed", "size": size} for name, size in sizes.items()}
    return {**BASE, "data": {**BASE["data"], "sources": sources}}


def test_the_natural_point_weighs_sources_by_their_sizes_above_floors_beside_fixed_weights():
    base = sized(a=100, b=300, c=600)
    plain = space_of(sweep({"data": {"mixture": {}}}, base))
    weights = plain.job(plain.encode(plain.natural()))[0].data.weights
    assert weights == pytest.approx({"a": 0.1, "b": 0.3, "c": 0.6})
    bound = space_of(sweep({"data": {"mixture": {"floor": 0.1, "fixed": {"c": 0.4}}}}, base))
    weights = bound.job(bound.encode(bound.natural()))[0].data.weights
    assert weights == pytest.approx({"a": 0.1 + 0.4 / 4, "b": 0.1 + 0.4 * 3 / 4, "c": 0.4})


@pytest.mark.parametrize(
    ("space", "base", "words"),
    [
        ({"data": {"mixture": {}}}, sized(a=1, b=None), r"set base\.data\.sources\.b\.size"),
        ({"optim": {"learning_rate": {"low": 0.1, "high": 1}}}, BASE, "no mixture varies"),
    ],
)
def test_a_natural_point_that_is_not_known_is_refused_at_its_place(space, base, words):
    recipe = SweepSpec(name="demo", base=base, space=space, study={"start": ["natural"]})
    (mistake,) = point_mistakes(recipe)
    assert mistake.path == ("study", "start", 0)
    with pytest.raises(ConfigError, match=words):
        space_of(recipe).natural()


def test_a_start_outside_the_range_is_moved_to_its_edge():
    space = space_of(sweep({"optim": {"learning_rate": {"low": 0.01, "high": 0.1}}}))
    assert space.start() == {"learning_rate": 0.01}


def test_the_seed_of_a_job_can_be_given():
    demo = sweep()
    raw = space_of(demo).encode(space_of(demo).start())
    assert job_for(demo, raw)[0].seed == 0
    assert job_for(demo, raw, seed=7)[0].seed == 7


def test_sources_outside_a_partial_mixture_weigh_nothing():
    space = space_of(sweep({"data": {"mixture": {"mixture": ["short", "tags"]}}}))
    job, shown = space.job(space.encode({"mixture/short": 0.25, "mixture/tags": 0.75}))
    assert job.data.weights == pytest.approx(
        {"detailed": 0, "short": 0.25, "tags": 0.75, "glyphs": 0}, abs=1e-9
    )
    assert shown["mixture/glyphs"] == 0


def test_fixed_weights_stay():
    space = space_of(sweep({"data": {"mixture": {"fixed": {"tags": 0.4}}}}))
    job, _ = space.job(space.encode(space.start()))
    assert job.data.mixture["tags"] == 0.4
    assert job.data.mixture["short"] == pytest.approx(0.2)


@settings(max_examples=40, deadline=None)
@given(st.data())
def test_caps_follow_the_samples_that_were_drawn(data):
    space = space_of(
        sweep(
            {
                "data": {"mixture": {"max_epochs": 1.0}},
                "optim": {"samples": {"low": 400, "high": 1200, "integer": True}},
            }
        )
    )
    job, _ = space.job(space.draw(Drawn(data)))
    for name, weight in job.data.mixture.items():
        assert weight * job.optim.samples / job.data.sources[name].size <= 1 + 1e-6


def test_shown_names_are_the_shortest_that_tell_apart():
    paths = [("optim", "learning_rate"), ("model", "moca", "learning_rate"), ("seed",)]
    assert list(short_names(paths).values()) == [
        "optim.learning_rate",
        "moca.learning_rate",
        "seed",
    ]


@pytest.mark.parametrize(
    ("shown", "message"),
    [
        ({"learning_rat": 1e-3}, "learning_rat: no such parameter.*'learning_rate'"),
        ({"learning_rate": 1.0}, "learning_rate: 1 is outside 0.0001 to 0.1"),
        ({"learning_rate": "fast"}, "'fast' is not a number"),
        ({"global_batch": 9}, "no such choice 9. Known: 8, 16"),
        ({"moca": "maybe"}, "no such branch 'maybe'. Known: off, on, noise"),
        ({"mixture/short": 1.0}, "mixture: the weight of 'detailed' is below the floor"),
    ],
)
def test_points_outside_the_space_are_refused(shown, message):
    with pytest.raises(ConfigError, match=message):
        space_of(sweep()).encode(shown)


def test_a_point_that_is_no_job_names_the_field():
    space, mistakes = parse_space(
        JobSpec.model_validate(BASE), {"optim": {"beta1": {"low": 0.5, "high": 0.9}}}
    )
    assert mistakes == []
    with pytest.raises(ConfigError, match=r"space\.optim\.beta1: 1.5 is refused"):
        space.job({"optim.beta1": 1.5})


@pytest.mark.parametrize(
    ("space", "place", "message"),
    [
        ({}, "space", "is empty"),
        ({"model": {"moca": {"init_std": {"low": 0, "high": 1}}}}, "space.model.moca", "is null"),
        ({"data": {"sources": {"shrt": {"size": {"low": 1}}}}}, "shrt", "no such name in base"),
        ({"data": {"validation": {"size": {}}}}, "space.data.validation", "equal for a whole"),
        ({"data": {"mixture": {"fixed": {"tag": 0.1}}}}, "space.data.mixture", "'tags'"),
        ({"model": {"moca": {"branches": {}}}}, "branches", "at least 1"),
        ({"optim": {"learning_rate": {"choices": ["a"]}}}, "choices", "not all numbers"),
    ],
)
def test_impossible_spaces_are_refused_with_their_place(space, place, message):
    _, mistakes = parse_space(JobSpec.model_validate(BASE), space)
    assert place in ".".join(map(str, mistakes[0].path))
    assert message in mistakes[0].text


def test_caps_need_sizes():
    base = copy.deepcopy(BASE)
    base["data"]["sources"]["tags"] = {"kind": "jsonl", "path": "a.jsonl"}
    _, mistakes = parse_space(
        JobSpec.model_validate(base), {"data": {"mixture": {"max_epochs": 2}}}
    )
    assert "base.data.sources.tags.size" in mistakes[0].text


def test_settings_inside_a_base_part_can_vary():
    base = copy.deepcopy(BASE) | {"model": {"moca": {"init_std": 0.04}}}
    space = space_of(sweep({"model": {"moca": {"init_std": {"low": 0, "high": 1}}}}, base))
    job, shown = space.job({"model.moca.init_std": 0.5})
    assert job.model.moca.init_std == shown["init_std"] == 0.5


def test_looking_up_a_field_that_is_not_there_gives_none():
    assert get({"a": {"b": 1}}, ("a", "b")) == 1
    assert get({"a": None}, ("a", "b")) is None
    assert math.isclose(get({"a": 0.5}, ("a",)), 0.5)


def test_a_branch_over_all_of_the_data_may_not_change_what_scores_rest_on():
    other = {"split": "train"}
    branches = {"same": BASE["data"], "other": BASE["data"] | {"validation": other}}
    space = {"data": {"branches": branches}}
    with pytest.raises(ConfigError, match=r"space\.data: changes data\.validation, which is equal"):
        space_of(sweep(space))
    branches["other"] = BASE["data"] | {"max_bad_fraction": 0.5}
    assert space_of(sweep(space)).axes
