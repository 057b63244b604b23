"""Captions of different worth for the scenes: what a sweep has to tell apart.

Every caption is a pure function of (split, index, style). Words are lower case, separated by
blanks, punctuation too, so that the word-level tokenizer sees exactly what is written here.
"""

from __future__ import annotations

import random
import re
from functools import cache
from typing import Literal

from PIL import Image, ImageDraw, ImageFont

from jobs.world.scenes import (
    COLOURS,
    PIXELS,
    SHAPES,
    Scene,
    Split,
    Thing,
    layout,
    place_name,
    render,
    scene_at,
)

Style = Literal["detailed", "short", "tags", "mismatched", "glyphs"]
STYLES: tuple[Style, ...] = ("detailed", "short", "tags", "mismatched", "glyphs")
NUMBERS = ("one", "two", "three", "four")
PLACES = tuple(place_name(row, column) for row in range(3) for column in range(3))
GLYPH_WORDS = (
    "apple",
    "baker",
    "bear",
    "boat",
    "book",
    "bread",
    "bridge",
    "cake",
    "cat",
    "cold",
    "dog",
    "door",
    "farm",
    "fish",
    "garden",
    "gold",
    "happy",
    "home",
    "horse",
    "house",
    "key",
    "king",
    "lamp",
    "market",
    "milk",
    "moon",
    "night",
    "north",
    "old",
    "rain",
    "river",
    "road",
    "salt",
    "sea",
    "ship",
    "shop",
    "snow",
    "song",
    "south",
    "stone",
    "story",
    "sun",
    "tea",
    "town",
    "tree",
    "warm",
    "water",
    "wind",
    "wood",
)
_OBJECT = (
    "a {size} {colour} {shape} is at the {place} .",
    "a {size} {colour} {shape} sits at the {place} .",
    "there is a {size} {colour} {shape} at the {place} .",
    "at the {place} is a {size} {colour} {shape} .",
    "at the {place} we see a {size} {colour} {shape} .",
)


def caption_at(split: Split, index: int, style: Style) -> str:
    """The caption of this sample; at most 62 words."""
    rng = random.Random(f"caption {style} {split} {index}")
    scene = scene_at(split, index)
    match style:
        case "detailed":
            return detailed(scene, rng)
        case "short":
            return short(scene)
        case "tags":
            return tags(scene, rng)
        case "mismatched":
            return detailed(_other_scene(scene, split, rng), rng)
        case "glyphs":
            return " ".join(glyph_words(split, index))


def image_at(split: Split, index: int, style: Style) -> Image.Image:
    """The picture of this sample: the scene, or for 'glyphs' the rendered words."""
    if style == "glyphs":
        return render_words(glyph_words(split, index))
    return render(scene_at(split, index))


def detailed(scene: Scene, rng: random.Random) -> str:
    """Every object with size, colour, shape and place, in reading order, and one relation."""
    sentences = []
    if rng.random() < 0.5:
        sentences.append(count_sentence(scene))
    for thing in scene.things:
        sentences.append(
            rng.choice(_OBJECT).format(
                size=thing.size, colour=thing.colour, shape=thing.shape, place=thing.place
            )
        )
    if len(scene.things) > 1:
        first, second = rng.sample(scene.things, 2)
        sentences.append(f"{name(first)} is {relation(first, second)} {name(second)} .")
    return with_articles(" ".join(sentences))


def count_sentence(scene: Scene) -> str:
    """'there are two objects .'"""
    count = len(scene.things)
    return f"there {'is' if count == 1 else 'are'} {NUMBERS[count - 1]} object{'s' * (count > 1)} ."


def name(thing: Thing) -> str:
    """'the red circle': unique within a scene."""
    return f"the {thing.colour} {thing.shape}"


def relation(first: Thing, second: Thing) -> str:
    """Where the first object is, seen from the second; rows count before columns."""
    if first.row != second.row:
        return "above" if first.row < second.row else "below"
    return "left of" if first.column < second.column else "right of"


def short(scene: Scene) -> str:
    """'a red circle , a blue square and a green star .'"""
    names = [f"a {t.colour} {t.shape}" for t in scene.things]
    head = " , ".join(names[:-1])
    return with_articles(f"{head} and {names[-1]} ." if head else f"{names[-1]} .")


def with_articles(text: str) -> str:
    """'a' before a vowel becomes 'an'."""
    return re.sub(r"\ba(?= [aeiou])", "an", text)


def tags(scene: Scene, rng: random.Random) -> str:
    """Colour, shape and place of every object; half of the tags (rounded up) are wrong."""
    kinds: tuple[tuple[str, ...], ...] = (tuple(COLOURS), SHAPES, PLACES)
    right = [(t.colour, t.shape, t.place) for t in scene.things]
    flat = [value for values in right for value in values]
    wrong = rng.sample(range(len(flat)), (len(flat) + 1) // 2)
    for position in wrong:
        kind = position % 3
        present = {values[kind] for values in right}
        flat[position] = rng.choice([v for v in kinds[kind] if v not in present])
    return " , ".join(flat)


def _other_scene(scene: Scene, split: Split, rng: random.Random) -> Scene:
    """A scene of the same split with another layout."""
    while True:
        other = scene_at(split, rng.randrange(1_000_000))
        if layout(other) != layout(scene):
            return other


def glyph_words(split: Split, index: int) -> tuple[str, ...]:
    """Two to four words to be shown as text."""
    rng = random.Random(f"glyphs {split} {index}")
    return tuple(rng.sample(GLYPH_WORDS, rng.randint(2, 4)))


def render_words(words: tuple[str, ...]) -> Image.Image:
    """The words in black on light grey, one below the other, as a 64 x 64 RGB image."""
    image = Image.new("RGB", (PIXELS, PIXELS), (225, 225, 225))
    draw = ImageDraw.Draw(image)
    for row, word in enumerate(words):
        draw.text((4, 2 + 15 * row), word, fill=(20, 20, 20), font=_font())
    return image


@cache
def _font() -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    return ImageFont.load_default(size=14)
