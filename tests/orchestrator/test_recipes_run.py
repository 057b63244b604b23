"""Every recipe of the embedded world is run, not only planned: two small trials in this process."""

import json
from pathlib import Path

import pytest
import yaml
from typer.testing import CliRunner

import sweeps
from orchestrator.cli import app

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore::DeprecationWarning")]

RECIPES = Path(sweeps.__file__).parent / "recipes"
QUESTIONS = sorted(path.stem for path in RECIPES.glob("*.yaml") if path.stem != "real-cpu")
SMALL = {
    "budget.trials": 2,
    "base.optim.samples": 32,
    "base.optim.global_batch": 8,
    "base.score.every_samples": 16,
    "base.score.pairs": 8,
    "base.data.validation_samples": 8,
    "stop.min_samples": 32,  # no trial is stopped before its end
    "study.guard.constraints": "{}",  # nothing is learnt in four steps
}
OWN = {"data-scale": {"space.optim.samples": "{choices: [16, 32]}"}}
# What a recipe's own words say is done with its trials.
AFTER = {"few-shot": "few-shot", "trust": "world"}


@pytest.fixture(scope="module")
def tracking(tmp_path_factory):
    """One MLflow for all: making its database takes longer than a small trial."""
    return f"sqlite:///{tmp_path_factory.mktemp('mlflow')}/mlflow.db"


def invoke(*words):
    result = CliRunner().invoke(app, [str(word) for word in words])
    assert result.exit_code == 0, f"{words}: {result.output} {result.exception!r}"
    return result


def small(recipe, folder):
    """A downstream recipe with few questions and steps, otherwise as it is shipped."""
    told = yaml.safe_load((RECIPES / "downstream" / f"{recipe}.yaml").read_text())
    told["evaluate"] |= {"question_count": 8, "caption_count": 8}
    if "finetune" in told:
        told["finetune"]["optim"] |= {"samples": 16, "global_batch": 8}
        told["finetune"]["score"] = {"every_samples": 16, "pairs": 8}
        told["finetune"]["data"]["validation_samples"] = 4
    path = folder / f"{recipe}.yaml"
    path.write_text(yaml.safe_dump(told))
    return path


@pytest.mark.parametrize("recipe", QUESTIONS)
def test_a_recipe_runs_to_its_end(recipe, tracking, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    changes = {**SMALL, **OWN.get(recipe, {}), "tracking.uri": tracking}
    sets = [word for field, value in changes.items() for word in ("--set", f"{field}={value}")]
    told = invoke("run", RECIPES / f"{recipe}.yaml", "--executor", "inline", "--json", *sets)
    trials = json.loads(told.stdout)["trials"]
    assert [trial["state"] for trial in trials] == ["complete"] * 2
    assert trials[0]["params"] != trials[1]["params"]
    if recipe in AFTER:
        after = small(AFTER[recipe], tmp_path)
        found = invoke("correlate", recipe, "--executor", "inline", "--recipe", after, "--json")
        assert len(json.loads(found.stdout)["points"]) == 2
