"""Every verb can answer in JSON: a document, or lines of JSON where it follows something."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import typer
from small_world import make_sweep
from sweep_views import make_report, make_view
from typer.testing import CliRunner, Result

from jobs.events import Finished, Step
from orchestrator.cli import VERBS, app
from orchestrator.eventlog import LOG_NAME
from orchestrator.scoring.stored import Score, write_score
from orchestrator.views.stream import StreamView, changes
from sweeps.recipe import dump_job, dump_recipe

TO_A_FILE = {"score": "writes the report that `compare` and the report page read"}
"""Verbs whose --json names a file, and why."""


def invoke(*words: str) -> Result:
    return CliRunner().invoke(app, list(words))


@pytest.fixture
def study(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "runs" / "demo"
    folder.mkdir(parents=True)
    (folder / LOG_NAME).write_text("")
    monkeypatch.setattr("orchestrator.fold.load_view", lambda folder: make_view(16))
    return folder


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_has_json(verb: str) -> None:
    command = typer.main.get_command(app).commands[verb]
    options = {name: option for option in command.params for name in option.opts}
    assert "--json" in options, f"mirsweep {verb} has no --json"
    assert options["--json"].is_flag == (verb not in TO_A_FILE)


def test_the_list_of_exceptions_holds_nothing_else() -> None:
    assert set(TO_A_FILE) <= set(VERBS)


def test_logs_come_as_lines_of_json(study: Path) -> None:
    folder = study / "trials" / "0003"
    folder.mkdir(parents=True)
    (folder / "rank1.log").write_bytes(b"one\n\ntwo \xff")
    told = invoke("logs", "demo", "3", "--rank", "1", "--json").stdout.splitlines()
    assert [json.loads(line) for line in told] == [
        {"trial": 3, "rank": 1, "text": text} for text in ("one", "", "two �")
    ]


def test_attach_to_a_sweep_that_has_ended_tells_it_all_once(study: Path) -> None:
    done = invoke("attach", "demo", "--json")
    assert done.exit_code == 0, done.stderr
    *trials, last = [json.loads(line) for line in done.stdout.splitlines()]
    assert [trial["trial"] for trial in trials] == list(range(16))
    assert last["ended"] is True
    assert trials[last["best_trial"]]["feasible"] is True


def test_watching_as_json_gives_a_line_for_each_state(study: Path) -> None:
    told = invoke("status", "demo", "--watch", "--json").stdout.splitlines()
    assert [json.loads(line)["trials_finished"] for line in told] == [16]


def test_a_stream_tells_only_what_changed(tmp_path: Path) -> None:
    before, after = make_view(7, running=True), make_view(8, running=True)
    told: list[dict[str, object]] = []
    screen = StreamView(told.append, tmp_path)
    with screen:
        screen(before)
        first = len(told)
        screen(before)
        assert len(told) == first
        screen(after)
    known = before.trials
    assert {line["trial"] for line in told[first:] if "trial" in line} == {
        number
        for number, trial in after.trials.items()
        if number not in known or len(trial.scores) != len(known[number].scores)
    }
    noted = replace(after, note="paused")
    assert [line["note"] for line in changes(after, noted, tmp_path)] == ["paused"]


def test_train_tells_every_event(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    steps = [
        Step(samples=n, loss=float("nan"), learning_rate=1, grad_norm=1, samples_per_second=1)
        for n in (8, 16)
    ]

    def run_local(spec, workers, folder, on_event, *, device):
        for event in (*steps, last):
            on_event(event)
        return last

    last = Finished(samples=16, seconds=1.0)
    monkeypatch.setattr("jobs.launch.run_local", run_local)
    Path("job.yaml").write_text(dump_job(make_sweep().base))
    told = [json.loads(x) for x in invoke("train", "job.yaml", "--json").stdout.splitlines()]
    assert [line["event"] for line in told] == ["step", "step", "finished"]
    assert told[0]["loss"] is None
    assert told[0]["time"] > 0


def test_report_names_its_page_and_pictures(study: Path, tmp_path: Path) -> None:
    told = json.loads(invoke("report", "demo", "--json").stdout)
    assert Path(told["page"]).is_file()
    assert told["pictures"] and all(Path(path).is_file() for path in told["pictures"])


def test_compare_gives_differences_by_layer(tmp_path: Path) -> None:
    paths = [tmp_path / "a.json", tmp_path / "b.json"]
    for path, mir in zip(paths, (2.0, 1.0), strict=True):
        write_score(Score(model="m", report=make_report(mir)), path)
    told = json.loads(invoke("compare", *map(str, paths), "--json").stdout)
    assert told["warning"] is None
    assert [score["difference"] for score in told["scores"]] == [0.0, -1.0]
    layers = told["scores"][1]["layers"]
    assert sum(layer["difference"] for layer in layers) == pytest.approx(10.0 - 100.0)


def test_detaching_says_where_it_went(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("r.yaml").write_text(dump_recipe(make_sweep()))
    asked: list[list[str]] = []

    class Started:
        pid = 17

    def detach_here(words, folder):
        asked.append(words)
        return Started

    def detach_on_cluster(words, address, folder):
        asked.append(words)
        return "job-1"

    monkeypatch.setattr("orchestrator.detach.detach_here", detach_here)
    monkeypatch.setattr("orchestrator.detach.detach_on_cluster", detach_on_cluster)
    command = ["run", "r.yaml", "--detach", "--json", "--trials", "2", "--wait", "5"]
    here = json.loads(invoke(*command).stdout)
    assert here == {"folder": "runs/small", "pid": 17, "log": "runs/small/controller.log"}
    there = json.loads(invoke(*command, "--address", "http://head:8265").stdout)
    assert there["ray_job"] == "job-1" and there["dashboard"] == "http://head:8265"
    for words in asked:
        assert words[:2] == ["run", str(tmp_path / "r.yaml")]
        assert words[words.index("--trials") + 1] == "2"
        assert words[words.index("--wait") + 1] == "5.0"
