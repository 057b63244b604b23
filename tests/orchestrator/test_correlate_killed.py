"""`correlate` killed with SIGKILL and run again: nothing is done twice, the outcome is the same."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml
from typer.testing import CliRunner

import sweeps
from orchestrator.cli import app

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore::DeprecationWarning")]

RECIPES = Path(sweeps.__file__).parent / "recipes"
TRIALS = 3
_MAIN = "from orchestrator.cli import main; main()"
SMALL = {
    "budget.trials": TRIALS,
    "base.optim.samples": 32,
    "base.score.every_samples": 32,
    "base.score.pairs": 8,
    "base.data.validation_samples": 8,
    "study.guard.constraints": "{}",
}


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    """A finished study of the embedded world."""
    folder = tmp_path_factory.mktemp("study") / "trust"
    sets = [word for field, value in SMALL.items() for word in ("--set", f"{field}={value}")]
    words = ["run", RECIPES / "trust.yaml", "--executor", "inline", "--folder", folder, *sets]
    done = CliRunner().invoke(app, [str(word) for word in words])
    assert done.exit_code == 0, done.output
    return folder


@pytest.fixture(scope="module")
def recipe(tmp_path_factory):
    """The embedded world's, with few questions, and a checkpoint every other step."""
    told = yaml.safe_load((RECIPES / "downstream" / "world.yaml").read_text())
    told["evaluate"] |= {"question_count": 16, "caption_count": 8}
    told["finetune"]["optim"] |= {"samples": 64, "global_batch": 8}
    told["finetune"]["score"] = {"every_samples": 64, "pairs": 8}
    told["finetune"]["data"]["validation_samples"] = 4
    told["finetune"]["checkpoint"] = {"every_samples": 16, "keep": 9}
    path = tmp_path_factory.mktemp("recipe") / "small.yaml"
    path.write_text(yaml.safe_dump(told))
    return path


def begin(study, recipe):
    words = ["correlate", study, "--recipe", recipe, "--executor", "inline", "--keep"]
    return subprocess.Popen(
        [sys.executable, "-c", _MAIN, *map(str, words)],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=study.parent,
        env={**os.environ, "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"},
    )  # fmt: skip


def to_the_end(study, recipe):
    """What was said, and the outcome's points."""
    process = begin(study, recipe)
    said, faults = process.communicate(timeout=200)
    assert process.returncode == 0, said + faults
    (folder,) = (path for path in (study / "correlate").iterdir() if path.is_dir())
    return said, json.loads((folder / "outcome.json").read_text())["points"]


def killed_when(study, recipe, wanted):
    """Run until a path that matches `wanted` exists below the results, and kill it."""
    process = begin(study, recipe)
    deadline = time.monotonic() + 200
    while not any(study.glob(f"correlate/*/{wanted}")):
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline, f"{wanted} never came"
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.communicate()


def ages(study, *patterns):
    """When each file below the results was last written."""
    found = [path for one in patterns for path in study.glob(f"correlate/*/{one}")]
    return {path: path.stat().st_mtime_ns for path in found}


def test_what_was_done_before_the_kill_stays_and_the_outcome_is_the_same(study, recipe, tmp_path):
    whole, parts = tmp_path / "whole" / "trust", tmp_path / "parts" / "trust"
    for copy in (whole, parts):
        shutil.copytree(study, copy)
    _, expected = to_the_end(whole, recipe)
    assert len(expected) == TRIALS

    killed_when(parts, recipe, "0001/checkpoints/samples-000000000032")
    before = ages(parts, "0000.json", "*/checkpoints/samples-*/state.json")
    assert sum(path.name == "0000.json" for path in before) == 1, "the first is done"
    assert not any(parts.glob("correlate/*/0001.json")), "the second is not"

    killed_when(parts, recipe, "0001.json")
    said, found = to_the_end(parts, recipe)
    assert f"going on: 2 of {TRIALS} trials are done" in said
    assert "trial 0" not in said and "trial 1" not in said
    after = ages(parts, "0000.json", "*/checkpoints/samples-*/state.json")
    assert all(after[path] == age for path, age in before.items())
    assert found == expected
