"""What the embedded language model learns from: text of the world, no pictures.

Most documents open with a *record*: words that describe the scene which the rest is about. A
large language model has learnt to use whatever comes before from its web text; a tiny one needs
documents in which that pays. There are two kinds of record: a list of words, and a map with one
position for each of the 64 patches of a picture, where an object's words share a position.
"""

from __future__ import annotations

import random
from dataclasses import dataclass

from jobs.world.captions import caption_at, detailed, glyph_words, short
from jobs.world.questions import questions
from jobs.world.scenes import PATCHES, Scene, Split, Thing, covered_patches, scene_at
from jobs.world.texts import text_at

BLANK = "blank"
UNRELATED = 0.2  # share of the documents that are about no scene
GLYPHS = 0.04
NO_RECORD = 0.12  # share of the documents about a scene that come without a record
MAP = 0.8  # share of the records that are a map

Groups = tuple[tuple[str, ...], ...]


@dataclass(frozen=True, kw_only=True)
class Document:
    """groups: the words of each position of the record, read but not predicted.

    body: what is predicted.
    """

    groups: Groups
    body: str


def document_at(split: Split, index: int) -> Document:
    """The document of this split with this number; scenes and texts are of the same split."""
    rng = random.Random(f"document {split} {index}")
    kind = rng.random()
    if kind < UNRELATED:
        return Document(groups=(), body=text_at(split, index))
    if kind < UNRELATED + GLYPHS:
        return _glyphs(split, index, rng)
    scene = scene_at(split, index)
    if rng.random() < NO_RECORD:
        tags = rng.random() < 0.25
        body = caption_at(split, index, "tags") if tags else _about(scene, rng)
        return Document(groups=(), body=body)
    groups = scene_map(scene) if rng.random() < MAP else scene_list(scene, rng)
    return Document(groups=groups, body=_about(scene, rng))


def lesson_at(split: Split, index: int) -> Document:
    """A short document about one or two objects with a short record, to begin with.

    Begun with these, reading the record is learnt within 100 steps.
    """
    rng = random.Random(f"lesson {split} {index}")
    full = scene_at(split, index)
    count = min(len(full.things), rng.randint(1, 2))
    kept = sorted(rng.sample(range(len(full.things)), count))
    things = tuple(full.things[number] for number in kept)
    scene = Scene(things=things, background=full.background, noise=full.noise)
    kind = rng.random()
    if kind < 0.4:
        body = short(scene)
    elif kind < 0.7:
        body = _asked(scene, rng, 1)
    else:
        body = " . ".join(detailed(scene, rng).split(" . ")[:2]).removesuffix(" .") + " ."
    return Document(groups=_mentions(scene, rng, shared=rng.random() < MAP), body=body)


def scene_map(scene: Scene) -> Groups:
    """One position a patch, row by row: the words of the object that covers it, or BLANK."""
    groups: list[tuple[str, ...]] = [(BLANK,)] * PATCHES
    for thing in scene.things:
        for number in covered_patches(thing):
            groups[number] = _words(thing)
    return tuple(groups)


def scene_list(scene: Scene, rng: random.Random) -> Groups:
    """The words of all objects one after the other, among up to twenty blanks."""
    objects = [_words(t) for t in scene.things for _ in range(rng.randint(1, 2))]
    for _ in range(rng.randint(0, 20)):
        objects.insert(rng.randint(0, len(objects)), (BLANK,))
    return tuple((word,) for group in objects for word in group)


def _mentions(scene: Scene, rng: random.Random, *, shared: bool) -> Groups:
    """Each object one to three times; shared: all its words in one position."""
    objects: list[tuple[str, ...]] = []
    for thing in scene.things:
        objects += [_words(thing)] * rng.randint(1, 3) + [(BLANK,)] * rng.randint(0, 2)
    return tuple(objects) if shared else tuple((word,) for group in objects for word in group)


def _words(thing: Thing) -> tuple[str, ...]:
    return (thing.size, thing.colour, thing.shape, *thing.place.split())


def _about(scene: Scene, rng: random.Random) -> str:
    kind = rng.random()
    if kind < 0.6:
        return detailed(scene, rng)
    if kind < 0.75:
        return short(scene)
    return _asked(scene, rng, 3)


def _asked(scene: Scene, rng: random.Random, count: int) -> str:
    asked = rng.sample(questions(scene, rng), count)
    return " ".join(f"question : {q.text} answer : {q.answer} ." for q in asked)


def _glyphs(split: Split, index: int, rng: random.Random) -> Document:
    """Words among blanks in the record, the same words as the body."""
    words = glyph_words(split, index)
    spots = sorted(rng.sample(range(PATCHES), len(words)))
    groups: list[tuple[str, ...]] = [(BLANK,)] * PATCHES
    for spot, word in zip(spots, words, strict=True):
        groups[spot] = (word,)
    return Document(groups=tuple(groups), body=" ".join(words))
