"""Issue 2: each kind of bad input, through the real command, from the file to the exit code.

Every one is refused with exit code 2 and one line on stderr that names the file or option, the
field, the value and what to do; nothing half-made is left behind.
"""

from __future__ import annotations

import json
import re
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import yaml
from PIL import Image
from typer.testing import CliRunner, Result

import orchestrator.executors.ray_executor  # noqa: F401 - before its default runner is replaced
from orchestrator.cli import app
from orchestrator.executors.inline import InlineExecutor
from orchestrator.trackers.memory import MemoryTracker

Edit = Callable[[dict[str, Any]], None]
SOURCES = ("detailed", "short", "tags", "mismatched")


def recipe_values() -> dict[str, Any]:
    return {
        "name": "small",
        "base": {
            "data": {
                "sources": {s: {"kind": "scenes", "style": s, "size": 40} for s in SOURCES},
                "validation": {"kind": "scenes", "style": "detailed", "split": "validation"},
                "validation_samples": 8,
            },
            "optim": {"samples": 64, "global_batch": 8, "learning_rate": 1e-3},
            "score": {"every_samples": 32, "pairs": 8},
        },
        "space": {
            "data": {"mixture": {"mixture": "all"}},
            "optim": {"learning_rate": {"low": 1e-4, "high": 1e-1, "log": True}},
        },
        "budget": {"trials": 3},
    }


def put(field: str, value: Any) -> Edit:
    """Sets a dotted field, making the mappings on the way."""

    def edit(values: dict[str, Any]) -> None:
        *above, last = field.split(".")
        for name in above:
            values = values.setdefault(name, {})
        values[last] = value

    return edit


@pytest.fixture(autouse=True)
def empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working directory; a job that begins anyway fails the test."""
    monkeypatch.chdir(tmp_path)

    def never(spec, place):
        raise AssertionError("a job was begun")

    monkeypatch.setattr("orchestrator.executors.inline.default_runner", never)
    monkeypatch.setattr(
        "orchestrator.commands.run._executor", lambda name, address: InlineExecutor(never)
    )
    monkeypatch.setattr("orchestrator.trackers.mlflow_tracker.MlflowTracker", MemoryTracker)
    return tmp_path


def command(verb: str, *words: str, edit: Edit | None = None) -> Result:
    """`mirsweep VERB recipe.yaml WORDS`, or a job.yaml for train."""
    values = recipe_values()
    if edit is not None:
        edit(values)
    file = Path("job.yaml" if verb == "train" else "recipe.yaml")
    written = values["base"] if verb == "train" else values
    file.write_text(yaml.safe_dump(written, sort_keys=False))
    return CliRunner().invoke(app, [verb, str(file), *words])


def assert_refused(done: Result, *words: str) -> None:
    """Exit code 2, one line that holds all the words, and no study."""
    assert done.exit_code == 2, (done.stderr, done.output, done.exception)
    assert done.stderr.startswith("error: ")
    assert done.stderr.count("\n") == 1, done.stderr
    assert "Traceback" not in done.stderr
    for word in words:
        assert word in done.stderr, (word, done.stderr)
    assert not Path("runs").exists()


WRONG = {
    "misspelt field": (
        put("base.optim.learning_rat", 1e-3),
        ("base.optim.learning_rat", "no such field", "Did you mean 'learning_rate'?"),
    ),
    "wrong type": (
        put("base.optim.samples", "many"),
        ("base.optim.samples", "'many' is refused", "integer"),
    ),
    "empty mixture": (
        put("base.data.mixture", dict.fromkeys(SOURCES, 0)),
        ("base.data", "mixture weights sum to 0", "above 0"),
    ),
    "no sources": (put("base.data.sources", {}), ("base.data", "sources is empty", "at least one")),
    "empty mixture space": (
        put("space.data.mixture", {"mixture": []}),
        ("space.data.mixture", "nothing varies", "at least two"),
    ),
    "unknown source": (
        put("base.data.mixture", {"shrot": 1}),
        ("base.data", "unknown sources ['shrot']", "known: [", "'short'"),
    ),
    "unknown source in the space": (
        put("space.data.mixture", {"mixture": ["short", "tgas"]}),
        ("space.data.mixture", "'tgas'", "Did you mean 'tags'?"),
    ),
    "unknown style": (
        put("base.data.sources.short.style", "shrot"),
        ("recipe.yaml", "base.data.sources.short.style", "'shrot'", "known: detailed"),
    ),
    "weight below zero": (
        put("base.data.mixture", {"short": -0.5}),
        ("base.data.mixture.short", "-0.5 is refused", "greater than or equal to 0"),
    ),
    "fixed weight below zero": (
        put("space.data.mixture", {"mixture": "all", "fixed": {"short": -0.5}}),
        ("space.data.mixture.fixed.short", "-0.5 is refused", "greater than or equal to 0"),
    ),
}


@pytest.mark.parametrize("verb", ["run", "plan"])
@pytest.mark.parametrize("name", WRONG)
def test_a_wrong_recipe_is_refused(verb: str, name: str) -> None:
    edit, words = WRONG[name]
    done = command(verb, edit=edit)
    assert_refused(done, "recipe.yaml", *words)


@pytest.mark.parametrize("name", ["misspelt field", "wrong type", "weight below zero"])
def test_a_wrong_job_is_refused(name: str) -> None:
    edit, words = WRONG[name]
    done = command("train", edit=edit)
    assert_refused(done, "job.yaml:", *(word.removeprefix("base.") for word in words))


def test_a_number_written_as_1e_3_is_a_number() -> None:
    """PyYAML reads it as text; both its text and its quoted form are taken as 0.001."""
    text = yaml.safe_dump(recipe_values(), sort_keys=False)
    for written in ("1e-3", "'1e-3'", "0.001"):
        Path("recipe.yaml").write_text(
            text.replace("learning_rate: 0.001", f"learning_rate: {written}")
        )
        done = CliRunner().invoke(app, ["plan", "recipe.yaml", "--json"])
        assert done.exit_code == 0, done.stderr
        assert json.loads(done.stdout)["recipe"]["base"]["optim"]["learning_rate"] == 1e-3


def test_more_workers_than_the_cluster_has() -> None:
    """One check for all executors; what Ray says of its size is in their contract tests."""

    def edit(values: dict[str, Any]) -> None:
        put("resources.workers", 4096)(values)
        put("base.optim.global_batch", 4096)(values)  # or that would be refused first

    done = command("run", edit=edit)
    assert_refused(done, "resources", "4096 workers", "room for", "larger cluster")


def listing(rows: list[dict[str, str]], kind: str = "jsonl") -> dict[str, str]:
    """A source with these rows; `kind` says in which format they are written."""
    path = Path("captions.jsonl" if kind == "jsonl" else "captions.json")
    if kind == "jsonl":
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    else:
        turns = [{"image": r["image"], "conversations": []} for r in rows]
        path.write_text(json.dumps(turns))
    return {"kind": kind, "path": path.name}


def missing() -> list[dict[str, str]]:
    return [{"image": f"none{i}.png", "caption": "a red circle"} for i in range(4)]


def corrupt() -> list[dict[str, str]]:
    Path("broken.png").write_bytes(b"\x89PNG\r\n\x1a\nthe rest was lost")
    return [{"image": "broken.png", "caption": "a red circle"}] * 4


def no_file() -> dict[str, str]:
    return {"kind": "jsonl", "path": "captions.jsonl"}


DATA = {
    "missing image": (lambda: listing(missing()), ("captions.jsonl", "image missing", "Mend")),
    "corrupt image": (
        lambda: listing(corrupt()),
        ("captions.jsonl", "image unreadable", "Mend"),
    ),
    "empty data set": (lambda: listing([]), ("captions.jsonl", "holds no samples", "give it")),
    "empty list": (lambda: listing([], "llava"), ("captions.json", "holds no samples", "give it")),
    "missing listing": (no_file, ("captions.jsonl", "does not exist", "Correct the path")),
}


@pytest.mark.parametrize("field", ["data.sources.web", "data.validation", "score.images"])
@pytest.mark.parametrize("name", DATA)
def test_data_that_cannot_be_used(name: str, field: str) -> None:
    source, words = DATA[name]
    edit = put(f"base.{field}", source())
    for verb in ("plan", "run"):
        assert_refused(command(verb, edit=edit), f"recipe.yaml: base.{field}", *words)
    assert_refused(command("train", edit=edit), f"job.yaml: {field}", *words)


def test_texts_that_do_not_exist() -> None:
    done = command("run", edit=put("base.score.texts", {"source": "stories.txt"}))
    assert_refused(done, "base.score.texts.source", "stories.txt", "does not exist", "Name a text")


def test_one_good_picture_among_bad_ones_is_enough_to_begin() -> None:
    """Bad samples are counted by the job; only it can tell when there are too many."""
    Image.new("RGB", (8, 8), "red").save("good.png")
    rows = [*missing(), *corrupt(), {"image": "good.png", "caption": "a red square"}]
    edit = put("base.data.sources.web", listing(rows))
    assert command("plan", edit=edit).exit_code == 0


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_a_few_bad_pictures_are_counted_and_too_many_end_the_job() -> None:
    from jobs.events import Failed, Finished, Skipped
    from jobs.place import Place
    from jobs.run import run_job
    from jobs.spec import JobSpec

    Image.new("RGB", (64, 64), "red").save("good.png")
    good = {"image": "good.png", "caption": "a red square"}
    # Apart from each other: what stands in for a bad sample is the next one.
    source = listing([*missing()[:1], *[good] * 15, *corrupt()[:1], *[good] * 15])
    values = recipe_values()["base"]
    values["optim"]["samples"] = 32

    def events(limit: float) -> list[Any]:
        values["data"] |= {"sources": {"web": source}, "max_bad_fraction": limit}
        spec = JobSpec.model_validate(values)
        return list(run_job(spec, Place(folder=Path(f"job-{limit}"))))

    *told, last = events(0.5)
    assert isinstance(last, Finished)
    skipped = {(s.source, s.reason): s.count for s in told if isinstance(s, Skipped)}
    assert skipped == {("web", "image missing"): 1, ("web", "image unreadable"): 1}
    *_, failed = events(0.0)
    assert isinstance(failed, Failed) and failed.kind == "bad-data"
    limit = r"data\.max_bad_fraction: \d of .*captions\.jsonl:\d+"
    assert re.match(limit, failed.reason), failed.reason


@pytest.mark.parametrize("verb", ["run", "train"])
def test_a_folder_that_cannot_be_written(verb: str) -> None:
    """Below a regular file not even root can make one."""
    Path("file").write_text("mine")
    done = command(verb, "--folder", "file/study")
    assert_refused(done, "--folder", "file/study", "is a file", "Give the path of a folder")
    assert Path("file").read_text() == "mine"


def test_an_unreachable_tracking_server_is_told_within_seconds() -> None:
    began = time.monotonic()
    done = command("run", "--set", "tracking.uri=http://127.0.0.1:9")
    assert_refused(done, "tracking.uri", "http://127.0.0.1:9", "cannot be reached", "Start the")
    assert time.monotonic() - began < 60  # MLflow left to itself tries for four minutes


@contextmanager
def taken_port(answer: bytes | None) -> Iterator[int]:
    """A port that another program holds; `answer` is all it ever says, None for silence."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        held: list[socket.socket] = []

        def serve() -> None:
            while True:
                try:
                    connection, _ = server.accept()
                except OSError:  # closed: the test is over
                    return
                held.append(connection)
                if answer is not None:
                    connection.sendall(answer)

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        try:
            yield server.getsockname()[1]
        finally:
            server.shutdown(socket.SHUT_RDWR)
            thread.join(5.0)
            for connection in held:
                connection.close()


@pytest.mark.parametrize("answer", [None, b"HTTP/1.1 400 Bad Request\r\n\r\n"])
def test_a_port_taken_by_another_program_is_no_ray(
    answer: bytes | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ray itself tries for minutes, writes pages, and ends the process."""
    from orchestrator.executors import ray_executor

    monkeypatch.setattr("orchestrator.executors.answer.CONNECT_S", 0.5)
    monkeypatch.setattr(
        "orchestrator.commands.run._executor",
        lambda name, address: ray_executor.RayExecutor(address=address),
    )
    with taken_port(answer) as port:
        done = command("run", "--address", f"127.0.0.1:{port}")
    assert_refused(
        done, f"no Ray at '127.0.0.1:{port}'", "taken by a program that is not Ray", "--address"
    )


def test_a_port_taken_before_the_ranks_meet_there_is_tried_again() -> None:
    """The port is chosen before it is bound; a restart of the gang chooses another."""
    import torch.distributed as dist

    from jobs.failures import failure_of
    from jobs.spec import DataSpec, JobSpec, SourceSpec
    from orchestrator.remedy import Action, remedy

    with taken_port(None) as port, pytest.raises(RuntimeError) as raised:
        dist.TCPStore("127.0.0.1", port, 2, is_master=True)
    failure = failure_of(raised.value)
    source = SourceSpec(style="short", size=8)
    spec = JobSpec(data=DataSpec(sources={"a": source}, validation=source))
    assert f"port: {port}" in failure.reason
    assert "\n" not in failure.reason
    chosen = remedy(failure, job=spec, workers=2, restarts=0, limit=2)
    assert chosen.action is Action.RESTART
