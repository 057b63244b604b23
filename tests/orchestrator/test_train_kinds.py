"""`mirsweep train` with a job file of any kind: what it runs, and mistakes in one line."""

from __future__ import annotations

from pathlib import Path

import pytest
from small_world import score
from typer.testing import CliRunner, Result

from jobs.events import Evaluated, Finished, Started
from jobs.spec.downstream import AnyJob, EvaluateSpec, FinetuneSpec
from orchestrator.cli import app
from orchestrator.executors.scores import SCORES, read_scores
from sweeps.recipe import load_any_job

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")

FINETUNE = """
kind: finetune
start: pre
trainable: {language_until: 2}
data:
  sources: {q: {kind: questions, size: 8}}
  validation: {kind: questions, split: validation, size: 8}
"""
EVALUATE = """
kind: evaluate
start: pre
questions: {kind: questions, split: validation, size: 8}
"""


def train(tmp_path: Path, text: str) -> Result:
    path = tmp_path / "job.yaml"
    path.write_text(text)
    folder = tmp_path / "out"
    return CliRunner().invoke(app, ["train", str(path), "--folder", str(folder)])


@pytest.fixture
def ran(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[AnyJob]:
    """The jobs that were run; a folder `pre` to start from lies beside the file."""
    (tmp_path / "pre").mkdir()
    specs: list[AnyJob] = []

    def run_local(spec, workers, folder, tell, *, device):
        specs.append(spec)
        learns = {} if isinstance(spec, EvaluateSpec) else {"projector": 7}
        tell(Started(ranks=1, device=device, trainable=learns))
        values = {"exact-match@0": 0.4375, "answer-loss@0": 0.57}
        tell(Evaluated(samples=8, values=values, errors={"exact-match@0": 0.031}, seconds=3.0))
        last = Finished(samples=8, seconds=3.0)
        tell(last)
        return last

    monkeypatch.setattr("jobs.launch.run_local", run_local)
    return specs


def test_a_finetune_starts_where_its_file_says(tmp_path, ran) -> None:
    result = train(tmp_path, FINETUNE)
    assert result.exit_code == 0, result.output
    (spec,) = ran
    assert isinstance(spec, FinetuneSpec)
    assert spec.start == str(tmp_path / "pre")  # relative to the file, not to where one stands
    assert f"checkpoints: {tmp_path / 'out'}" in result.output


def test_an_evaluation_says_what_it_found_and_leaves_no_checkpoint(tmp_path, ran) -> None:
    result = train(tmp_path, EVALUATE)
    assert result.exit_code == 0, result.output
    assert isinstance(ran[0], EvaluateSpec)
    assert "evaluated in 3 s: exact-match@0 0.44 ± 0.03, answer-loss@0 0.57" in result.output
    assert "checkpoints:" not in result.output


def test_an_evaluation_leaves_the_scores_of_the_job_whose_folder_it_is_given(tmp_path, ran) -> None:
    kept = tmp_path / "out" / SCORES
    kept.parent.mkdir()
    kept.write_text(score(8, 3.0).model_dump_json() + "\n")
    result = train(tmp_path, EVALUATE)
    assert result.exit_code == 0, result.output
    assert [scored.samples for scored in read_scores(kept)] == [8]


def test_a_file_without_a_kind_pre_trains(tmp_path) -> None:
    text = FINETUNE.split("data:")[1]
    (tmp_path / "job.yaml").write_text(f"data:{text}")
    assert load_any_job(tmp_path / "job.yaml").start is None


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (FINETUNE.replace("finetune", "finetoon"), "kind: 'finetoon' is refused. Known: finetune"),
        (FINETUNE.replace("start: pre", "start: gone"), "gone does not exist. Name a checkpoint"),
        (FINETUNE.replace("start: pre\n", ""), "start"),
        (EVALUATE + "shots: [0, 2]\n", "shots above 0 need examples"),
        (EVALUATE + "question_cout: 5\n", "Did you mean 'question_count'?"),
        (EVALUATE.replace("size: 8", "style: short"), "questions.style"),
        (FINETUNE.replace("{q: {kind: questions", "{q: {kind: vqa"), "sources.q"),
        (FINETUNE.replace("language_until: 2", "language_til: 2"), "trainable"),
    ],
)
def test_mistakes_are_one_line(tmp_path, ran, text, message) -> None:
    result = train(tmp_path, text)
    assert result.exit_code == 2 and not ran
    assert message in " ".join(result.output.split())
    assert result.output.count("error:") == 1
