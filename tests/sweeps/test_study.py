"""The study: resumable to the draw, idempotent, infeasible never best, changes refused."""

import json
import math
import sys
from types import SimpleNamespace

import optuna
import pytest
from sweeps_scores import a_sweep, ask, no_study

from mir.errors import ClusterError, ConfigError, DivergedError, MirsweepError
from sweeps.identity import first_change
from sweeps.samplers import SAMPLERS
from sweeps.spec import SweepSpec
from sweeps.study import Best, RefusedError, Study


def run(sweep, folder, *, restarts, trials=7):
    """Ask and tell; with restarts, a new process takes up every trial that was asked."""
    study, shown = Study(sweep, folder), []
    for i in range(trials):
        trial = ask(study)
        if restarts:
            study = Study(sweep, folder)
            assert study.states()[trial.number] == "RUNNING"
            assert study.ask(trial.number, {}) == trial
        shown.append(trial.shown)
        study.report(trial.number, 500, trial.shown["learning_rate"])
        if i % 4 == 2:
            study.tell_pruned(trial.number, "behind")
        elif i % 4 == 3:
            study.tell_failed(trial.number, "lost")
        else:
            violation = trial.shown["mixture/bad"] - 0.5
            study.tell_complete(trial.number, trial.shown["learning_rate"], {"bad": violation})
    return shown, study


@pytest.mark.filterwarnings("ignore::UserWarning:scipy")
@pytest.mark.parametrize("sampler", SAMPLERS)
def test_what_is_drawn_does_not_depend_on_the_process(sampler, tmp_path):
    sweep = a_sweep(study={"sampler": sampler, "startup_trials": 3, "seed": 5})
    for name in ("once", "again"):
        (tmp_path / name).mkdir()
    once, first = run(sweep, tmp_path / "once", restarts=False)
    again, second = run(sweep, tmp_path / "again", restarts=True)
    assert once == again
    assert first.best() == second.best()
    assert first.states() == second.states()
    assert len({tuple(shown.items()) for shown in once}) == len(once)


def test_another_seed_draws_other_trials(tmp_path):
    drawn = []
    for seed in (0, 1):
        folder = tmp_path / str(seed)
        folder.mkdir()
        drawn.append(run(a_sweep(study={"seed": seed}), folder, restarts=False, trials=3)[0])
    assert drawn[0][0] == drawn[1][0]
    assert drawn[0][1:] != drawn[1][1:]


def test_a_trial_whose_drawing_was_interrupted_is_completed_as_if_it_had_not_been(
    tmp_path, monkeypatch
):
    sweep = a_sweep(study={"sampler": "random"})
    for name in ("whole", "cut"):
        (tmp_path / name).mkdir()
    whole = Study(sweep, tmp_path / "whole")
    cut = Study(sweep, tmp_path / "cut")
    for study in (whole, cut):
        study.tell_failed(ask(study).number, "start point")

    def killed(*_args, **_kwargs):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(optuna.trial.Trial, "suggest_categorical", killed)
        with pytest.raises(KeyboardInterrupt):
            ask(cut)
    assert Study(sweep, tmp_path / "cut").ask(1, {}) == ask(whole)


def test_a_point_that_comes_later_does_not_break_a_trial_that_was_half_drawn(tmp_path, monkeypatch):
    study = Study(a_sweep(), tmp_path)
    suggest = optuna.trial.Trial.suggest_float

    def killed(trial, name, *args, **kwargs):
        if "init_std" in name:
            raise KeyboardInterrupt
        return suggest(trial, name, *args, **kwargs)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(optuna.trial.Trial, "suggest_float", killed)
        study.ask(0, study.space.encode({"moca": "on"}))
    point = study.space.encode(study.space.start())
    assert Study(a_sweep(), tmp_path).ask(0, point).shown["moca"] == "on"
    assert study.ask(1, point).shown["moca"] == "off"


def test_the_first_trial_is_the_base_with_the_uniform_mixture(tmp_path):
    trial = ask(Study(a_sweep(), tmp_path))
    assert trial.number == 0
    assert trial.shown["mixture/good"] == pytest.approx(0.5)
    assert trial.shown["learning_rate"] == trial.job.optim.learning_rate == 1e-3
    assert trial.shown["moca"] == "off"


def test_points_are_tried_first_once_each(tmp_path):
    start = [{"learning_rate": 1e-2}, {"learning_rate": 1e-2 * (1 + 1e-9)}, {"moca": "on"}]
    study = Study(a_sweep(study={"start": start}), tmp_path)
    base, *given = study.first(0, no_study)
    assert given == [study.space.encode(start[0]), study.space.encode(start[2])]
    assert base == study.space.encode(study.space.start())
    assert (study.first(2, no_study), study.states()) == (given[1:], {})


def test_the_natural_proportions_are_tried_where_the_recipe_says_so(tmp_path):
    base = a_sweep().base.model_dump()
    for name, size in (("good", 300), ("bad", 100)):
        base["data"]["sources"][name]["size"] = size
    recipe = a_sweep().model_dump() | {"base": base}
    recipe["study"]["start"] = ["natural", {"learning_rate": 0.01}]
    study = Study(SweepSpec.model_validate(recipe), tmp_path)
    trials = [ask(study) for _ in range(3)]
    assert [t.shown["mixture/good"] for t in trials[:2]] == pytest.approx([0.5, 0.75])
    assert trials[2].shown["learning_rate"] == 0.01


def test_what_a_given_point_lacks_is_drawn(tmp_path):
    study = Study(a_sweep(), tmp_path)
    trial = study.ask(0, study.space.encode({"learning_rate": 0.02, "moca": "on"}))
    assert trial.shown["learning_rate"] == 0.02
    assert 0 <= trial.shown["moca/init_std"] <= 0.05


def test_a_queue_that_an_earlier_version_kept_in_the_database_is_taken_over(tmp_path):
    study = Study(a_sweep(), tmp_path)
    points = [study.space.encode({"learning_rate": rate}) for rate in (0.02, 0.03)]
    for point in points:
        study._study.enqueue_trial(point)
    study._study.set_user_attr("mirsweep:started", True)
    study = Study(a_sweep(), tmp_path)
    assert study.first(0, no_study) == points
    asked = [study.ask(number, point) for number, point in enumerate(points)]
    assert [trial.shown["learning_rate"] for trial in asked] == [0.02, 0.03]
    assert study.states() == {0: "RUNNING", 1: "RUNNING"}
    assert study.first(2, no_study) == [], "its start points were tried long ago"


def test_infeasible_trials_are_never_best(tmp_path):
    study = Study(a_sweep(), tmp_path)
    assert study.best() is None
    for value, violation in ((1.0, 0.5), (3.0, -0.5), (2.0, 0.0), (0.5, math.inf)):
        number = ask(study).number
        study.tell_complete(number, value, {"loss-below-start": violation})
    assert study.best() == Best(2, 2.0)


def test_the_gap_is_maximised(tmp_path):
    study = Study(a_sweep(study={"objective": "gap"}), tmp_path)
    for value in (0.1, 0.7, 0.3):
        study.tell_complete(ask(study).number, value, {})
    assert study.best() == Best(1, 0.7)


def test_stopped_and_failed_trials_are_told_apart_and_never_best(tmp_path):
    study = Study(a_sweep(), tmp_path)
    pruned, failed, complete = (ask(study).number for _ in range(3))
    study.report(pruned, 500, 0.1)
    study.tell_pruned(pruned, "MIR 2.91 against 2.60")
    study.tell_failed(failed, "out of memory")
    study.tell_complete(complete, 5.0, {})
    assert study.states() == {0: "PRUNED", 1: "FAIL", 2: "COMPLETE"}
    assert study.best() == Best(2, 5.0)


def test_a_paused_trial_is_running_to_optuna_and_stopped_to_samplers(tmp_path):
    study = Study(a_sweep(), tmp_path)
    number = ask(study).number
    study.report(number, 300, 2.5, 0.01)

    def told():
        return study._told(99)[0]

    for paused, state in ((True, "stopped"), (True, "stopped"), (False, "open")):
        study.paused(number, paused=paused)
        assert study.states()[number] == "RUNNING"
        assert (told().state, told().values) == (state, (2.5,))
    study.paused(number, paused=True)
    assert Study(a_sweep(), tmp_path).ask(number, {}).number == number
    study.tell_complete(number, 2.0, {})
    study.paused(number, paused=False)  # late, from a controller that was killed
    assert (told().state, told().values) == ("complete", (2.0,))


def test_telling_the_same_again_is_ignored_and_another_thing_is_refused(tmp_path):
    study = Study(a_sweep(), tmp_path)
    number = ask(study).number
    for samples in (100, 100, 200):
        study.report(number, samples, 3.0)
    for _ in range(2):
        study.tell_complete(number, 2.5, {"gap-not-negative": -1.0})
    study.report(number, 300, 1.0)
    reopened = Study(a_sweep(), tmp_path)
    reopened.tell_complete(number, 2.5, {})
    with pytest.raises(MirsweepError, match=r"trial 0 was told COMPLETE 2.5; it cannot also be"):
        reopened.tell_complete(number, 2.4, {})
    with pytest.raises(MirsweepError, match="cannot also be FAIL"):
        reopened.tell_failed(number, "late")
    assert reopened.states() == {0: "COMPLETE"}


def test_what_is_told_of_one_trial_reads_no_other(tmp_path, monkeypatch):
    study = Study(a_sweep(), tmp_path)
    for _ in range(2):
        ask(study)

    def all_of_them(*_args, **_kwargs):
        raise AssertionError("read every running trial from the database")

    with monkeypatch.context() as patch:
        storage = optuna.storages._cached_storage._CachedStorage
        patch.setattr(storage, "get_all_trials", all_of_them)
        study.report(1, 100, 3.0, 0.1)
        study.paused(1, paused=True)
        study.also(1, [1.0])
        study.tell_complete(1, 2.5, {})
        study.tell_pruned(0, "behind")
    assert study.states() == {0: "PRUNED", 1: "COMPLETE"}


def test_a_value_that_is_not_finite_is_never_told(tmp_path):
    study = Study(a_sweep(), tmp_path)
    number = ask(study).number
    study.report(number, 100, math.nan)
    with pytest.raises(DivergedError, match="trial 0: the objective is nan"):
        study.tell_complete(number, math.nan, {})
    assert study.states() == {0: "RUNNING"}


def test_a_trial_that_has_ended_is_not_begun_again(tmp_path):
    study = Study(a_sweep(), tmp_path)
    study.tell_complete(ask(study).number, 2.5, {})
    with pytest.raises(MirsweepError, match="trial 0 is COMPLETE, not RUNNING"):
        Study(a_sweep(), tmp_path).ask(0, {})


def test_a_study_is_restored_from_what_was_told(tmp_path):
    for name in ("old", "new"):
        (tmp_path / name).mkdir()
    old = Study(a_sweep(), tmp_path / "old")
    trials = [ask(old) for _ in range(4)]
    new = Study(a_sweep(), tmp_path / "new")
    for _ in range(2):
        for trial in trials[::-1]:
            new.restore(trial.number, trial.raw, trial.shown)
        assert [new.ask(trial.number, {}) for trial in trials] == trials
    with pytest.raises(MirsweepError, match="trial 1 is in the study with other parameters"):
        new.restore(1, trials[2].raw, trials[2].shown)


@pytest.mark.parametrize(
    ("changed", "field"),
    [
        ({"samples": 2000}, r"base\.optim\.samples: 1000 became 2000"),
        ({"study": {"sampler": "random"}}, r"study\.sampler: 'gp' became 'random'"),
        ({"stop": {"rule": "none"}}, r"stop\.rule: 'median' became 'none'"),
    ],
)
def test_another_recipe_on_the_same_study_is_refused(changed, field, tmp_path):
    Study(a_sweep(), tmp_path)
    with pytest.raises(ConfigError, match=rf"begun with another recipe: {field}") as caught:
        Study(a_sweep(**changed), tmp_path)
    assert "budget, resources, tracking, retention may change" in str(caught.value)


def test_a_larger_budget_and_other_resources_are_the_same_study(tmp_path):
    Study(a_sweep(), tmp_path)
    larger = a_sweep(budget={"trials": 99}, resources={"workers": 2}, tracking={"uri": "x"})
    assert Study(larger, tmp_path).states() == {}


def rerecord(tmp_path, change):
    """Write the study's recipe anew, as another version would have recorded it."""
    url = f"sqlite:///{tmp_path / 'study.db'}"
    study = optuna.load_study(storage=url, study_name="demo")
    recipe = json.loads(study.user_attrs["mirsweep:recipe"])
    change(recipe)
    study.set_user_attr("mirsweep:recipe", json.dumps(recipe))


def test_a_study_recorded_before_a_field_existed_goes_on_while_its_default_is_kept(tmp_path):
    Study(a_sweep(), tmp_path)

    def before(recipe):
        del recipe["stop"]["audit"], recipe["study"]["also"]
        del recipe["base"]["optim"]["beta2"], recipe["base"]["data"]["group_by_length"]

    rerecord(tmp_path, before)
    assert Study(a_sweep(), tmp_path).states() == {}
    with pytest.raises(ConfigError, match=r"another recipe: stop\.audit: 0\.0 became 0\.5"):
        Study(a_sweep(stop={"audit": 0.5}), tmp_path)


def test_a_study_recorded_with_a_field_that_is_unknown_here_is_refused_by_its_name(tmp_path):
    Study(a_sweep(), tmp_path)
    rerecord(tmp_path, lambda recipe: recipe["stop"].update(telepathy=True))
    with pytest.raises(ConfigError, match=r"stop\.telepathy: written by another version"):
        Study(a_sweep(), tmp_path)


def test_the_order_of_sources_is_part_of_the_recipe():
    assert first_change({"a": {"x": 1, "y": 2}}, {"a": {"y": 2, "x": 1}}) == (
        "a: fields changed their order"
    )
    assert first_change({"a": [1]}, {"a": [1]}) is None


def test_a_foreign_study_is_left_alone(tmp_path):
    url = f"sqlite:///{tmp_path / 'study.db'}"
    optuna.create_study(storage=url, study_name="demo").add_trial(
        optuna.trial.create_trial(value=1.0)
    )
    with pytest.raises(ConfigError, match="is not mirsweep's"):
        Study(a_sweep(), tmp_path)


@pytest.mark.parametrize(
    ("storage", "kind", "message"),
    [
        ("sqlite:////no/such/folder/x.db", ClusterError, "unable to open database file"),
        ("nonsense", ConfigError, "study.storage: 'nonsense' cannot be used"),
        ("nosuch://me:secret@host/name", ConfigError, "'nosuch://me@host/name' cannot be used"),
        ("postgresql://me:secret@host:port/name", ConfigError, "cannot be used"),
        ("oracle://me:secret@host/name", ConfigError, "install its driver"),
    ],
)
def test_storage_that_cannot_be_used_is_named(storage, kind, message, tmp_path):
    with pytest.raises(kind, match=message) as caught:
        Study(a_sweep(study={"storage": storage}), tmp_path)
    assert "\n" not in str(caught.value)
    assert "secret" not in str(caught.value)


def test_a_driver_that_is_not_there_is_named_with_what_installs_it(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "psycopg", None)
    with pytest.raises(ConfigError, match=r"driver: pip install 'mirsweep\[postgres\]'"):
        Study(a_sweep(study={"storage": "postgresql://me@host/name"}), tmp_path)


def test_a_drawn_point_that_is_no_job_fails_its_trial(tmp_path, monkeypatch):
    study = Study(a_sweep(), tmp_path)

    def impossible(_raw):
        raise ConfigError("space.data.mixture: the caps leave nothing.")

    monkeypatch.setattr(study, "space", SimpleNamespace(draw=lambda _t: {"x": 1}, job=impossible))
    for _ in range(2):  # the answer may have got lost on the way
        with pytest.raises(RefusedError, match="the caps leave nothing"):
            study.ask(0, {})
        assert study.states() == {0: "FAIL"}
