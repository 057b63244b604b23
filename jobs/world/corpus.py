"""What the embedded language model learns from: text of the world, no pictures.

Most documents open with a *context*: words about the scene which the rest is about. A large
language model has learnt to use whatever comes before from its web text; a tiny one needs
documents in which that pays. Most contexts are ordinary sentences, so that being read does not
make a token unlike text; the others have all words of an object in one position, which is how a
vision token can say as much as it must.
"""

from __future__ import annotations

import random
from dataclasses import dataclass

from jobs.world.captions import caption_at, detailed, glyph_words, short
from jobs.world.questions import questions
from jobs.world.scenes import Scene, Split, Thing, scene_at
from jobs.world.texts import text_at

UNRELATED = 0.25  # share of the documents that are about no scene
GLYPHS = 0.04
NO_CONTEXT = 0.12  # share of the documents about a scene that come without a context
SHARED = 0.08  # share of the contexts with all words of an object in one position
GROUND = ((".",), (",",), ("and",), ("the",), ("is",))  # between such positions: common words

Groups = tuple[tuple[str, ...], ...]


@dataclass(frozen=True, kw_only=True)
class Document:
    """groups: the words of each position of the context. body: the text after it."""

    groups: Groups
    body: str


def document_at(split: Split, index: int) -> Document:
    """The document of this split with this number; scenes and texts are of the same split."""
    rng = random.Random(f"document {split} {index}")
    kind = rng.random()
    if kind < UNRELATED:
        return Document(groups=(), body=text_at(split, index))
    if kind < UNRELATED + GLYPHS:
        words = glyph_words(split, index)
        return Document(groups=_scattered([(word,) for word in words], rng), body=" ".join(words))
    scene = scene_at(split, index)
    if rng.random() < NO_CONTEXT:
        tags = rng.random() < 0.25
        body = caption_at(split, index, "tags") if tags else _about(scene, rng)
        return Document(groups=(), body=body)
    groups = superposed(scene, rng) if rng.random() < SHARED else sentences(detailed(scene, rng))
    return Document(groups=groups, body=_about(scene, rng))


def lesson_at(split: Split, index: int) -> Document:
    """A short document about one or two objects with a short context, to begin with.

    Begun with these, reading the context is learnt within 100 steps.
    """
    rng = random.Random(f"lesson {split} {index}")
    full = scene_at(split, index)
    count = min(len(full.things), rng.randint(1, 2))
    kept = sorted(rng.sample(range(len(full.things)), count))
    things = tuple(full.things[number] for number in kept)
    scene = Scene(things=things, background=full.background, noise=full.noise)
    groups = superposed(scene, rng) if rng.random() < SHARED else sentences(detailed(scene, rng))
    kind = rng.random()
    if kind < 0.4:
        body = short(scene)
    elif kind < 0.7:
        body = _asked(scene, rng, 1)
    else:
        body = " . ".join(detailed(scene, rng).split(" . ")[:2]).removesuffix(" .") + " ."
    return Document(groups=groups, body=body)


def sentences(text: str) -> Groups:
    """One word a position."""
    return tuple((word,) for word in text.split())


def superposed(scene: Scene, rng: random.Random) -> Groups:
    """Every object one to four times, all its words in one position, in reading order."""
    return _scattered([_words(t) for t in scene.things for _ in range(rng.randint(1, 4))], rng)


def _scattered(groups: list[tuple[str, ...]], rng: random.Random) -> Groups:
    """The groups in their order among up to twelve common words."""
    for _ in range(rng.randint(0, 12)):
        groups.insert(rng.randint(0, len(groups)), rng.choice(GROUND))
    return tuple(groups)


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
