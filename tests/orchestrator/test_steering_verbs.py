"""Who hears a request, what the verbs answer, and commands that outlive their terminal."""

import json
import os
import socket
from contextlib import contextmanager
from types import SimpleNamespace

import pytest
from steered_sweep import run, states
from typer.testing import CliRunner

import orchestrator.controller as loop
from mir.errors import ClusterError
from orchestrator import detach
from orchestrator.cli import app
from orchestrator.control import Request, controlled, post, waiting
from orchestrator.detach import LOG, detach_here, detach_on_cluster
from orchestrator.lease import HOLDER_NAME, lease


@pytest.fixture(autouse=True)
def at_once(monkeypatch):
    """Pretended jobs are quicker than a person: look for requests in every turn of the loop."""
    monkeypatch.setattr(loop, "POLL_S", 0.0)


@pytest.mark.parametrize("verb", ["stop", "drain", "pause", "resume"])
def test_what_an_earlier_controller_did_not_live_to_hear_is_not_for_the_next(tmp_path, verb):
    folder = tmp_path / "s"
    folder.mkdir()
    post(folder, Request(verb=verb))
    view, _, _ = run(folder, {})
    assert states(view) == ["complete"] * 4
    assert not waiting(folder)


def test_nor_is_what_was_meant_for_a_holder_that_died_while_the_next_waited(tmp_path, monkeypatch):
    folder = tmp_path / "s"

    @contextmanager
    def waited_for(place, wait_s):
        post(place, Request(verb="stop"))
        with lease(place, wait_s) as held:
            yield held

    monkeypatch.setattr(loop, "lease", waited_for)
    view, _, _ = run(folder, {})
    assert states(view) == ["complete"] * 4
    assert not waiting(folder)


def test_a_holder_is_seen_by_its_process(tmp_path):
    assert not controlled(tmp_path)
    holder = {"host": socket.gethostname(), "pid": os.getpid()}
    (tmp_path / HOLDER_NAME).write_text(json.dumps(holder))
    assert controlled(tmp_path)
    (tmp_path / HOLDER_NAME).write_text(json.dumps(holder | {"pid": 2**22 + 1}))
    assert not controlled(tmp_path)
    (tmp_path / HOLDER_NAME).write_text(json.dumps(holder | {"host": "elsewhere"}))
    assert controlled(tmp_path)


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (["stop"], 1, "no controller runs this study"),
        (["pause"], 1, "no controller runs this study"),
        (["extend"], 2, "nothing to add"),
        (["extend", "--hours", "1"], 2, "this sweep has no budget.hours"),
        (["extend", "--trials", "1", "--gpu-hours", "1"], 2, "has no budget.gpu_hours"),
        (["extend", "--samples", "8"], 2, "leave out --samples"),
        (["extend", "--cost", "8"], 2, "leave out --cost"),
        (["retry"], 2, "say what to try again"),
        (["retry", "--failed"], 2, "no failed trial"),
        (["enqueue", "nosuch=1"], 2, "no such parameter"),
        (["enqueue", "learning_rate"], 2, "is no NAME=VALUE"),
        (["extend", "--trials", "2"], 0, "left for the next controller"),
        (["enqueue", "learning_rate=1e-2"], 0, "left for the next controller"),
    ],
)
def test_verbs_say_what_they_did_or_why_not(words, code, message, tmp_path):
    folder = tmp_path / "s"
    run(folder, {}, trials=1)
    found = CliRunner().invoke(app, [words[0], str(folder), *words[1:]])
    assert found.exit_code == code, found.output
    assert message in found.output
    assert len(waiting(folder)) == (code == 0)


def test_what_was_left_is_carried_out_by_the_next_controller(tmp_path):
    _, _, study = run(tmp_path / "s", {}, trials=1)
    left = ["extend", str(tmp_path / "s"), "--trials", "2", "--json"]
    found = CliRunner().invoke(app, left)
    assert json.loads(found.stdout)["taken"] is False
    assert len(run(tmp_path / "s", {}, trials=1, study=study)[0].trials) == 3


def test_a_detached_command_runs_in_a_session_of_its_own(tmp_path):
    with detach_here(["--version"], tmp_path / "s") as started:
        assert os.getsid(started.pid) == started.pid
    assert (tmp_path / "s" / LOG).read_text().startswith("mirsweep ")


@pytest.mark.parametrize(
    ("said", "message"),
    [
        ("noise\nConnection refused", r"http://h:8.*Connection refused.*--include-dashboard=true"),
        ("Authentication required: no token\n\nlong", r"asks for a token.*RAY_AUTH_MODE=token"),
        ("The Ray jobs CLI & SDK require the ray[default]", r"pip install 'ray\[default\]'"),
        ("RuntimeError: failed with status code 404: x.", r"job server does not run"),
    ],
)
def test_a_cluster_that_takes_no_job_is_named_with_a_remedy(said, message, monkeypatch, tmp_path):
    refused = SimpleNamespace(returncode=1, stdout="", stderr=said)
    monkeypatch.setattr(detach.subprocess, "run", lambda *_args, **_options: refused)
    with pytest.raises(ClusterError, match=message) as error:
        detach_on_cluster(["run", "r.yaml"], "http://h:8265", tmp_path)
    assert "\n" not in str(error.value)


def test_a_job_for_a_cluster_finds_mirsweep_and_its_folder_there(monkeypatch, tmp_path):
    asked = []

    def run(command, **_options):
        asked.append(command)
        return SimpleNamespace(returncode=0, stdout="", stderr="")

    monkeypatch.setattr(detach.subprocess, "run", run)
    folder = tmp_path / "a b"
    job = detach_on_cluster(["run", "my r.yaml"], "http://h:8265", folder)
    command = asked[0]
    assert command[command.index("--submission-id") + 1] == job
    assert job.replace("-", "").replace(".", "").replace("_", "").isalnum()
    shell = command[command.index("--") + 1 :]
    assert shell[:2] == ["sh", "-c"]
    assert folder.is_dir()
    assert shell[2].endswith("mirsweep run 'my r.yaml' --address auto")
