"""`mirsweep score` and `compare` on a tiny model folder, from arguments to files."""

import io
import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import typer
from score_models import save_llava, save_pairs
from typer.testing import CliRunner

from mir.errors import DataError, MirError, ProtocolError
from mir.report import LayerReport, MirReport, Protocol
from orchestrator.commands.compare import compare
from orchestrator.commands.score import _Bar, score
from orchestrator.scoring.inputs import choose_pairs
from orchestrator.scoring.run import Request, score_pairs
from orchestrator.scoring.stored import Score, read_score, write_score

PAIRS = 6


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """(model folder, images, texts)"""
    folder = tmp_path_factory.mktemp("score")
    return (save_llava(folder / "llava"), *save_pairs(folder, PAIRS + 1))


def run(function, *arguments):
    app = typer.Typer()
    app.command()(function)
    result = CliRunner().invoke(app, [str(argument) for argument in arguments])
    if result.exception and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result


def scored(world, folder, *more):
    model, images, texts = world
    path = folder / "score.json"
    result = run(
        score, model, "--images", images, "--texts", texts, "--pairs", PAIRS, "--json", path,
        "--device", "cpu", *more,
    )  # fmt: skip
    assert result.exit_code == 0, result.output
    return read_score(path).report, result.output


def test_a_local_model_is_scored_printed_and_written(world, tmp_path):
    report, output = scored(world, tmp_path, "--plot", tmp_path / "score.png")
    assert f"MIR {report.mir:.2f} ± {report.standard_error:.2f} (exact, 6 pairs" in output
    assert report.fingerprint in output
    assert report.protocol.template == "chat"
    assert [layer.layer for layer in report.layers] == [1, 2]
    assert report.layers[0].vision_tokens == PAIRS * 16
    # 4 + k % 5 words each, and `assistant:`.
    assert report.layers[0].text_tokens == sum(4 + k % 5 + 1 for k in range(PAIRS))
    assert (tmp_path / "score.png").read_bytes()[:4] == b"\x89PNG"


def test_batches_memory_and_repetition_do_not_change_the_score(world, tmp_path):
    first, _ = scored(world, tmp_path)
    for more in (
        ("--batch-size", "1"),
        ("--batch-size", "4", "--memory", "passes"),
        ("--memory", "host"),
        (),
    ):
        again, _ = scored(world, tmp_path, *more)
        assert again.fingerprint == first.fingerprint
        assert again.mir == pytest.approx(first.mir, abs=1e-5)
        assert again.standard_error == pytest.approx(first.standard_error, rel=1e-3)


def test_text_tokens_can_be_limited(world, tmp_path):
    full, _ = scored(world, tmp_path)
    limited, _ = scored(world, tmp_path, "--max-text-tokens", "3")
    assert limited.layers[0].text_tokens == PAIRS * 3
    assert limited.fingerprint != full.fingerprint


def test_without_a_chat_template_the_plain_one_is_used_and_named(world, tmp_path):
    _, images, texts = world
    model = save_llava(tmp_path / "plain", chat=False)
    report, output = scored((model, images, texts), tmp_path)
    assert report.protocol.template == "plain"
    assert "template plain" in output
    assert report.layers[0].text_tokens == sum(4 + k % 5 for k in range(PAIRS))


def test_two_ranks_give_the_score_of_one(world, tmp_path):
    model, images, texts = world
    one, _ = scored(world, tmp_path, "--batch-size", "2")
    script = (
        "from orchestrator.commands.score import score; import typer; "
        "app = typer.Typer(); app.command()(score); app()"
    )
    path = tmp_path / "two.json"
    run_two = [
        sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2",
        "--no-python", sys.executable, "-c", script, str(model), "--images", str(images),
        "--texts", str(texts), "--pairs", str(PAIRS), "--batch-size", "2", "--device", "cpu",
        "--json", str(path),
    ]  # fmt: skip
    done = subprocess.run(run_two, capture_output=True, text=True, cwd=Path(__file__).parents[2])
    assert done.returncode == 0, done.stderr
    two = read_score(path).report
    assert two.fingerprint == one.fingerprint
    # The model runs in float32 and the batches are different ones.
    assert two.mir == pytest.approx(one.mir, abs=1e-5)


def test_pairs_are_taken_in_sorted_order_from_folders_and_as_listed(tmp_path):
    images, texts = save_pairs(tmp_path, 4)
    from_folders = choose_pairs(images, texts, 3)
    assert [path.name for path in from_folders.images] == ["00.png", "01.png", "02.png"]
    (tmp_path / "images.txt").write_text("images/00.png\nimages/01.png\n\nimages/02.png\n")
    words = [(texts / f"0{k}.txt").read_text() for k in range(3)]
    (tmp_path / "texts.txt").write_text("\n".join(words))
    listed = choose_pairs(tmp_path / "images.txt", tmp_path / "texts.txt", 3)
    assert listed.digest == from_folders.digest
    (tmp_path / "texts.txt").write_text("\n".join(words[::-1]))
    turned = choose_pairs(tmp_path / "images.txt", tmp_path / "texts.txt", 3)
    assert turned.digest != listed.digest


def test_too_few_or_missing_files_are_named(tmp_path):
    images, texts = save_pairs(tmp_path, 4)
    with pytest.raises(DataError, match=r"--images: .* holds 4 pictures, 9 .*--pairs 4"):
        choose_pairs(images, texts, 9)
    (texts / "00.txt").write_text("  ")
    with pytest.raises(DataError, match=r"--texts: .* holds 3 texts, 4"):
        choose_pairs(images, texts, 4)
    with pytest.raises(DataError, match="nowhere does not exist"):
        choose_pairs(tmp_path / "nowhere", texts, 2)
    (tmp_path / "list.txt").write_text("images/00.png\nimages/lost.png")
    with pytest.raises(DataError, match=r"list\.txt lists .*lost\.png, which does not exist"):
        choose_pairs(tmp_path / "list.txt", texts, 2)


def test_a_broken_picture_is_named(world, tmp_path):
    model, images, texts = world
    broken = shutil.copytree(images, tmp_path / "broken")
    (broken / "02.png").write_bytes(b"no picture")
    with pytest.raises(DataError, match=r"02\.png: not a picture"):
        scored((model, broken, texts), tmp_path)


def test_a_text_with_the_image_marker_is_refused(world, tmp_path):
    model, images, texts = world
    marked = shutil.copytree(texts, tmp_path / "marked")
    (marked / "01.txt").write_text("the <image> is red")
    with pytest.raises(DataError, match="text 2 contains '<image>'"):
        scored((model, images, marked), tmp_path)


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (("--variant", "fast"), "'fast' is not one of"),
        (("--memory", "disk"), "'disk' is not one of"),
        (("--pairs", "1"), "2"),
    ],
)
def test_wrong_options_are_refused(world, more, message):
    model, images, texts = world
    result = run(score, model, "--images", images, "--texts", texts, *more)
    assert result.exit_code == 2
    assert message in " ".join(result.output.replace("│", " ").split())


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (("--batch-size", "none"), "--batch-size: 'none'"),
        (("--dtype", "int8"), "--dtype: 'int8' is unknown"),
        (("--device", "tpu9"), "--device: 'tpu9' is no device"),
        (("--plot", "picture.gif"), "--plot: picture.gif must end in .png"),
        (("--json", "nowhere/score.json"), "there is no folder nowhere"),
    ],
)
def test_wrong_values_are_named(world, more, message):
    model, images, texts = world
    with pytest.raises(ValueError, match=message):
        run(score, model, "--images", images, "--texts", texts, "--pairs", PAIRS, *more)


def test_a_folder_that_is_no_model_says_what_to_give(world, tmp_path):
    _, images, texts = world
    with pytest.raises(DataError, match=r"cannot be loaded as the config .*the folder must hold"):
        scored((tmp_path, images, texts), tmp_path)
    with pytest.raises(DataError, match="there is no such folder"):
        scored((tmp_path / "nowhere", images, texts), tmp_path)


def test_the_bar_shows_each_stage_on_a_terminal_and_nothing_elsewhere(monkeypatch):
    import rich.console

    shown = {}
    for terminal in (True, False):
        file = io.StringIO()
        console = rich.console.Console(file=file, force_terminal=terminal, width=80)
        monkeypatch.setattr(rich.console, "Console", lambda console=console, **_: console)
        with _Bar() as bar:
            bar.show("reading pictures", 1, 4)
            bar.show("scoring", 2, 4)
        shown[terminal] = file.getvalue()
    assert "reading pictures" in shown[True]
    assert "50%" in shown[True]
    assert shown[False] == ""


def test_every_stage_is_told_from_its_first_to_its_last(world):
    model, images, texts = world
    told = []
    request = Request(
        model=str(model), variant="exact", device="cpu", dtype="auto", batch_size="4",
        max_text_tokens=None, memory="passes",
    )  # fmt: skip
    score_pairs(request, choose_pairs(images, texts, PAIRS), lambda *what: told.append(what))
    stages = list(dict.fromkeys(what for what, _, _ in told))
    assert stages == ["reading pictures", "loading the model", "preparing pairs", "scoring"]
    for stage in stages:
        done = [(done, total) for what, done, total in told if what == stage]
        assert done[-1][0] == done[-1][1]
        assert done == sorted(done)
    # Two batches, two groups of layers.
    assert told[-1] == ("scoring", 4, 4)


def test_a_model_without_pictures_is_refused(world, tmp_path):
    import transformers as tf

    _, images, texts = world
    model = shutil.copytree(world[0], tmp_path / "text-only")
    tiny = tf.LlamaConfig(
        vocab_size=32,
        hidden_size=8,
        intermediate_size=8,
        num_hidden_layers=1,
        num_attention_heads=2,
    )
    tf.LlamaForCausalLM(tiny).save_pretrained(model)
    with pytest.raises((DataError, MirError), match=r"cannot be (loaded|scored)"):
        scored((model, images, texts), tmp_path)


def report(mir, distances, **protocol):
    layers = tuple(
        LayerReport(
            layer=k,
            distance=distance,
            share=distance / sum(distances),
            text_scale=1.0,
            vision_tokens=9,
            text_tokens=9,
            vision_outliers=0,
            text_outliers=0,
        )
        for k, distance in enumerate(distances, start=1)
    )
    numbers = tuple(range(1, len(layers) + 1))
    named = Protocol(**{"variant": "exact", "pairs": 9, "layers": numbers, **protocol})
    return MirReport(mir=mir, standard_error=0.05, protocol=named, layers=layers)


@pytest.fixture
def two(tmp_path):
    first, second = tmp_path / "before.json", tmp_path / "after.json"
    write_score(Score(model="m", report=report(2.0, [60.0, 40.0])), first)
    write_score(Score(model="m", report=report(1.7, [30.0, 20.5])), second)
    return first, second


def test_compare_shows_each_layer_and_the_difference(two, tmp_path):
    result = run(compare, *two, "--plot", tmp_path / "both.png")
    assert result.exit_code == 0
    assert "after: m: MIR 1.70 ± 0.05 (-0.300)" in result.output
    rows = [line.split() for line in result.output.splitlines()]
    assert ["1", "60", "30", "-30"] in rows
    assert ["2", "40", "20.5", "-19.5"] in rows
    assert (tmp_path / "both.png").stat().st_size > 1000


def test_compare_refuses_other_protocols_unless_told(two, tmp_path):
    other = tmp_path / "other.json"
    write_score(Score(model="m", report=report(3.0, [9.0], variant="paper-fast")), other)
    with pytest.raises(ProtocolError, match=r"'exact' against 'paper-fast'.*--across-protocols"):
        run(compare, two[0], other)
    picture = tmp_path / "both.svg"
    result = run(compare, two[0], other, "--across-protocols", "--plot", picture)
    assert result.exit_code == 0
    assert "warning: before.json and other.json do not compare" in result.output
    assert "do not compare" in picture.read_text()


def test_compare_needs_two_and_names_a_file_that_is_no_score(two, tmp_path):
    assert run(compare, two[0]).exit_code == 2
    odd = tmp_path / "odd.json"
    odd.write_text(json.dumps({"model": "m"}))
    with pytest.raises(DataError, match=r"odd\.json: not a score"):
        run(compare, two[0], odd)
    with pytest.raises(DataError, match=r"gone\.json: does not exist"):
        run(compare, two[0], tmp_path / "gone.json")
