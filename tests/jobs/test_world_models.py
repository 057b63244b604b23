"""The shipped pair is really pre-trained, small, and made by a deterministic script."""

import random

import pytest
import torch

from jobs.model.build import build_model
from jobs.spec import ModelSpec
from jobs.world.captions import caption_at
from jobs.world.corpus import Document, document_at, lesson_at, sentences, superposed
from jobs.world.evaluate import (
    encoded_patches,
    perplexity,
    probe_accuracy,
    raw_patches,
    unigram_perplexity,
)
from jobs.world.load import (
    ASSETS,
    load_image_processor,
    load_language,
    load_tokenizer,
    load_vision,
)
from jobs.world.pretrain import digest
from jobs.world.pretrain_language import (
    IGNORED,
    collate,
    cosine,
    embed,
    encode,
    loss_of,
    train_language,
)
from jobs.world.pretrain_vision import (
    NOTHING,
    build_image_processor,
    pixels_of,
    targets_of,
    train_vision,
)
from jobs.world.scenes import PATCHES, scene_at
from jobs.world.texts import embedded_texts, text_at
from jobs.world.vocabulary import build_tokenizer
from mir.errors import DataError
from mir.probe import LayerProbe
from mir.score import score_layers


@pytest.fixture(scope="module")
def language():
    return load_language()


@pytest.fixture(scope="module")
def tokenizer():
    return load_tokenizer()


@pytest.fixture(scope="module")
def vision():
    return load_vision()


def test_assets_are_small():
    assert sum(file.stat().st_size for file in ASSETS.rglob("*") if file.is_file()) < 5_000_000


def test_models_are_float32_and_in_evaluation_mode(language, vision):
    for model in (language, vision):
        assert not model.training
        assert {p.dtype for p in model.parameters()} == {torch.float32}
    assert vision.pooler is None


def test_language_model_beats_a_unigram_by_far(language, tokenizer):
    known = [text_at("train", index) for index in range(300)]
    held_out = list(embedded_texts(24))
    ours = perplexity(language, tokenizer, held_out)
    assert 1 < ours < unigram_perplexity(tokenizer, known, held_out) / 5


def test_unigram_perplexity_of_a_uniform_text(tokenizer):
    """Two kinds of token, equally often and often enough: a fair coin has perplexity 2."""
    text = ["red"] * 20_000  # each 'red' and the end of the text
    assert unigram_perplexity(tokenizer, text, ["red"]) == pytest.approx(2, rel=0.02)


def body_loss(language, tokenizer, context: int, body: int) -> float:
    """Loss of a scene's caption after sentences about a scene, nats a token."""
    about = caption_at("validation", context, "detailed")
    told = caption_at("validation", body, "detailed")
    item = encode(Document(groups=sentences(about), body=told), tokenizer)
    words, labels = collate([item], tokenizer.pad_token_id)
    labels[:, : 1 + len(about.split())] = IGNORED
    with torch.no_grad():
        return float(loss_of(language, words, labels, tokenizer.pad_token_id))


def test_language_model_uses_what_comes_before(language, tokenizer):
    right = sum(body_loss(language, tokenizer, index, index) for index in range(16))
    wrong = sum(body_loss(language, tokenizer, index + 1, index) for index in range(16))
    assert right < 0.7 * wrong


def mir_of(language, contexts, texts):
    """MIR of `contexts` [T, D] in the place of vision tokens, each before a text."""
    table = language.get_input_embeddings()
    start = table(torch.tensor([language.config.bos_token_id]))
    with torch.no_grad(), LayerProbe(language.model.layers, language.model.norm) as probe:
        for pair, (context, text) in enumerate(zip(contexts, texts, strict=True)):
            embeds = torch.cat([start, context, table(text)])[None]
            spots = torch.arange(embeds.shape[1])[None]
            vision = (spots >= 1) & (spots <= len(context))
            probe.positions(vision, spots > len(context), [pair])
            language.model(inputs_embeds=embeds, use_cache=False)
    return score_layers(probe.layers()).mir


def test_what_is_aligned_scores_better_than_what_is_not(language, tokenizer):
    """The world has room for MIR to fall: from an untrained projector to words to texts."""
    table = language.get_input_embeddings()

    def ids(text):
        return torch.tensor(tokenizer.encode(text, add_special_tokens=False))

    texts = embedded_texts(48)
    after = [ids(text) for text in texts[:24]]
    captions = [caption_at("validation", index, "detailed") for index in range(24)]
    built = build_model(ModelSpec(projector="pixel-shuffle"), seed=0)
    scenes = [scene_at("validation", index) for index in range(24)]
    with torch.no_grad():
        pictures = built.model.projector(
            built.model.encode(pixels_of(scenes, built.image_processor))
        )
    untrained = mir_of(language, pictures, after)
    described = mir_of(language, [table(ids(caption)) for caption in captions], after)
    text = mir_of(language, [table(ids(other)) for other in texts[24:]], after)
    assert text < described - 0.3 < untrained - 0.6


def test_encoder_probe_beats_raw_pixels(vision):
    processor = load_image_processor()
    probed = {}
    for name, of in {"encoder": lambda p: encoded_patches(vision, p), "raw": raw_patches}.items():
        parts = []
        for split, count in (("train", 200), ("validation", 60)):
            scenes = [scene_at(split, 2_000_000 + index) for index in range(count)]
            classes = targets_of(scenes)["shape"]
            covered = classes != NOTHING
            parts.append((of(pixels_of(scenes, processor))[covered], classes[covered]))
        probed[name] = probe_accuracy(*parts, classes=7)
    assert probed["encoder"] > probed["raw"] + 0.1, probed


def test_image_processor_scales_to_minus_one_and_one(vision):
    pixels = pixels_of([scene_at("train", 0)], load_image_processor())
    assert pixels.shape == (1, 3, 64, 64)
    assert pixels.dtype == torch.float32
    assert -1 <= pixels.min() < 0 < pixels.max() <= 1
    assert vision(pixel_values=pixels).last_hidden_state.shape == (1, 1 + PATCHES, 96)


@pytest.mark.parametrize("index", range(8))
def test_tokenizer_knows_every_word_and_gives_it_back(tokenizer, index):
    for body in (
        document_at("validation", index).body,
        text_at("validation", index),
        caption_at("validation", index, "glyphs"),
    ):
        ids = tokenizer.encode(body)
        assert ids[0] == tokenizer.bos_token_id
        assert tokenizer.unk_token_id not in ids
        assert tokenizer.decode(ids[1:]) == body


def test_shipped_tokenizer_is_the_one_the_script_builds(tokenizer):
    assert tokenizer.get_vocab() == build_tokenizer().get_vocab()


def test_superposed_context_names_each_object_in_reading_order():
    scene = scene_at("train", 5)
    named = [group for group in superposed(scene, random.Random(0)) if len(group) > 1]
    assert [group[:3] for group in dict.fromkeys(named)] == [
        (thing.size, thing.colour, thing.shape) for thing in scene.things
    ]


def test_words_of_one_position_are_summed(language, tokenizer):
    red, circle = tokenizer.convert_tokens_to_ids(["red", "circle"])
    together = embed(language, torch.tensor([[[red, circle]]]), tokenizer.pad_token_id)
    table = language.get_input_embeddings().weight
    torch.testing.assert_close(together[0, 0], table[red] + table[circle])


def test_the_context_is_predicted_too(tokenizer):
    """Else MIR would find the best vision tokens further from text than untrained ones."""
    groups = (("red",), ("large", "blue"))
    item = encode(Document(groups=groups, body="a circle"), tokenizer)
    expected = tokenizer.convert_tokens_to_ids(["red", "blue", "a", "circle"])
    assert item.labels == [IGNORED, *expected, tokenizer.eos_token_id]
    assert len(item.words) == len(item.labels)


def test_lessons_are_short():
    rng = random.Random(0)
    for index in rng.sample(range(10**6), 50):
        lesson = lesson_at("train", index)
        assert len(lesson.groups) + len(lesson.body.split()) <= 110


def test_learning_rate_rises_and_falls_to_zero():
    factors = [cosine(step, 100, 10) for step in range(101)]
    assert factors[9] == factors[10] == 1
    assert factors == sorted(factors[:10]) + sorted(factors[10:], reverse=True)
    assert factors[100] == pytest.approx(0)


def test_training_twice_gives_the_same_weights(tmp_path):
    said = []
    for out in (tmp_path / "one", tmp_path / "two"):
        train_language(build_tokenizer(), said.append, steps=2).save_pretrained(out / "language")
        train_vision(build_image_processor(), said.append, steps=2).save_pretrained(out / "vision")
    assert digest(tmp_path / "one") == digest(tmp_path / "two")
    assert len(said) == 8


def test_a_missing_model_is_named_with_the_remedy(tmp_path):
    with pytest.raises(DataError, match=r"no model here; make it with 'python -m jobs.world"):
        load_language(tmp_path)
