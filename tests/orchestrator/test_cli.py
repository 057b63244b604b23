"""The command line: light, one line for every mistake, exit codes as documented."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import typer
from small_world import FakeJobs, make_sweep
from sweep_views import OPENED, make_view
from typer.testing import CliRunner, Result

from mir.errors import ClusterError, ConfigError, MirsweepError
from orchestrator.cli import VERBS, app
from orchestrator.commands import studies
from orchestrator.controller import Controller
from orchestrator.eventlog import LOG_NAME
from orchestrator.executors.inline import InlineExecutor
from orchestrator.failures import BUG, INTERRUPTED, shown_to_the_user
from orchestrator.state import SweepView
from orchestrator.trackers.memory import MemoryTracker

HEAVY = ("torch", "ray", "deepspeed", "mlflow", "transformers", "optuna", "plotly", "matplotlib")
RECIPE = Path(__file__).parents[2] / "sweeps" / "recipes" / "quickstart.yaml"


def invoke(*words: str) -> Result:
    return CliRunner().invoke(app, list(words))


@pytest.fixture
def study(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder `runs/demo` that looks like a study, whose state is a made-up sweep."""
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "runs" / "demo"
    folder.mkdir(parents=True)
    (folder / LOG_NAME).write_text("")
    monkeypatch.setattr("orchestrator.fold.load_view", lambda folder: make_view(14))
    return folder


@pytest.mark.parametrize("words", [["--help"], ["run", "--help"], ["plan", str(RECIPE)]])
def test_help_and_plan_load_nothing_heavy(words: list[str]) -> None:
    code = (
        "import sys\nfrom orchestrator.cli import app\n"
        f"try:\n    app({words!r})\nexcept SystemExit as leaving:\n    assert not leaving.code\n"
        f"print('loaded:', [name for name in {HEAVY!r} if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "loaded: []"


LOOKING = ("list", "status demo", "show demo 0", "logs demo 0", "gc demo --dry-run", "stop demo",
           "extend demo --trials 1", "retry demo --failed")  # fmt: skip


def test_verbs_beside_a_sweep_load_neither_its_controller_nor_what_computes(tmp_path: Path) -> None:
    controller = Controller(make_sweep(1), tmp_path / "runs/demo", InlineExecutor(FakeJobs()),
                            MemoryTracker())  # fmt: skip
    controller.run()
    code = (
        "import sys\nfrom orchestrator.cli import app\n"
        f"for words in {LOOKING!r}:\n"
        "    try:\n        app(words.split())\n    except SystemExit:\n        pass\n"
        f"print('loaded:', sorted({{*{HEAVY!r}, 'numpy', 'scipy'}} & {{*sys.modules}}))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=tmp_path
    )
    assert done.stdout.splitlines()[-1] == "loaded: []"
    assert "no study" not in done.stderr


def test_help_names_every_verb_and_exit_code() -> None:
    text = invoke("--help").output
    assert all(f" {verb} " in text for verb in VERBS)
    assert "Exit codes: 0 done" in text
    assert "130 interrupted" in text


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_explains_itself(verb: str) -> None:
    done = invoke(verb, "--help")
    assert done.exit_code == 0, done.output
    assert f"mirsweep {verb}" in done.output or f" {verb} " in done.output


def test_version_is_the_installed_one() -> None:
    assert invoke("--version").output.startswith("mirsweep 0.")


def test_wrong_usage_exits_with_2_and_suggests() -> None:
    done = invoke("stauts")
    assert done.exit_code == 2
    assert "'status'" in done.stderr


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["run", "--foo"], "mirsweep run: No such option: --foo"),
        (["run"], "mirsweep run: Missing argument"),
        (["--foo"], "mirsweep: No such option: --foo"),
        (["score", "x", "--pairs", "many"], "mirsweep score: Invalid value for '--pairs'"),
        (["data"], "Choose from: check"),
    ],
)
def test_a_wrong_command_line_is_one_line_that_names_the_help(words: list[str], said: str) -> None:
    done = CliRunner().invoke(app, words, prog_name="mirsweep")
    assert done.exit_code == 2
    assert done.stderr.startswith("error: ") and done.stderr.count("\n") == 1, done.stderr
    assert said in done.stderr and " -h` says what it takes" in done.stderr
    assert not done.stdout


@pytest.mark.parametrize(
    ("error", "code"), [(ConfigError("a: b"), 2), (ClusterError("c"), 1), (MirsweepError("d"), 1)]
)
def test_errors_leave_with_their_code_in_one_line(
    error: MirsweepError, code: int, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(typer.Exit) as leaving, shown_to_the_user():
        raise type(error)(f"{error}\nsecond line")
    assert leaving.value.exit_code == code
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err == f"error: {error} second line\n"


def test_interruption_leaves_with_130(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(typer.Exit) as leaving, shown_to_the_user():
        raise KeyboardInterrupt
    assert leaving.value.exit_code == INTERRUPTED
    assert "interrupted" in capsys.readouterr().err


def test_a_bug_saves_its_traceback_and_names_the_file(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    with pytest.raises(typer.Exit) as leaving, shown_to_the_user():
        raise ZeroDivisionError("three over nothing")
    line = capsys.readouterr().err
    assert leaving.value.exit_code == BUG
    assert line.count("\n") == 1
    saved = Path(line.split(" in ")[-1].strip())
    assert saved.parent == tmp_path
    assert "test_cli.py" in saved.read_text()
    assert "three over nothing" in saved.read_text()


def test_system_errors_name_the_file(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    with pytest.raises(typer.Exit) as leaving, shown_to_the_user():
        (tmp_path / "nowhere" / "x").read_text()
    assert leaving.value.exit_code == 1
    assert f"{tmp_path}/nowhere/x: No such file" in capsys.readouterr().err


def test_unknown_study_lists_the_known_ones(study: Path) -> None:
    done = invoke("status", "dem")
    assert done.exit_code == 2
    assert done.stderr.count("\n") == 1
    assert "Did you mean 'demo'?" in done.stderr


def test_status_shows_every_trial(study: Path) -> None:
    done = invoke("status", "demo")
    assert done.exit_code == 0, done.stderr
    assert "14/16 trials finished" in done.output
    assert all(f"\n{n:5} " in done.output for n in range(14))


def test_status_json_holds_the_state(study: Path) -> None:
    told = json.loads(invoke("status", str(study), "--json").output)
    assert [trial["trial"] for trial in told["trials"]] == list(range(14))
    assert told["trials_finished"] == 14
    assert told["trials"][told["best_trial"]]["feasible"] is True


def test_json_turns_nan_into_null(study: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    view = make_view(1)
    view.trials[0].scores[-1].mir["mir"] = float("nan")
    monkeypatch.setattr("orchestrator.fold.load_view", lambda folder: view)
    assert json.loads(invoke("status", "demo", "--json").output)["trials"][0]["mir"] is None


def test_show_prints_scores_and_settings(study: Path) -> None:
    done = invoke("show", "demo", "4")
    assert done.exit_code == 0, done.stderr
    assert "does not count: validation loss 8.54" in done.output
    assert "mixture/detailed" in done.output
    assert "2,048" in done.output


def test_a_checkpoint_that_retention_let_go_is_not_shown_as_there(
    study: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    view = make_view(14)
    written = replace(view.trials[4], checkpoint="/elsewhere/trials/0004/checkpoints/samples-64")
    view = replace(view, trials={**view.trials, 4: written})
    monkeypatch.setattr("orchestrator.fold.load_view", lambda folder: view)
    assert "checkpoint: none is kept, see `retention`" in invoke("show", "demo", "4").output
    assert json.loads(invoke("show", "demo", "4", "--json").output)["checkpoint"] is None
    kept = study / "trials" / "0004" / "checkpoints" / "samples-64"
    kept.mkdir(parents=True)
    assert "none is kept" not in invoke("show", "demo", "4").output
    assert json.loads(invoke("show", "demo", "4", "--json").output)["checkpoint"] == str(kept)


def test_show_refuses_an_unknown_trial(study: Path) -> None:
    done = invoke("show", "demo", "99")
    assert done.exit_code == 2
    assert "trials 0 to 13" in done.stderr


def test_logs_prints_a_ranks_output(study: Path) -> None:
    folder = study / "trials" / "0003"
    folder.mkdir(parents=True)
    (folder / "rank1.log").write_bytes(b"hello \xff\n")
    done = invoke("logs", "demo", "3", "--rank", "1", "--follow")
    assert done.output == "hello �\n"


def test_logs_of_a_silent_rank_says_so(study: Path) -> None:
    folder = study / "trials" / "0003"
    folder.mkdir(parents=True)
    (folder / "rank0.log").touch()
    done = invoke("logs", "demo", "3")
    assert done.exit_code == 0
    assert done.stdout == ""
    assert "wrote nothing" in done.stderr
    assert "mirsweep show demo 3" in done.stderr


def test_logs_says_why_there_is_none(study: Path) -> None:
    done = invoke("logs", "demo", "3")
    assert done.exit_code == 2
    assert "no such log" in done.stderr


def test_list_shows_studies_of_a_folder(study: Path) -> None:
    (study.parent / "not-a-study").mkdir()
    done = invoke("list")
    assert "runs/demo" in done.output
    assert "not-a-study" not in done.output
    assert len(json.loads(invoke("list", "--json").output)) == 1


def test_list_of_nothing_says_so(tmp_path: Path) -> None:
    assert "no studies in" in invoke("list", str(tmp_path)).output


def test_report_writes_where_it_is_told(study: Path, tmp_path: Path) -> None:
    done = invoke("report", "demo", "--out", str(tmp_path / "there"))
    assert done.exit_code == 0, done.stderr
    assert (tmp_path / "there" / "index.html").stat().st_size > 1_000_000
    assert (tmp_path / "there" / "mir.png").read_bytes().startswith(b"\x89PNG")


def test_watching_an_ended_study_returns(study: Path) -> None:
    assert invoke("status", "demo", "--watch").exit_code == 0


def test_a_study_is_found_by_path_or_name(study: Path) -> None:
    assert studies.study_folder("demo") == Path("runs/demo")
    assert studies.study_folder(str(study)) == study


def test_open_study_tells_its_last_sign_of_life(
    study: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def running(folder: Path) -> SweepView:
        return make_view(8, running=True)

    monkeypatch.setattr("orchestrator.fold.load_view", running)
    monkeypatch.setattr("time.time", lambda: OPENED + 3000)
    assert "last sign of life" in invoke("status", "demo").output
