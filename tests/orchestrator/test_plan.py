"""What can be said of a recipe before it runs, and what is refused before anything is made."""

from __future__ import annotations

import json
import os
import socket
from contextlib import closing
from pathlib import Path

import pytest
import yaml
from optuna.pruners import PercentilePruner
from sweep_views import make_spec
from typer.testing import CliRunner, Result

from jobs.spec import DataSpec, SourceSpec
from mir.errors import ConfigError
from orchestrator.cli import app
from orchestrator.commands.changes import changed
from orchestrator.commands.preflight import check_data, check_folder, check_tracking, this_machine
from orchestrator.journal import Journal
from orchestrator.views.plan import space_facts
from orchestrator.views.preview import preview
from sweeps.recipe import load_recipe
from sweeps.spec import SweepSpec


def invoke(*words: str) -> Result:
    return CliRunner().invoke(app, list(words))


@pytest.fixture
def recipe(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A good recipe in an empty working directory."""
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "good.yaml"
    path.write_text(yaml.safe_dump(make_spec().model_dump(mode="json")))
    return path


def rewrite(path: Path, old: str, new: str) -> None:
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))


def test_plan_shows_sources_space_budget_resources_and_variants(recipe: Path) -> None:
    done = invoke("plan", str(recipe), "--variants", "3")
    assert done.exit_code == 0, done.stderr
    for text in ("mismatched captions, train", "1e-4 to 0.1 (log)", "weights of all sources",
                 "one of off, on", "65,536 samples", "median", "this machine has",
                 "3 sampled variants"):  # fmt: skip
        assert text in done.output
    assert not (recipe.parent / "runs").exists()


def test_plan_json_is_the_resolved_recipe(recipe: Path) -> None:
    told = json.loads(invoke("plan", str(recipe), "--json", "--trials", "7").output)
    assert SweepSpec.model_validate(told["recipe"]).budget.trials == 7
    assert len(told["variants"]) == 5


def test_plan_says_when_a_job_does_not_fit(recipe: Path) -> None:
    done = invoke("plan", str(recipe), "--set", "resources.cpus_per_worker=4096")
    assert done.exit_code == 0
    assert "do not fit here" in done.output


def test_an_optuna_whose_pruner_asks_for_more_is_refused(recipe, monkeypatch) -> None:
    """Before anything is made: its first question may come hours into the sweep."""
    monkeypatch.setattr(PercentilePruner, "prune", lambda _self, study, _trial: study.best_trial)
    done = invoke("run", str(recipe))
    assert done.exit_code != 0
    assert "stop: MedianPruner of Optuna" in " ".join(done.output.split())
    assert not (recipe.parent / "runs").exists()


def test_preview_is_a_pure_function_of_the_recipe() -> None:
    first, again = preview(make_spec(), 8), preview(make_spec(), 8)
    assert first == again
    assert len({variant["learning_rate"] for variant in first}) == 8
    for variant in first:
        assert 1e-4 <= float(variant["learning_rate"]) <= 1e-1
        shares = [value for name, value in variant.items() if name.startswith("mixture/")]
        assert sum(float(share) for share in shares) == pytest.approx(1.0)
        assert ("moca/init_std" in variant) == (variant["moca"] == "on")


def test_space_facts_name_every_searched_field() -> None:
    names = [name for name, _ in space_facts(make_spec().space)]
    assert names == [
        "data.mixture",
        "optim.learning_rate",
        "model.moca",
        "model.moca [on] init_std",
    ]


@pytest.mark.parametrize(
    ("old", "new", "told"),
    [
        ("learning_rate: 0.001", "learning_rat: 0.001", "Did you mean 'learning_rate'?"),
        ("seed: 0", "seed: nought", "nought"),
        ("pairs: 48", "pairs: -4", "-4"),
    ],
)
@pytest.mark.parametrize("verb", ["plan", "run"])
def test_a_mistake_is_one_line_with_its_place(
    recipe: Path, verb: str, old: str, new: str, told: str
) -> None:
    rewrite(recipe, old, new)
    done = invoke(verb, str(recipe))
    assert done.exit_code == 2
    assert done.stderr.count("\n") == 1
    assert str(recipe) in done.stderr
    assert told in done.stderr
    assert not (recipe.parent / "runs").exists()


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ("stop.rul=none", "stop.rul: no such field. Did you mean 'rule'?"),
        ("stop.rule=never", "'never' is refused"),
        ("stop", "is no FIELD=VALUE"),
        ("stop.=1", "is no FIELD=VALUE"),
        ("budget.trials.most=3", "'trials' has no fields below it"),
        ("base.data.mixture={short: -1}", "base.data.mixture.short"),
        ("base.data.mixture=[", "not readable as YAML"),
        ("space.optim.learning_rate={low: 1, high: 0}", "space.optim.learning_rate"),
        ("study.guard.constraints={nope: null}", "no such constraint"),
    ],
)
def test_changes_are_checked_like_the_file(recipe: Path, change: str, told: str) -> None:
    done = invoke("plan", str(recipe), "--set", change)
    assert done.exit_code == 2, done.output
    assert done.stderr.count("\n") == 1
    assert told in done.stderr


def test_changes_are_read_as_numbers_words_and_lists() -> None:
    spec = changed(
        make_spec(),
        [
            "stop.rule=none",
            "base.optim.learning_rate=1e-3",
            "base.optim.samples=1e3",
            "base.model.moca.init_std=0.1",
            "base.model.moca.layers=[1, 2]",
            "budget.hours=null",
        ],
    )
    assert spec.stop.rule == "none"
    assert spec.base.optim.learning_rate == 1e-3
    assert spec.base.optim.samples == 1000
    assert spec.base.model.moca is not None
    assert spec.base.model.moca.layers == (1, 2)
    assert spec.budget.hours is None


def test_run_refuses_an_unreachable_tracking_server(recipe: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # bound but not listening: nobody answers
        uri = f"http://127.0.0.1:{taken.getsockname()[1]}"
        done = invoke("run", str(recipe), "--set", f"tracking.uri={uri}")
    assert done.exit_code == 2
    assert f"tracking.uri: {uri} cannot be reached" in done.stderr
    assert not (recipe.parent / "runs").exists()


def test_tracking_stores_that_are_files_need_no_server() -> None:
    for uri in (None, "sqlite:////nowhere/mlflow.db"):
        check_tracking(uri)
    with pytest.raises(ConfigError, match="cannot be reached"):
        check_tracking("http://127.0.0.1:notaport")


def test_missing_data_is_named_with_its_field(tmp_path: Path) -> None:
    source = SourceSpec(kind="jsonl", path=str(tmp_path / "captions.jsonl"))
    good = SourceSpec(style="detailed")
    with pytest.raises(ConfigError, match=r"r\.yaml: base\.data\.sources\.web\.path: .*captions"):
        check_data("r.yaml: base.data", DataSpec(sources={"web": source}, validation=good))
    with pytest.raises(ConfigError, match=r"data\.validation\.path"):
        check_data("data", DataSpec(sources={"web": good}, validation=source))


@pytest.mark.parametrize("verb", ["plan", "run"])
def test_data_that_only_some_trials_would_read_is_looked_for_too(verb, recipe: Path) -> None:
    choices = "{branches: {scenes: {style: tags}, own: {kind: jsonl, path: /no/such.jsonl}}}"
    done = invoke(verb, str(recipe), "--set", f"space.data.sources={{tags: {choices}}}")
    assert done.exit_code == 2, done.output
    assert "where tags is own: data.sources.tags.path: /no/such.jsonl does not" in done.stderr
    assert done.stderr.count("\n") == 1


def test_a_folder_that_is_a_file_is_refused(tmp_path: Path, recipe: Path) -> None:
    (tmp_path / "file").write_text("")
    for place in (tmp_path / "file", tmp_path / "file" / "below" / "it"):
        with pytest.raises(ConfigError, match="is a file"):
            check_folder(place)
    done = invoke("run", str(recipe), "--folder", str(tmp_path / "file"))
    assert done.exit_code == 2


def test_an_unwritable_folder_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # The tests may run as root, to whom every folder is writable.
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    with pytest.raises(ConfigError, match="cannot be written"):
        check_folder(tmp_path / "new")
    assert not (tmp_path / "new").exists()


def test_an_address_does_not_go_with_inline(recipe: Path) -> None:
    done = invoke("run", str(recipe), "--executor", "inline", "--address", "auto")
    assert done.exit_code == 2


def test_this_machine_has_a_processor() -> None:
    ((cpus, gpus),) = this_machine().nodes
    assert cpus >= 1
    assert gpus >= 0


@pytest.mark.parametrize("verb", ["plan", "run"])
@pytest.mark.parametrize(
    ("change", "words"),
    [
        ("tracking.uri=http://127.0.0.1:1", "tracking.uri: http://127.0.0.1:1 cannot be reached"),
        ("tracking.uri=sqlite:////no/such/x.db", "tracking.uri: sqlite:////no/such/x.db: /no/such"),
        ("study.storage=postgres@host", "study.storage: 'postgres@host' cannot be used"),
        ("study.storage=sqlite:////no/such/x.db", "study.storage: sqlite:////no/such/x.db: /no"),
        ("study.start=[{learning_rate: 9.0}]", "study.start.0: learning_rate"),
        ("resources.workers=3", "resources.workers: "),
        ("base.optim.samples=99999", "the study was begun with another recipe"),
    ],
)
def test_plan_refuses_what_run_would_and_in_the_same_words(verb, change, words, recipe):
    with closing(Journal(make_folder("runs/quickstart"))) as journal:
        journal.session(load_recipe(recipe))
    done = invoke(verb, str(recipe), "--set", change)
    assert done.exit_code == 2, done.output
    assert words in done.stderr
    assert done.stderr.count("\n") == 1


@pytest.mark.parametrize("verb", ["plan", "run"])
def test_an_earlier_study_that_does_not_exist_seeds_none(verb, recipe):
    done = invoke(verb, str(recipe), "--set", "study.warm_start=[/no/such/study]")
    assert done.exit_code == 2, done.output
    assert "study.warm_start: /no/such/study does not exist" in done.stderr


def test_an_earlier_study_may_go_once_this_one_has_begun(recipe):
    """Its best points were read into the log; nothing asks for it again."""
    changes = ["study.warm_start=[/gone/since]"]
    with closing(Journal(make_folder("runs/quickstart"))) as journal:
        journal.session(changed(load_recipe(recipe), changes))
    done = invoke("plan", str(recipe), "--set", *changes)
    assert done.exit_code == 0, done.stderr


def test_trials_beyond_the_grid_are_refused_on_the_command_line_too(recipe):
    rewrite(recipe, "sampler: gp", "sampler: grid")
    done = invoke("plan", str(recipe), "--trials", "99999999")
    assert done.exit_code == 2
    assert "budget.trials: 99999999 is more than the grid's" in done.stderr


def make_folder(name: str) -> Path:
    folder = Path(name)
    folder.mkdir(parents=True)
    return folder
