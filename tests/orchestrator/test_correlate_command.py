"""`mirsweep correlate` at the command line, and the recipes that it reads."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Iterator

import finished_study
import pytest
from finished_study import (
    LOST,
    RECIPES,
    FakeJobs,
    complete,
)
from typer.testing import CliRunner

from jobs.events import Event
from jobs.place import Place
from jobs.spec.downstream import AnyJob
from orchestrator.cli import app
from orchestrator.commands import correlate as command
from orchestrator.executors.inline import InlineExecutor
from orchestrator.failures import INTERRUPTED
from orchestrator.state import SweepView
from sweeps.recipe import load_downstream

study, view = finished_study.study, finished_study.view


def run_command(monkeypatch, jobs: FakeJobs, *words: str):
    made = InlineExecutor(jobs, nodes=((8.0, 0.0),))
    monkeypatch.setattr(command, "_executor", lambda name, address: made)
    return CliRunner().invoke(app, ["correlate", "demo", *words])


def test_the_command_says_table_sentence_and_where_the_page_is(study, monkeypatch) -> None:
    jobs = FakeJobs()
    result = run_command(monkeypatch, jobs)
    assert result.exit_code == 0, result.output
    assert "Spearman" in result.output and "MIR" in result.output
    (folder,) = (study / "correlate").iterdir()
    assert (folder / "index.html").exists() and (folder / "correlate.png").exists()
    again = run_command(monkeypatch, FakeJobs(), "--json")
    told = json.loads(again.stdout)
    assert told["sentence"] in " ".join(result.output.split())
    assert json.loads((folder / "outcome.json").read_text())["points"] == told["points"]


def test_the_command_ends_with_what_is_missing(study, view, monkeypatch) -> None:
    jobs = FakeJobs(failures={complete(view)[1]: [LOST] * 3})
    result = run_command(monkeypatch, jobs)
    assert result.exit_code == 1
    assert "1 of" in result.output and "have no downstream score" in result.output


def test_an_interrupted_command_says_how_to_go_on(study, monkeypatch) -> None:
    class Stopping(FakeJobs):
        def _evaluate(self, spec: AnyJob, place: Place) -> Iterator[Event]:
            if not sum(self.ran[n, s] for n, s in self.ran if s == "evaluate"):
                os.kill(os.getpid(), signal.SIGINT)
            yield from super()._evaluate(spec, place)

    result = run_command(monkeypatch, Stopping())
    assert result.exit_code == INTERRUPTED, result.output
    assert "interrupted: " in result.output


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--measure", "beauty"], "'beauty' was not measured. Known: answer-loss@0"),
        (["--recipe", "none.yaml"], "none.yaml"),
    ],
)
def test_wrong_words_are_one_line(study, monkeypatch, words, message) -> None:
    result = run_command(monkeypatch, FakeJobs(), *words)
    assert result.exit_code == 2
    assert message in " ".join(result.output.split())


def test_a_study_of_other_models_needs_a_recipe(study, view, monkeypatch) -> None:
    model = view.spec.base.model.model_copy(update={"language": "some/model"})
    base = view.spec.base.model_copy(update={"model": model})
    monkeypatch.setattr(
        "orchestrator.fold.load_view",
        lambda folder: SweepView(
            spec=view.spec.model_copy(update={"base": base}), trials=view.trials
        ),
    )
    result = run_command(monkeypatch, FakeJobs())
    assert result.exit_code == 2 and "--recipe" in result.output


@pytest.mark.parametrize(
    "recipe", [p.name for p in sorted(RECIPES.glob("*.yaml")) if "real" not in p.name]
)
def test_every_recipe_of_the_embedded_world_passes_plan(recipe, tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)  # not where a person may have run the study
    monkeypatch.setattr("orchestrator.commands.preflight._TRIES", 1)
    result = CliRunner().invoke(app, ["plan", str(RECIPES / recipe)])
    assert result.exit_code == 0, result.output


@pytest.mark.parametrize("recipe", [p.name for p in sorted((RECIPES / "downstream").iterdir())])
def test_every_downstream_recipe_can_be_read(recipe) -> None:
    assert load_downstream(RECIPES / "downstream" / recipe).evaluate.question_count > 0
