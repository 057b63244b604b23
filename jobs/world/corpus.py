"""What the embedded language model learns from: text of the world, no pictures.

A part of the documents opens with a *record*: the words that describe a scene, scattered and
repeated among blanks, the way patches of a picture are. A large language model has learnt to use
whatever comes before from its web text; a tiny one needs documents in which that pays.
"""

from __future__ import annotations

import random
from dataclasses import dataclass

from jobs.world.captions import caption_at, detailed, glyph_words, short
from jobs.world.questions import questions
from jobs.world.scenes import Scene, Split, scene_at
from jobs.world.texts import text_at

BLANK = "blank"
RECORD_WORDS = 64  # as many as the vision encoder gives patches
RECORD_SHARE = 0.6


@dataclass(frozen=True, kw_only=True)
class Document:
    """groups: the record, one tuple of words for each mention of an object; not predicted.

    body: what is predicted.
    """

    groups: tuple[tuple[str, ...], ...]
    body: str


def document_at(split: Split, index: int) -> Document:
    """The document of this split with this number; scenes and texts are of the same split."""
    rng = random.Random(f"document {split} {index}")
    if rng.random() < 0.3:
        return Document(groups=(), body=text_at(split, index))
    if rng.random() < 0.1:
        return _glyphs(split, index, rng)
    scene = scene_at(split, index)
    if rng.random() < RECORD_SHARE:
        return Document(groups=record(scene, rng), body=_about(scene, rng))
    plain = caption_at(split, index, "tags") if rng.random() < 0.2 else _about(scene, rng)
    return Document(groups=(), body=plain)


def _about(scene: Scene, rng: random.Random) -> str:
    kind = rng.random()
    if kind < 0.6:
        return detailed(scene, rng)
    if kind < 0.75:
        return short(scene)
    asked = rng.sample(questions(scene, rng), 3)
    return " ".join(f"question : {q.text} answer : {q.answer} ." for q in asked)


def _glyphs(split: Split, index: int, rng: random.Random) -> Document:
    words = glyph_words(split, index)
    groups: list[tuple[str, ...]] = [(word,) for word in words]
    return Document(groups=_scatter(groups, rng, shuffle=False), body=" ".join(words))


def record(scene: Scene, rng: random.Random) -> tuple[tuple[str, ...], ...]:
    """Every object as a group of its words, mentioned one to four times, in random order."""
    mentions: list[tuple[str, ...]] = []
    for thing in scene.things:
        words = (thing.size, thing.colour, thing.shape, *thing.place.split())
        mentions += [words] * rng.randint(1, 4)
    return _scatter(mentions, rng, shuffle=True)


def _scatter(
    groups: list[tuple[str, ...]], rng: random.Random, *, shuffle: bool
) -> tuple[tuple[str, ...], ...]:
    """Adds blanks between the groups, in all at most RECORD_WORDS groups."""
    total = rng.randint(len(groups), RECORD_WORDS)
    spots = set(rng.sample(range(total), len(groups)))
    ordered = rng.sample(groups, len(groups)) if shuffle else groups
    remaining = iter(ordered)
    return tuple(next(remaining) if spot in spots else (BLANK,) for spot in range(total))
