"""Proposals kept apart by what they mean, and error bars that reach the samplers that use them."""

import math
from contextlib import suppress

import optuna
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sweeps_scores import a_sweep, ask

from sweeps.apart import NEAR, Places
from sweeps.cube import Cube
from sweeps.points import uniform
from sweeps.samplers import BLIND, SAMPLERS
from sweeps.seeds import seed_of
from sweeps.space import space_of
from sweeps.study import Study
from sweeps.told import Told

SOURCES = {name: {"style": "detailed"} for name in ("a", "b", "c")}


def three_sources(**fields):
    sweep = a_sweep(space={"data": {"mixture": {"mixture": "all"}}}, **fields)
    data = sweep.base.data.model_dump() | {"sources": SOURCES}
    base = type(sweep.base).model_validate({**sweep.base.model_dump(), "data": data})
    return sweep.model_copy(update={"base": base})


def refused(cube, tried, chosen):
    return kept(cube, [tried], chosen) != cube.values(chosen)


def kept(cube, tried, chosen, number=99):
    places = Places(cube)
    for n, units in enumerate(tried):
        places.note(n, cube.raw(units))
    return places.kept_apart(cube.values(chosen), number, seed=1)


def distance(cube, a, b):
    return math.dist(*(cube.space.coordinates(cube.raw(units)) for units in (a, b)))


def test_a_mixture_is_near_by_its_weights_whatever_its_u():
    cube = Cube(space_of(three_sources()))
    # The first source has it all: what the second would get of nothing is no difference.
    same = ([1.0, 0.1], [1.0, 0.9])
    assert math.dist(*same) > 0.5 and distance(cube, *same) < NEAR
    assert refused(cube, *same)
    # Near the corner a hair's breadth of u is a step of weights.
    other = ([1.0, 0.5], [0.999, 0.5])
    assert math.dist(*other) < NEAR and distance(cube, *other) > NEAR
    assert not refused(cube, *other)


def test_every_place_in_a_small_space_may_be_taken_twice_rather_than_never():
    cube = Cube(space_of(a_sweep(space={"resources": {"workers": {"choices": [1, 2]}}})))
    assert kept(cube, [[0.1], [0.9]], [0.1]) == cube.values([0.1])


CUBE = Cube(space_of(a_sweep()))
# A lattice of half the distance: many points are near many others.
on_lattice = st.lists(st.integers(0, 3).map(lambda n: 0.4 + n * NEAR / 2), min_size=4, max_size=4)


@settings(max_examples=200, deadline=None)
@given(st.lists(on_lattice, max_size=12), on_lattice, st.integers(0, 11))
def test_a_point_is_replaced_where_a_look_at_every_trial_says_so(tried, chosen, number):
    here = CUBE.space.coordinates(CUBE.raw(chosen))
    there = [CUBE.space.coordinates(CUBE.raw(units)) for units in tried]
    near = any(math.dist(here, place) < NEAR for n, place in enumerate(there) if n != number)
    expected = uniform(seed_of(1, "apart", 0), CUBE.dimensions) if near else chosen
    assert kept(CUBE, tried, chosen, number) == CUBE.values(expected)


@pytest.mark.parametrize("storage", [None, "memory:"])
def test_a_point_that_was_tried_before_the_study_was_opened_is_not_tried_again(storage, tmp_path):
    sweep = a_sweep(study={"sampler": "random", "storage": storage})
    study = Study(sweep, tmp_path)
    chosen = study._sampler.propose(1, ())
    first = study.ask(0, chosen)
    study = Study(sweep, tmp_path)
    study.restore(0, first.raw, first.shown)
    assert study.ask(1, {}).raw != first.raw


@pytest.mark.parametrize("sampler", ["random", "gp"])
def test_a_study_that_was_killed_in_the_middle_of_a_draw_goes_on(sampler, tmp_path, monkeypatch):
    class Killed(BaseException):
        pass

    def fused(kind, stored):
        real = getattr(optuna.trial.Trial, f"suggest_{kind}")

        def suggest(*args, **more):
            if next(stored) < 0:
                raise Killed
            return real(*args, **more)

        return suggest

    sweep, drawn = three_sources(study={"sampler": sampler, "startup_trials": 1}), []
    for alive in (99, 3, 1, 0):
        folder = tmp_path / str(alive)
        folder.mkdir()
        study = Study(sweep, folder)
        ask(study)
        with monkeypatch.context() as patch:
            stored = iter(range(alive, -99, -1))
            for kind in ("float", "int", "categorical"):
                patch.setattr(optuna.trial.Trial, f"suggest_{kind}", fused(kind, stored))
            with suppress(Killed):
                study.ask(1, {})
        study = Study(sweep, folder)
        drawn.append([study.ask(number, {}).raw for number in (1, 2)])
    assert drawn == [drawn[0]] * 4


@pytest.mark.parametrize("sampler", BLIND)
def test_a_sampler_that_does_not_look_back_is_asked_without_reading_what_was_told(
    sampler, tmp_path, monkeypatch
):
    told = [Told(number=n, raw=CUBE.raw([n / 9] * 4), state="failed") for n in range(9)]
    sweep = a_sweep(study={"sampler": sampler, "storage": "memory:"})
    made = SAMPLERS[sampler](CUBE, sweep.study)
    assert made.propose(9, told) == made.propose(9, ())
    study = Study(sweep, tmp_path)
    monkeypatch.setattr(study, "_trials", lambda: pytest.fail("read every trial"))
    assert [study.ask(number, {}).number for number in range(3)] == [0, 1, 2]


@pytest.mark.parametrize("sampler", [name for name in SAMPLERS if name != "grid"])
def test_concurrent_suggestions_lie_apart(sampler, tmp_path):
    sweep = a_sweep(study={"sampler": sampler, "startup_trials": 3, "storage": "memory:"})
    study = Study(sweep, tmp_path)
    for _ in range(4):
        trial = ask(study)
        study.report(trial.number, 1000, 3.0 - trial.shown["mixture/good"], 0.01)
        study.tell_complete(trial.number, 3.0 - trial.shown["mixture/good"], {})
    places = [study.space.coordinates(ask(study).raw) for _ in range(8)]
    pairs = [(a, b) for i, a in enumerate(places) for b in places[:i]]
    assert min(math.dist(a, b) for a, b in pairs) >= NEAR


def test_the_standard_error_of_the_last_value_reaches_the_samplers(tmp_path):
    study = Study(a_sweep(study={"sampler": "gp", "storage": "memory:"}), tmp_path)
    number = ask(study).number
    study.report(number, 500, 2.5, 0.04)
    study.report(number, 1000, 2.4, 0.03)
    assert study._told(99)[0].errors == (0.03,)
    study.tell_complete(number, 2.4, {})
    (told,) = study._told(99)
    assert (told.values, told.errors) == ((2.4,), (0.03,))


def proposal(errors):
    """What `gp` proposes after twelve values, the lowest of them with this standard error."""
    cube = Cube(space_of(a_sweep(space={"optim": {"learning_rate": {"low": 0.1, "high": 1.0}}})))
    sampler = SAMPLERS["gp"](cube, a_sweep().study)
    told = [
        Told(
            number=n,
            raw={"optim.learning_rate": 0.1 + 0.9 * n / 11},
            state="complete",
            values=(1.0 if n == 3 else 2.0 - (0.5 if n == 9 else 0.0),),
            errors=(errors if n == 3 else 0.01,),
        )
        for n in range(12)
    ]
    return sampler.propose(12, told)["optim.learning_rate"]


def test_gp_follows_a_sure_value_and_doubts_an_unsure_one():
    lucky, good = 0.1 + 0.9 * 3 / 11, 0.1 + 0.9 * 9 / 11
    sure, unsure = proposal(0.01), proposal(3.0)
    assert abs(sure - lucky) < abs(sure - good)
    assert abs(unsure - good) < abs(unsure - lucky)
