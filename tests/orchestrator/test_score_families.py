"""`mirsweep score` with the real processors of the families, against a naive loop over pairs."""

import pytest
import torch
import transformers as tf
import typer
from score_families import FAMILIES, save_family
from score_models import save_pairs
from typer.testing import CliRunner

from mir.score import score_layers
from orchestrator.commands.score import score
from orchestrator.scoring.inputs import choose_pairs
from orchestrator.scoring.processor import load_processor
from orchestrator.scoring.stored import read_score

PAIRS = 4


@pytest.fixture(scope="module", autouse=True)
def num2words():
    """SmolVLM's processor asks for this package, which only spells out numbers of video frames."""
    import transformers.models.smolvlm.processing_smolvlm as smolvlm

    smolvlm.num2words, before = str, smolvlm.num2words
    yield
    smolvlm.num2words = before


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    return save_pairs(tmp_path_factory.mktemp("pairs"), PAIRS)


@pytest.fixture(scope="module", params=FAMILIES)
def family(request, tmp_path_factory):
    """(name, its folder)"""
    return request.param, save_family(request.param, tmp_path_factory.mktemp("family"))


def scored(folder, files, target, *more):
    app = typer.Typer()
    app.command()(score)
    arguments = [
        folder, "--images", files[0], "--texts", files[1], "--pairs", PAIRS, "--device", "cpu",
        "--json", target / "score.json", *more,
    ]  # fmt: skip
    result = CliRunner().invoke(app, [str(part) for part in arguments], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return read_score(target / "score.json").report


def naive(name, folder, files, answer=False):
    """One pair at a time, without padding, from transformers' own hidden states."""
    family, pairs = FAMILIES[name], choose_pairs(*files, PAIRS)
    model = tf.AutoModelForImageTextToText.from_pretrained(folder).eval()
    processor = load_processor(str(folder), model.config, trust=False)
    image, *marks = processor.tokenizer.convert_tokens_to_ids([family.image, *family.marks])
    layers, of_pair = None, ([], [])
    for number, text in enumerate(pairs.texts):
        picture = {"type": "image", "image": pairs.picture(number)}
        words = {"type": "text", "text": text}
        talk = [{"role": "user", "content": [picture] if answer else [picture, words]}]
        talk += [{"role": "assistant", "content": [words]}] if answer else []
        inputs = processor.apply_chat_template(
            [talk],
            add_generation_prompt=not answer,
            tokenize=True,
            return_dict=True,
            return_tensors="pt",
        )
        ids = inputs["input_ids"][0]
        after = torch.arange(len(ids)) > int((ids == image).nonzero().max())
        vision, tail = ids == image, after & ~torch.isin(ids, torch.tensor(marks))
        with torch.no_grad():
            states = model(**inputs, output_hidden_states=True).hidden_states[1:]
        layers = layers or [([], []) for _ in states]
        for (seen, read), hidden_BTD in zip(layers, states, strict=True):
            seen.append(hidden_BTD[0, vision])
            read.append(hidden_BTD[0, tail])
        for side, mask in zip(of_pair, (vision, tail), strict=True):
            side.append(torch.full((int(mask.sum()),), number))
    return score_layers(
        [(torch.cat(seen), torch.cat(read)) for seen, read in layers],
        pairs=(torch.cat(of_pair[0]), torch.cat(of_pair[1])),
    )


def batch_size(name):
    """Rounding of another batch can send a token to other experts: that is no error of the probe,
    whose padded batches are held against single sequences in float64 by tests/mir."""
    return "1" if name.endswith("moe") else "3"


def same(report, expected):
    assert report.mir == pytest.approx(expected.mir, abs=2e-5)
    assert report.per_layer == pytest.approx(expected.per_layer, rel=1e-4)
    # Hardly more tokens than dimensions: the derivative magnifies the rounding of the batches.
    assert report.standard_error == pytest.approx(expected.standard_error, rel=2e-2)
    counted = [(layer.vision_tokens, layer.text_tokens) for layer in report.layers]
    assert counted == [(layer.vision_tokens, layer.text_tokens) for layer in expected.layers]


def test_a_family_with_its_processor_scores_as_the_naive_loop(family, files, tmp_path):
    name, folder = family
    report = scored(folder, files, tmp_path, "--batch-size", batch_size(name))
    assert report.protocol.template == "chat"
    assert report.layers[0].vision_tokens == FAMILIES[name].vision
    same(report, naive(name, folder, files))


def test_a_text_limit_counts_from_the_end_of_the_image_block(family, files, tmp_path):
    name, folder = family
    report = scored(folder, files, tmp_path, "--max-text-tokens", "5")
    assert report.layers[0].vision_tokens == FAMILIES[name].vision
    assert report.layers[0].text_tokens == PAIRS * 5


def test_the_paper_puts_the_text_into_the_answer(family, files, tmp_path):
    name, folder = family
    more = ("--template", "answer", "--batch-size", batch_size(name))
    report = scored(folder, files, tmp_path, *more)
    assert report.protocol.template == "answer"
    same(report, naive(name, folder, files, answer=True))


def test_plain_counts_the_words_of_the_text_and_nothing_else(family, files, tmp_path):
    name, folder = family
    report = scored(folder, files, tmp_path, "--template", "plain")
    words = tf.AutoTokenizer.from_pretrained(folder)
    texts = choose_pairs(*files, PAIRS).texts
    # Gemma's processor puts two line breaks after each picture.
    between = len(words("\n\n", add_special_tokens=False)["input_ids"]) if name == "gemma3" else 0
    counted = sum(len(words(text, add_special_tokens=False)["input_ids"]) for text in texts)
    assert report.protocol.template == "plain"
    assert report.layers[0].vision_tokens == FAMILIES[name].vision
    assert report.layers[0].text_tokens == counted + PAIRS * between
