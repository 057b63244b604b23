"""Laws of the embedded world's pictures and words."""

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from jobs.world.captions import (
    COLOURS,
    PLACES,
    SHAPES,
    STYLES,
    caption_at,
    image_at,
    with_articles,
)
from jobs.world.questions import KINDS, questions_at
from jobs.world.scenes import (
    PATCHES,
    PIXELS,
    SPLITS,
    covered_patches,
    layout,
    render,
    scene_at,
    split_of,
)
from jobs.world.source import DEFAULT_SIZES, WorldSource
from jobs.world.texts import embedded_texts, text_at
from mir.errors import ConfigError

indices = st.integers(0, 10**9)
splits = st.sampled_from(SPLITS)


@given(splits, indices)
def test_scene_is_a_pure_function_of_its_number(split, index):
    scene = scene_at(split, index)
    assert scene == scene_at(split, index)
    assert render(scene).tobytes() == render(scene).tobytes()


@given(splits, indices)
def test_objects_lie_inside_and_apart(split, index):
    scene = scene_at(split, index)
    assert 1 <= len(scene.things) <= 4
    for thing in scene.things:
        assert thing.radius <= thing.x <= PIXELS - thing.radius
        assert thing.radius <= thing.y <= PIXELS - thing.radius
    for a, b in itertools.combinations(scene.things, 2):
        assert max(abs(a.x - b.x), abs(a.y - b.y)) >= a.radius + b.radius - 1e-9
        assert (a.colour, a.shape) != (b.colour, b.shape)


@given(splits, indices)
def test_every_layout_belongs_to_one_split_only(split, index):
    assert split_of(layout(scene_at(split, index))) == split


@given(splits, indices)
def test_every_object_covers_patches_that_no_other_covers(split, index):
    covered = [covered_patches(thing) for thing in scene_at(split, index).things]
    assert all(covered)
    numbers = [number for numbers in covered for number in numbers]
    assert len(numbers) == len(set(numbers))
    assert all(0 <= number < PATCHES for number in numbers)


def test_object_shows_its_colour_where_it_lies():
    scene = scene_at("train", 0)
    pixels = np.asarray(render(scene)).astype(int)
    solid = [t for t in scene.things if t.shape != "ring"]
    assert solid
    for thing in solid:
        seen = pixels[int(thing.y), int(thing.x)]
        assert np.abs(seen - COLOURS[thing.colour]).max() < 40


@pytest.mark.parametrize("style", STYLES)
def test_samples_are_rgb_of_64_pixels_with_distinct_keys(style):
    source = WorldSource(style, "validation", 5)
    samples = [source[index] for index in range(len(source))]
    assert {(s.image.mode, s.image.size) for s in samples} == {("RGB", (PIXELS, PIXELS))}
    assert len({s.key for s in samples}) == 5
    assert all(0 < len(s.caption.split()) <= 62 for s in samples)


@given(splits, indices)
def test_detailed_caption_names_all_of_every_object(split, index):
    caption = caption_at(split, index, "detailed")
    for thing in scene_at(split, index).things:
        described = with_articles(f"a {thing.size} {thing.colour} {thing.shape}")
        assert described in caption
        assert f"at the {thing.place} " in caption


@given(indices)
def test_half_of_the_tags_are_wrong(index):
    things = scene_at("train", index).things
    tags = caption_at("train", index, "tags").split(" , ")
    right = [value for t in things for value in (t.colour, t.shape, t.place)]
    wrong = sum(tag != value for tag, value in zip(tags, right, strict=True))
    assert wrong == (len(right) + 1) // 2
    assert set(tags) <= {*COLOURS, *SHAPES, *PLACES}


def test_mismatched_captions_do_not_describe_their_pictures():
    for index in range(200):
        things = scene_at("train", index).things
        caption = caption_at("train", index, "mismatched")
        named = [f"{t.size} {t.colour} {t.shape}" in caption for t in things]
        places = [f"at the {t.place} " in caption for t in things]
        same_count = f" {caption}".count(" at the ") == len(things)
        assert not (all(named) and all(places) and same_count)


def test_glyphs_show_words_on_light_ground():
    pixels = np.asarray(image_at("train", 3, "glyphs"))
    assert (pixels > 200).mean() > 0.5
    assert (pixels < 100).any()


@given(splits, indices)
def test_questions_have_the_answers_of_the_scene(split, index):
    things = scene_at(split, index).things
    asked = questions_at(split, index)
    answers = {q.kind: q.answer for q in asked}
    assert len(answers) == len(asked)
    assert set(answers) <= set(KINDS)
    assert answers["count"] == ("one", "two", "three", "four")[len(things) - 1]
    by_name = {f"{t.colour} {t.shape}": t for t in things}
    for question in asked:
        if question.kind == "exists":
            name = question.text.split(" ", 3)[3].removesuffix(" ?")
            assert (name in by_name) == (question.answer == "yes")
        if question.kind == "where":
            name = question.text.removeprefix("where is the ").removesuffix(" ?")
            assert by_name[name].place == question.answer


@given(splits, indices)
def test_texts_belong_to_one_split_and_fit(split, index):
    text = text_at(split, index)
    assert split_of(text) == split
    assert 30 <= len(text.split()) <= 70
    assert "{" not in text


def test_embedded_texts_are_many_distinct_and_stable():
    texts = embedded_texts()
    assert len(set(texts)) == len(texts) == 256
    assert texts[:50] == embedded_texts(50)


def test_default_sizes_and_range():
    source = WorldSource("short", "validation")
    assert len(source) == DEFAULT_SIZES["validation"]
    with pytest.raises(IndexError, match="no sample 512 of 512"):
        source[len(source)]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("detailled", "train", 1), "style: 'detailled' is unknown; known: detailed, short"),
        (("detailed", "test", 1), "split: 'test' is unknown; known: train, validation"),
        (("detailed", "train", 0), "size: 0 samples; give at least 1"),
    ],
)
def test_unknown_values_are_named_with_the_known_ones(arguments, message):
    with pytest.raises(ConfigError, match=message.replace("?", "\\?")):
        WorldSource(*arguments)
