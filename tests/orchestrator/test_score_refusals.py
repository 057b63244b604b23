"""What `mirsweep score` refuses: one line, a remedy, exit code 2, and nothing half-written."""

import json
import os
import shutil

import pytest
import torch
import transformers as tf
from PIL import Image
from safetensors.torch import load_file, save_file
from score_models import save_llava, save_pairs
from typer.testing import CliRunner

from orchestrator.cli import app
from orchestrator.scoring import run as scoring_run
from orchestrator.scoring.inputs import choose_pairs
from orchestrator.scoring.stored import check_writable

PAIRS = 3


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    folder = tmp_path_factory.mktemp("refused")
    return (save_llava(folder / "llava"), *save_pairs(folder, PAIRS))


def call(model, images, texts, *more):
    """(exit code, one line of error)"""
    arguments = ["score", model, "--images", images, "--texts", texts, "--pairs", PAIRS, *more]
    result = CliRunner().invoke(app, [str(part) for part in arguments])
    return result.exit_code, result.output


def assert_refused(words, model, images, texts, *more):
    code, output = call(model, images, texts, *more)
    assert code == 2, output
    assert output.startswith("error: ")
    assert len(output.splitlines()) == 1
    for word in words:
        assert word in output


def test_places_without_pictures_or_texts(world, tmp_path):
    model, images, texts = world
    (tmp_path / "empty").mkdir()
    assert_refused(["nowhere does not exist", "give a folder"], model, "nowhere", texts)
    assert_refused(["holds 0 pictures", "add some (.bmp"], model, tmp_path / "empty", texts)
    assert_refused(["holds 0 texts", "add some (.story, .txt"], model, images, tmp_path / "empty")
    assert_refused(["holds 3 pictures, 9", "--pairs 3"], model, images, texts, "--pairs", "9")


def test_pictures_and_texts_that_cannot_be_read(world, tmp_path):
    model, images, texts = world
    broken = shutil.copytree(images, tmp_path / "broken")
    whole = (broken / "01.png").read_bytes()
    (broken / "01.png").write_bytes(whole[: len(whole) // 2])
    assert_refused(["01.png: not a picture that can be read", "replace"], model, broken, texts)
    latin = tmp_path / "latin.txt"
    latin.write_bytes("café\nb\nc\n".encode("latin-1"))
    assert_refused(["latin.txt is not UTF-8 text", "save texts as UTF-8"], model, images, latin)
    special = tmp_path / "special.txt"
    special.write_text("one\ntwo <pad> two\nthree")
    assert_refused(["text 2 contains '<pad>'", "remove it"], model, images, special)


def test_a_decompression_bomb_is_named_and_not_opened(world, tmp_path, monkeypatch):
    model, images, texts = world
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    assert_refused(["00.png: not a picture", "decompression bomb"], model, images, texts)


def test_models_that_are_none(world, tmp_path):
    _, images, texts = world
    assert_refused(["there is no such folder"], tmp_path / "lost", images, texts)
    assert_refused(["cannot be loaded", "hf download"], "nobody/no-such-model", images, texts)
    (tmp_path / "bare").mkdir()
    assert_refused(["cannot be loaded", "the folder must hold"], tmp_path / "bare", images, texts)


def test_a_folder_without_all_weights_is_not_scored_with_random_ones(world, tmp_path):
    model, images, texts = world
    partial = shutil.copytree(model, tmp_path / "partial")
    weights = load_file(partial / "model.safetensors")
    gone = next(name for name in weights if "multi_modal_projector" in name)
    del weights[gone]
    save_file(weights, partial / "model.safetensors", {"format": "pt"})
    assert_refused(["weights are not in its files", "would be random"], partial, images, texts)


def test_a_cross_attention_model_says_why(world, tmp_path):
    model, images, texts = world
    mllama = shutil.copytree(model, tmp_path / "mllama")
    vision = {
        "hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 2, "attention_heads": 2,
        "num_global_layers": 1, "image_size": 16, "patch_size": 4,
        "intermediate_layers_indices": [0],
    }  # fmt: skip
    text = {
        "vocab_size": 32, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 3,
        "num_attention_heads": 4, "num_key_value_heads": 2, "cross_attention_layers": [1],
        "pad_token_id": 0, "rope_parameters": {"rope_type": "default", "rope_theta": 1e4},
    }  # fmt: skip
    config = tf.MllamaConfig(vision_config=vision, text_config=text, image_token_index=2)
    tf.MllamaForConditionalGeneration(config).save_pretrained(mllama)
    assert_refused(["cannot be scored", "cross-attention (layers.1"], mllama, images, texts)


def test_files_that_cannot_be_written(world, tmp_path, monkeypatch):
    model, images, texts = world
    assert_refused(
        ["--json", "make it first"], model, images, texts, "--json", tmp_path / "no" / "a.json"
    )
    assert_refused(["--json", "is a folder"], model, images, texts, "--json", tmp_path)
    assert_refused(
        ["--plot", "must end in .png"], model, images, texts, "--plot", tmp_path / "a.gif"
    )
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    with pytest.raises(ValueError, match="may not be written to"):
        check_writable("--json", tmp_path / "a.json")


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 9 GiB"),
        RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes"),
        MemoryError(),
    ],
)
def test_out_of_memory_names_what_to_make_smaller(world, monkeypatch, tmp_path, error):
    def full(*_, **__):
        raise error

    monkeypatch.setattr(scoring_run, "score_model", full)
    json_file = tmp_path / "score.json"
    assert_refused(
        ["out of memory", "--batch-size", "--memory passes"], *world, "--json", json_file
    )
    assert list(tmp_path.iterdir()) == []


def test_another_error_is_not_taken_for_memory(world, monkeypatch):
    def odd(*_, **__):
        raise RuntimeError("a shape is wrong")

    monkeypatch.setattr(scoring_run, "score_model", odd)
    code, output = call(*world)
    assert code == 70
    assert "a shape is wrong" in output


def test_remote_code_runs_only_when_trusted(world, tmp_path, monkeypatch):
    model, images, texts = world
    own = shutil.copytree(model, tmp_path / "own")
    monkeypatch.setattr(
        "transformers.dynamic_module_utils.HF_MODULES_CACHE", str(tmp_path / "modules")
    )
    ran = tmp_path / "ran"
    (own / "own_llava.py").write_text(
        "from pathlib import Path\n"
        "from transformers import LlavaConfig, LlavaForConditionalGeneration\n"
        f"Path({str(ran)!r}).touch()\n"
        "class OwnConfig(LlavaConfig):\n"
        "    model_type = 'own-llava'\n"
        "class OwnModel(LlavaForConditionalGeneration):\n"
        "    config_class = OwnConfig\n"
    )
    config = json.loads((own / "config.json").read_text())
    config["model_type"] = "own-llava"
    config["auto_map"] = {
        "AutoConfig": "own_llava.OwnConfig",
        "AutoModelForImageTextToText": "own_llava.OwnModel",
    }
    (own / "config.json").write_text(json.dumps(config))
    assert_refused(["add --trust-remote-code only if you trust it"], own, images, texts)
    assert not ran.exists()
    code, output = call(own, images, texts, "--trust-remote-code")
    assert code == 0, output
    assert ran.exists()
    plain = call(model, images, texts)[1]
    assert output.splitlines()[0] == plain.splitlines()[0]


def test_a_template_that_the_model_cannot_follow(world, tmp_path):
    model, images, texts = world
    no_chat = save_llava(tmp_path / "no-chat", chat=False)
    assert_refused(
        ["--template answer", "use plain"], no_chat, images, texts, "--template", "answer"
    )
    turned = shutil.copytree(model, tmp_path / "turned")
    (turned / "chat_template.jinja").write_text(
        "{% for m in messages %}{% for part in m['content'] if part['type'] == 'text' %}"
        "{{ part['text'] }}{% endfor %}<image>{% endfor %} assistant:"
    )
    assert_refused(["puts the text before the picture", "use plain"], turned, images, texts)
    (turned / "chat_template.jinja").write_text("<image> hello")
    assert_refused(["leaves out the text"], turned, images, texts)


def test_lists_and_folders_in_all_their_forms(tmp_path):
    images, texts = save_pairs(tmp_path, PAIRS)
    plain = choose_pairs(images, texts, PAIRS)
    # What macOS leaves on foreign disks, and a list that Windows has saved.
    (images / "._00.png").write_bytes(b"no picture")
    (tmp_path / "images.txt").write_bytes(
        "\ufeff".encode() + b"\r\n".join(b"images/%02d.png" % k for k in range(PAIRS))
    )
    listed = choose_pairs(tmp_path / "images.txt", texts, PAIRS)
    assert listed.digest == choose_pairs(images, texts, PAIRS).digest == plain.digest
    # A line separator inside a text is no new text.
    (tmp_path / "texts.txt").write_text("one\u2028still one\n\n two \nthree\n", encoding="utf-8")
    assert choose_pairs(images, tmp_path / "texts.txt", PAIRS).texts == (
        "one\u2028still one",
        "two",
        "three",
    )


def test_a_story_ends_at_its_first_highlight(tmp_path):
    images, _ = save_pairs(tmp_path, PAIRS)
    stories = tmp_path / "stories"
    stories.mkdir()
    for k in range(PAIRS):
        (stories / f"{k}.story").write_text(f"story {k}\n\n@highlight\n\nsaid shortly")
    chosen = choose_pairs(images, stories, PAIRS)
    assert chosen.texts == tuple(f"story {k}" for k in range(PAIRS))


def test_weights_that_are_cut_off_are_named(world, tmp_path):
    model, images, texts = world
    for part in (2, 10_000_000):
        broken = shutil.copytree(model, tmp_path / f"broken-{part}")
        weights = broken / "model.safetensors"
        weights.write_bytes(weights.read_bytes()[: weights.stat().st_size // part])
        assert_refused(
            [f"{weights}: the weights are damaged", "copy or download"], broken, images, texts
        )


def test_a_model_of_text_alone_says_what_it_lacks(world, tmp_path):
    model, images, texts = world
    alone = shutil.copytree(model, tmp_path / "alone")
    tiny = {"vocab_size": 32, "hidden_size": 8, "intermediate_size": 8, "num_hidden_layers": 1}
    tf.LlamaForCausalLM(tf.LlamaConfig(num_attention_heads=2, **tiny)).save_pretrained(alone)
    assert_refused(["Llama is a kind of model that does not read pictures"], alone, images, texts)


def test_a_folder_of_another_kind_says_what_to_give_instead(world, tmp_path):
    _, images, texts = world
    (tmp_path / "empty").mkdir()
    assert_refused(["there is no config.json in it"], tmp_path / "empty", images, texts)
    trial = tmp_path / "study" / "trials" / "0003"
    (trial / "checkpoints").mkdir(parents=True)
    assert_refused([f"is a study; give one of its trials, such as {trial}"],
                   tmp_path / "study", images, texts)  # fmt: skip


def test_a_limit_of_memory_that_does_not_suffice_says_how_much_would(world):
    model, images, texts = world
    assert_refused(
        ["--memory 1MiB: not enough memory", "0.13 GiB to finish a layer", "or allow more"],
        model, images, texts, "--memory", "1MiB",
    )  # fmt: skip
    code, output = call(model, images, texts, "--memory", "200MB")
    assert code == 0, output
    assert output.startswith("MIR ")
