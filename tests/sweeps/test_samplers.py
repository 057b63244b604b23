"""Samplers: functions of what was told, drawn to good points and never to infeasible ones."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sweeps_scores import a_sweep

from mir.errors import ConfigError
from sweeps.apart import NEAR, Places
from sweeps.cube import Cube
from sweeps.evolution import POPULATION, _best
from sweeps.gaussian import fit
from sweeps.pareto import crowding, dominates, fronts
from sweeps.samplers import SAMPLERS, make_sampler
from sweeps.space import space_of
from sweeps.spec import StudySpec
from sweeps.told import Told

CUBE = Cube(space_of(a_sweep()))
FIRST = (0.3, 0.2, 0.8, 0.6)
points = st.lists(st.floats(0, 1), min_size=4, max_size=4)


def told(number, units, value, broken=-1.0, state="complete"):
    return Told(
        number=number,
        raw=CUBE.raw(units),
        state=state,
        values=(value,),
        errors=(0.01,),
        violations={"loss-below-start": broken},
    )


@given(points)
def test_a_point_of_the_cube_comes_back_but_for_what_it_does_not_have(units):
    raw = CUBE.raw(units)
    again = CUBE.units(raw)
    assert CUBE.raw(again) == pytest.approx(raw)
    assert CUBE.dimensions == 4
    assert len(CUBE.space.coordinates(raw)) == 2 + 1 + 2 + 1
    if raw["model.moca"] == "off":
        assert again[-1] == 0.5


@settings(max_examples=25, deadline=None)
@given(points, st.floats(0, 5))
def test_a_regression_is_sure_where_it_was_told_and_only_there(place, value):
    there = np.array([place, [0.5] * 4])
    model = fit(there, np.array([value, 1.0]), np.array([1e-3, 1e-3]))
    mean, deviation = model.predict(np.vstack([there, [[3.0] * 4]]))
    if np.abs(there[0] - there[1]).max() >= 0.1:
        assert abs(mean[0] - value) <= 0.35 * abs(value - 1.0) + 0.01
    else:  # two values told for nearly one place: neither can be had alone
        assert min(value, 1.0) - 0.01 <= mean[0] <= max(value, 1.0) + 0.01
    assert deviation[2] >= deviation[0]


def test_two_values_of_one_place_meet_in_the_middle():
    model = fit(np.full((2, 4), 0.5), np.array([0.0, 1.0]), np.array([1e-3, 1e-3]))
    assert model.predict(np.full((1, 4), 0.5))[0] == pytest.approx(0.5, abs=0.01)


def test_values_with_large_errors_are_believed_less():
    x = np.array([[0.0], [0.5], [1.0]])
    values = np.array([0.0, 5.0, 0.0])
    sure = fit(x, values, np.array([0.01, 0.01, 0.01])).predict(x)[0][1]
    unsure = fit(x, values, np.array([0.01, 5.0, 0.01])).predict(x)[0][1]
    assert unsure < sure


def learnt(sampler, trap, seed, also=()):
    """The last points of a study whose value falls towards high rates, infeasible past a half.

    also: other objectives, which fall likewise.
    """
    spec = StudySpec(sampler=sampler, seed=seed, startup_trials=6, also=also)
    made, known = make_sampler(CUBE, spec), []
    for number in range(40):
        raw = CUBE.taken(made.propose(number, known))
        units = CUBE.units(raw)
        rate = units[list(CUBE.parameters).index("optim.learning_rate")]
        broken = 1.0 if trap and rate > 0.5 else -1.0
        values = tuple(1.0 - rate for _ in ("mir", *also))
        known.append(replace(told(number, units, 1.0 - rate, broken), values=values))
    return [1.0 - t.values[0] for t in known[-12:]]


@pytest.mark.parametrize("sampler", ["gp", "cmaes", "nsga2", "tpe"])
def test_a_sampler_that_learns_follows_the_values_and_leaves_the_trap(sampler):
    free = np.mean([np.mean(learnt(sampler, trap=False, seed=seed)) for seed in range(2)])
    trapped = np.mean([np.mean(learnt(sampler, trap=True, seed=seed)) for seed in range(2)])
    assert free > 0.6
    assert trapped < 0.55


@pytest.mark.parametrize("sampler", [name for name in SAMPLERS if name != "grid"])
def test_an_answer_depends_on_the_arguments_alone(sampler):
    spec = StudySpec(sampler=sampler, seed=3, startup_trials=2)
    known = [told(n, [(n * 0.37 + k * 0.21) % 1 for k in range(4)], n % 5) for n in range(12)]
    used = SAMPLERS[sampler](CUBE, spec)
    for count in (3, 9, 5):
        used.propose(count, known[:count])
    fresh = SAMPLERS[sampler](CUBE, spec)
    assert used.propose(12, known) == fresh.propose(12, known)
    if sampler != "gp":  # may find the best corner every time
        assert fresh.propose(12, known) != fresh.propose(13, known)


@pytest.mark.parametrize("sampler", [name for name in SAMPLERS if name != "grid"])
def test_no_answer_remembers_what_a_trial_had_before(sampler, monkeypatch):
    monkeypatch.setattr("sweeps.evolution._STRIDE", 3)
    spec = StudySpec(sampler=sampler, seed=3, startup_trials=2)
    known = [
        told(n, [(n * 0.37 + k * 0.21) % 1 for k in range(4)], n % 5, state="stopped")
        for n in range(80)
    ]
    used = SAMPLERS[sampler](CUBE, spec)
    for changed in ((), range(0, 80, 7), range(0, 80, 6), (76,)):
        for number in changed:  # it went on and stopped again, with another value
            known[number] = replace(known[number], values=(-float(number),))
        proposed = used.propose(len(known), known)
        assert proposed == SAMPLERS[sampler](CUBE, spec).propose(len(known), known)
        known.append(Told(number=len(known), raw=CUBE.taken(proposed), state="open"))


def test_a_grid_gives_each_point_once_and_then_refuses():
    spec = StudySpec(sampler="grid", grid_levels=3)
    sampler, known = SAMPLERS["grid"](CUBE, spec), []
    size = 3 * 3 * (1 + 3)  # two sources' weights 0, 1/2, 1; rates; MoCa off, or on with a width
    for number in range(size):
        raw = CUBE.taken(sampler.propose(number, known))
        known.append(Told(number=number, raw=raw, state="open"))
    assert len({tuple(sorted(t.raw.items())) for t in known}) == size
    weights = {round(CUBE.space.coordinates(t.raw)[0], 9) for t in known}
    assert weights == {0.0, 0.5, 1.0}
    with pytest.raises(ConfigError, match="all 36 points of the grid are tried"):
        sampler.propose(size, known)


def test_near_repeats_are_refused_by_weights_not_by_parameters():
    def kept(tried, chosen):
        places = Places(CUBE)
        places.note(0, CUBE.raw(tried))
        return places.kept_apart(CUBE.values(chosen), number=1, seed=1) == CUBE.values(chosen)

    assert not kept(FIRST, FIRST)
    assert kept(FIRST, [FIRST[0], FIRST[1] + 3 * NEAR, *FIRST[2:]])
    # Without MoCa its width is no difference.
    assert not kept([*FIRST[:2], 0.2, 0.1], [*FIRST[:2], 0.2, 0.9])


@pytest.mark.parametrize("violation", [0.1, 9.0])
def test_of_several_objectives_too_the_feasible_are_bred_from_first(
    violation,
):
    good = [replace(told(n, FIRST, 1.0), values=(2.0 + n, 9.0 - n)) for n in range(POPULATION)]
    trap = replace(told(POPULATION, FIRST, 0.0, broken=violation), values=(0.0, 0.0))
    worse = replace(told(POPULATION + 1, FIRST, 0.0, broken=2 * violation), values=(0.0, 0.0))
    assert trap not in _best([trap, *good])
    # Where too few are feasible, those that break least follow them, whatever their values.
    assert _best([worse, trap, *good[:3]])[3:] == [trap, worse]
    assert set(map(_number, _best([worse, trap, *good[:3]])[:3])) == {0, 1, 2}


def _number(t):
    return t.number


@pytest.mark.parametrize("sampler", ["gp", "cmaes", "nsga2", "tpe"])
def test_of_several_objectives_too_a_sampler_leaves_the_trap(sampler):
    assert np.mean(learnt(sampler, trap=True, seed=0, also=("gap",))) < 0.55


vectors = st.lists(st.tuples(st.integers(0, 4), st.integers(0, 4)), min_size=1, max_size=25)


@given(vectors)
def test_fronts_are_those_of_the_definition(values):
    left = set(range(len(values)))
    for found in fronts(values):
        expected = {
            i for i in left if not any(dominates(values[j], values[i]) for j in left if j != i)
        }
        assert set(found) == expected
        left -= expected
    assert not left


@given(vectors, st.integers(1, 9))
def test_the_first_fronts_are_the_same_where_they_are_enough(values, enough):
    found = fronts(values, enough)
    assert found == fronts(values)[: len(found)]
    assert sum(map(len, found)) >= min(enough, len(values))


def test_the_ends_of_a_front_have_infinite_room():
    assert crowding([(0.0, 2.0), (1.0, 1.0), (2.0, 0.0)]) == [float("inf"), 2.0, float("inf")]
