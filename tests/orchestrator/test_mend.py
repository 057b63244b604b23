"""Mending a log, and making Optuna's study and the tracker's runs again from it."""

from __future__ import annotations

import json
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from small_world import FakeJobs, FakeStudy, make_sweep
from typer.testing import CliRunner

from mir.errors import ClusterError
from orchestrator.cli import app
from orchestrator.controller import Controller
from orchestrator.eventlog import LOG_NAME, read_records
from orchestrator.executors.inline import InlineExecutor
from orchestrator.fold import load_view
from orchestrator.lease import lease
from orchestrator.mend import rebuild, repair_log
from orchestrator.trackers.memory import MemoryTracker
from sweeps.decision import Verdict

SPEC = make_sweep(4)


def run(folder, study, tracker=None, spec=SPEC):
    executor = InlineExecutor(FakeJobs(), slots=2, nodes=((4.0, 0.0),))
    return Controller(
        spec, folder, executor, tracker or MemoryTracker(), open_study=lambda *_: study
    ).run()


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """The lines of a finished sweep's log."""
    folder = tmp_path_factory.mktemp("whole")
    run(folder / "study", FakeStudy(SPEC))
    return (folder / "study" / LOG_NAME).read_bytes().splitlines(keepends=True)


def study_of(folder, lines):
    """A study's folder with this log."""
    folder.mkdir()
    (folder / LOG_NAME).write_bytes(b"".join(lines))
    return folder


def kinds(lines):
    return [json.loads(line)["kind"] for line in lines]


def test_a_whole_log_is_left_as_it_is(tmp_path, whole):
    folder = study_of(tmp_path / "study", whole)
    done = repair_log(folder)
    assert (done.kept, done.lost, done.backup) == (len(whole), (), None)
    assert (folder / LOG_NAME).read_bytes() == b"".join(whole)
    assert sorted(path.name for path in folder.iterdir() if "lock" not in path.name) == [LOG_NAME]


def test_a_damaged_step_is_left_out_and_all_else_stays(tmp_path, whole):
    at = next(n for n, line in enumerate(whole) if b'"event":"step"' in line)
    lines = [*whole[:at], whole[at].replace(b'"loss":1.0', b'"loss":9.0'), *whole[at + 1 :]]
    folder = study_of(tmp_path / "study", lines)
    with pytest.raises(ClusterError, match="mirsweep repair"):
        load_view(folder)
    done = repair_log(folder)
    assert done.kept == len(whole) - 1
    assert done.lost == (f"line {at + 1}: its checksum does not match its content",)
    assert done.backup.read_bytes() == b"".join(lines)
    found = [record.kind for record in read_records(folder / LOG_NAME)]
    assert found == kinds(whole[:at] + whole[at + 1 :])


def test_a_log_that_makes_no_sense_without_a_record_is_cut_before_it(tmp_path, whole):
    at = kinds(whole).index("asked", kinds(whole).index("ended"))
    folder = study_of(tmp_path / "study", [*whole[:at], b"#" + whole[at], *whole[at + 1 :]])
    done = repair_log(folder)
    assert done.kept == at
    assert "make no sense" in done.lost[-1]
    assert len(list(read_records(folder / LOG_NAME))) == at


def test_files_of_trials_beyond_the_mended_log_are_set_aside(tmp_path, whole):
    """Their numbers come again with other jobs, which could not go on from these checkpoints."""
    at = kinds(whole).index("asked", kinds(whole).index("ended"))
    number = json.loads(whole[at])["data"]["trial"]
    folder = study_of(tmp_path / "study", [*whole[:at], b"#" + whole[at], *whole[at + 1 :]])
    for n in range(4):
        (folder / "trials" / f"{n:04d}").mkdir(parents=True)
        (folder / "trials" / f"{n:04d}" / "checkpoint").write_text(str(n))
    done = repair_log(folder)
    kept = sorted(load_view(folder).trials)
    assert kept == list(range(number))
    assert sorted(int(path.name) for path in (folder / "trials").iterdir()) == kept
    (aside,) = folder.glob("trials.damaged-*")
    assert sorted(int(path.name) for path in aside.iterdir()) == list(range(number, 4))
    assert (aside / "0003" / "checkpoint").read_text() == "3"
    assert str(aside) in done.lost[-1] and "0003" in done.lost[-1]


def test_a_lost_first_record_is_made_good_by_a_later_session(tmp_path, whole):
    folder = study_of(tmp_path / "study", whole)
    run(folder, FakeStudy(SPEC))
    lines = (folder / LOG_NAME).read_bytes().splitlines(keepends=True)
    before = load_view(folder)
    (folder / LOG_NAME).write_bytes(b"".join([b"?\n", *lines[1:]]))
    repair_log(folder)
    assert load_view(folder).trials == before.trials


def test_without_any_recipe_nothing_is_changed(tmp_path, whole):
    folder = study_of(tmp_path / "study", whole[1:])
    with pytest.raises(ClusterError, match="no record that holds the recipe"):
        repair_log(folder)
    assert (folder / LOG_NAME).read_bytes() == b"".join(whole[1:])


def test_a_study_that_runs_is_left_alone(tmp_path, whole):
    folder = study_of(tmp_path / "study", whole)
    with lease(folder):
        with pytest.raises(ClusterError, match="another controller"):
            repair_log(folder)
        with pytest.raises(ClusterError, match="another controller"):
            rebuild(folder, None, lambda *_: FakeStudy(SPEC))


@settings(max_examples=25, deadline=None)
@given(st.data())
def test_whatever_is_damaged_the_mended_study_goes_on_to_its_end(whole, data):
    with TemporaryDirectory() as name:
        lines = list(whole)
        for _ in range(data.draw(st.integers(1, 3))):
            at = data.draw(st.integers(1, len(lines) - 1))
            match data.draw(st.sampled_from(["change", "lose", "double", "cut"])):
                case "change":
                    lines[at] = lines[at][:30] + b"~" + lines[at][31:]
                case "lose":
                    del lines[at]
                case "double":
                    lines.insert(at, lines[at])
                case "cut":
                    lines = [*lines[:at], lines[at][: len(lines[at]) // 2]]
        folder = study_of(Path(name) / "study", lines)
        repair_log(folder)
        study = FakeStudy(SPEC)
        rebuild(folder, None, lambda *_: study)
        view = run(folder, study)
        assert sorted(view.trials) == [0, 1, 2, 3]
        assert all(trial.state.final for trial in view.trials.values())
        assert view == load_view(folder)


def test_study_and_tracker_are_made_again_from_the_log_alone(tmp_path):
    spec = make_sweep(8)
    study, tracker = FakeStudy(spec), MemoryTracker()
    view = run(tmp_path / "study", study, tracker, spec)
    assert any(trial.verdict is Verdict.PRUNE for trial in view.trials.values())
    again, other = FakeStudy(spec), MemoryTracker()
    assert rebuild(tmp_path / "study", other, lambda *_: again) == view
    assert (again.raws, again.told) == (study.raws, study.told)
    feasible = {
        n: {s.samples for s, counts in zip(t.scores, t.counted, strict=True) if counts}
        for n, t in view.trials.items()
    }
    assert {n: set(reports) for n, reports in again.reports.items()} == feasible
    assert {n: (t.state, t.reason) for n, t in other.trials.items()} == {
        n: (t.state, t.reason) for n, t in tracker.trials.items()
    }
    assert other.closed


def test_the_commands_mend_a_study_with_its_real_database(tmp_path, monkeypatch):
    monkeypatch.setattr("orchestrator.trackers.mlflow_tracker.MlflowTracker", MemoryTracker)
    folder = tmp_path / "study"

    def go():
        executor = InlineExecutor(FakeJobs(), nodes=((1.0, 0.0),))
        return Controller(SPEC, folder, executor, MemoryTracker()).run()

    first = go()
    lines = (folder / LOG_NAME).read_bytes().splitlines(keepends=True)
    at = kinds(lines).index("ended")
    (folder / LOG_NAME).write_bytes(b"".join([*lines[:at], b"{}\n", *lines[at + 1 :]]))
    told = CliRunner().invoke(app, ["repair", str(folder), "--json"])
    assert told.exit_code == 0, told.output
    assert json.loads(told.output)["lost"]
    assert {n: t.params for n, t in go().trials.items()} == {
        n: t.params for n, t in first.trials.items()
    }
    (folder / "study.db").write_bytes(b"this is no database")
    told = CliRunner().invoke(app, ["rebuild", str(folder)])
    assert told.exit_code == 0, told.output
    assert "all 4 trials again" in told.output
    assert (folder / "study.db.before-rebuild").exists()
    view = go()
    assert all(trial.state.final for trial in view.trials.values())
