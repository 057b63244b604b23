"""Scoring our own checkpoints, MoCa included, against a naive loop over full hidden states."""

from dataclasses import replace

import pytest
import torch
import typer
from score_models import save_pairs
from typer.testing import CliRunner

from jobs.checkpoint import Progress, save
from jobs.data.build import open_source, open_texts
from jobs.data.stream import permuted
from jobs.evaluation import _ORDER
from jobs.events import Checkpointed, Scored
from jobs.load import load_checkpoint
from jobs.model.build import build_model
from jobs.place import Place
from jobs.run import run_job
from jobs.spec import JobSpec
from mir.report import MirReport
from mir.score import score_layers
from orchestrator.commands.score import score
from orchestrator.scoring.inputs import EvaluationPairs, choose_pairs
from orchestrator.scoring.run import Request, score_pairs
from orchestrator.scoring.stored import read_score

PAIRS = 5


def job(moca: bool, **model: object) -> JobSpec:
    return JobSpec.model_validate(
        {
            "model": {"moca": {"init_std": 0.3} if moca else None, **model},
            "data": {
                "sources": {"scenes": {"style": "detailed", "size": 8}},
                "validation": {"style": "detailed", "split": "validation", "size": 8},
            },
        }
    )


FEWER = {"projector": "pixel-shuffle", "projector_norm": True}  # fewer tokens than patches


@pytest.fixture(params=[(False, {}), (True, {}), (False, FEWER)], ids=["plain", "moca", "shuffle"])
def checkpoint(request, tmp_path):
    """A checkpoint of an untrained job."""
    moca, model = request.param
    spec = job(moca, **model)
    model = build_model(spec.model, seed=3).model
    trained = {f"weight/{n}": p.data for n, p in model.named_parameters() if p.requires_grad}
    progress = Progress(samples=8, step=1, scored=8, ranks=1)
    return save(tmp_path / "checkpoints", spec, progress, trained).path


def naive(checkpoint, pairs: EvaluationPairs) -> MirReport:
    """One pair at a time, unpadded, with all hidden states."""
    loaded = load_checkpoint(checkpoint)
    model, layers, of_pair = loaded.model, None, ([], [])
    for number, text in enumerate(pairs.texts):
        picture = loaded.image_processor(images=[pairs.picture(number)], return_tensors="pt")
        ids = torch.tensor([loaded.tokenizer(text, add_special_tokens=False)["input_ids"]])
        with torch.no_grad():
            tokens = model.sequence(
                model.encode(picture["pixel_values"]), ids, torch.ones_like(ids).bool()
            )
            with model.calibrated(tokens):
                out = model.language(inputs_embeds=tokens.embeds, output_hidden_states=True)
        states = out.hidden_states[1:]
        layers = layers or [([], []) for _ in states]
        for (vision, words), hidden_BSD in zip(layers, states, strict=True):
            vision.append(hidden_BSD[tokens.vision_mask])
            words.append(hidden_BSD[tokens.text_mask])
        for side, mask in zip(of_pair, (tokens.vision_mask, tokens.text_mask), strict=True):
            side.append(torch.full((int(mask.sum()),), number))
    joined = [(torch.cat(vision), torch.cat(words)) for vision, words in layers]
    return score_layers(joined, pairs=(torch.cat(of_pair[0]), torch.cat(of_pair[1])))


def test_a_checkpoint_scores_as_its_naive_states(checkpoint, tmp_path):
    images, texts = save_pairs(tmp_path / "pairs", PAIRS)
    pairs = choose_pairs(images, texts, PAIRS)
    request = Request(
        model=str(checkpoint),
        variant="exact",
        device="cpu",
        dtype="auto",
        batch_size="3",
        max_text_tokens=None,
        memory="auto",
        trust_remote_code=False,
    )
    told = []
    report, rank = score_pairs(request, pairs, lambda *what: told.append(what))
    expected = naive(checkpoint, pairs)
    assert rank == 0
    assert report.protocol.template == "plain"
    assert report.mir == pytest.approx(expected.mir, abs=1e-5)
    assert report.per_layer == pytest.approx(expected.per_layer, rel=1e-4)
    assert report.standard_error == pytest.approx(expected.standard_error, rel=1e-3)
    assert ("scoring", 2, 2) in told


def test_a_jobs_folder_stands_for_its_newest_checkpoint(checkpoint, tmp_path):
    folder = checkpoint.parent.parent
    assert (folder / "checkpoints").is_dir()
    images, texts = save_pairs(tmp_path / "pairs", PAIRS)
    app = typer.Typer()
    app.command()(score)
    found = []
    for model in (folder, checkpoint):
        out = tmp_path / f"{model.name}.json"
        words = [model, "--images", images, "--texts", texts, "--pairs", PAIRS, "--json", out]
        done = CliRunner().invoke(app, [str(word) for word in words])
        assert done.exit_code == 0, done.output
        found.append(read_score(out).report.mir)
    assert found[0] == found[1]


def logged(folder, report: MirReport, samples: int) -> None:
    """As an executor keeps it."""
    guard = {"validation_loss": 1.0, "wrong_loss": 2.0, "gap": 1.0, "gap_error": 0.1}
    event = {"samples": samples, "mir": report.to_json(), "guard": guard, "seconds": 1.0}
    with (folder / "scores.jsonl").open("a") as file:
        file.write(Scored.model_validate(event).model_dump_json() + "\n")


def test_what_the_job_logged_is_said_beside_and_why_it_differs(checkpoint, tmp_path):
    folder = checkpoint.parent.parent
    images, texts = save_pairs(tmp_path / "pairs", PAIRS)
    app = typer.Typer()
    app.command()(score)
    words = ["--images", images, "--texts", texts, "--pairs", PAIRS, "--json", tmp_path / "a.json"]

    def output(model):
        done = CliRunner().invoke(app, [str(word) for word in (model, *words)])
        assert done.exit_code == 0, done.output
        return done.output

    assert "its job logged" not in output(checkpoint)
    report = read_score(tmp_path / "a.json").report
    logged(folder, replace(report, mir=9.0), samples=4)  # of an earlier checkpoint
    assert "its job logged" not in output(checkpoint)
    other = replace(report.protocol, pairs=48, max_text_tokens=7)
    logged(folder, replace(report, mir=3.0, standard_error=0.2, protocol=other), samples=8)
    for model in (checkpoint, folder):
        line = next(line for line in output(model).splitlines() if "its job logged" in line)
        assert line.startswith("its job logged MIR 3.00 ± 0.20 at 8 samples; scores of different")
        assert "pairs 5 against 48; max_text_tokens None against 7 (here against there)" in line
    (folder / "scores.jsonl").unlink()
    logged(folder, report, samples=8)
    assert "at 8 samples, by the same protocol" in output(checkpoint)


def export_pairs(spec: JobSpec, folder):
    """The pictures and texts of a job's own score as files and lists, in the job's order."""
    pictures, texts = open_source(spec.data.validation, ""), open_texts(spec.score.texts)
    count = spec.score.pairs
    names = []
    for k in range(count):
        names.append(f"{k}.png")
        pictures[permuted(k, len(pictures), _ORDER)].image.save(folder / names[-1])
    (folder / "images.txt").write_text("\n".join(names))
    chosen = [texts[permuted(k, len(texts), _ORDER)] for k in range(count)]
    (folder / "texts.txt").write_text("\n".join(" ".join(text.split()) for text in chosen))
    assert all(text == " ".join(text.split()) for text in chosen)
    return folder / "images.txt", folder / "texts.txt"


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_the_command_repeats_the_score_that_the_job_logged(tmp_path):
    plain = job(moca=True).model_dump(mode="json")
    spec = JobSpec.model_validate(
        {
            "model": plain["model"],
            "data": {**plain["data"], "validation_samples": 4},
            "optim": {"learning_rate": 1e-2, "samples": 16, "global_batch": 8},
            "score": {"every_samples": 16, "pairs": 6, "max_text_tokens": 20, "batch_size": 4},
            "checkpoint": {"every_samples": 16},
        }
    )
    events = list(run_job(spec, Place(folder=tmp_path / "trial")))
    logged = [event.report for event in events if isinstance(event, Scored)]
    assert len(logged) == 2, events[-1]
    assert logged[0].mir != pytest.approx(logged[1].mir, abs=1e-3)
    saved = [event.path for event in events if isinstance(event, Checkpointed)]
    images, texts = export_pairs(spec, tmp_path)
    app = typer.Typer()
    app.command()(score)
    arguments = [
        saved[-1], "--images", images, "--texts", texts, "--pairs", 6, "--max-text-tokens", 20,
        "--batch-size", 4, "--device", "cpu", "--json", tmp_path / "score.json",
    ]  # fmt: skip
    CliRunner().invoke(app, [str(part) for part in arguments], catch_exceptions=False)
    repeated = read_score(tmp_path / "score.json").report
    assert repeated.mir == pytest.approx(logged[1].mir, rel=1e-6)
    assert repeated.per_layer == pytest.approx(logged[1].per_layer, rel=1e-5)
    assert repeated.standard_error == pytest.approx(logged[1].standard_error, rel=1e-3)
    assert repeated.protocol.template == logged[1].protocol.template
