"""Questions about the scenes with their answers, for evaluation after fine-tuning."""

from __future__ import annotations

import random
from collections import Counter
from dataclasses import dataclass
from typing import Literal

from jobs.world.captions import NUMBERS, name, relation, with_articles
from jobs.world.scenes import COLOURS, SHAPES, SIZES, Scene, Split, Thing, scene_at

Kind = Literal["count", "exists", "colour", "shape", "size", "where", "relation"]
KINDS: tuple[Kind, ...] = ("count", "exists", "colour", "shape", "size", "where", "relation")


@dataclass(frozen=True, kw_only=True)
class Question:
    """text: one sentence. answer: one to two words. kind: what it asks for."""

    text: str
    answer: str
    kind: Kind


def questions_at(split: Split, index: int) -> tuple[Question, ...]:
    """The questions about this scene: one of every kind that it can answer without doubt."""
    return questions(scene_at(split, index), random.Random(f"questions {split} {index}"))


def questions(scene: Scene, rng: random.Random) -> tuple[Question, ...]:
    """At most one question a kind. 'yes' and 'no' are equally frequent."""
    asked = [
        Question(
            text="how many objects are there ?",
            answer=NUMBERS[len(scene.things) - 1],
            kind="count",
        ),
        _exists(scene, rng),
    ]
    thing = rng.choice(scene.things)
    asked += [
        Question(
            text=f"where is {name(thing)} ?",
            answer=thing.place,
            kind="where",
        ),
        Question(text=f"what size is {name(thing)} ?", answer=thing.size, kind="size"),
        Question(text=f"what is at the {thing.place} ?", answer=thing.shape, kind="shape"),
    ]
    single = _with_unique_shape(scene.things)
    if single:
        one = rng.choice(single)
        asked.append(
            Question(text=f"what colour is the {one.shape} ?", answer=one.colour, kind="colour")
        )
    if len(scene.things) > 1:
        asked.append(_relation(scene, rng))
    return tuple(asked)


def _exists(scene: Scene, rng: random.Random) -> Question:
    present = [(t.colour, t.shape) for t in scene.things]
    yes = rng.random() < 0.5
    absent = [(c, s) for c in COLOURS for s in SHAPES if (c, s) not in present]
    colour, shape = rng.choice(present if yes else absent)
    return Question(
        text=with_articles(f"is there a {colour} {shape} ?"),
        answer="yes" if yes else "no",
        kind="exists",
    )


def _relation(scene: Scene, rng: random.Random) -> Question:
    first, second = rng.sample(scene.things, 2)
    true = relation(first, second)
    opposite = {"above": "below", "below": "above", "left of": "right of", "right of": "left of"}
    yes = rng.random() < 0.5
    said = true if yes else opposite[true]
    return Question(
        text=f"is {name(first)} {said} {name(second)} ?",
        answer="yes" if yes else "no",
        kind="relation",
    )


def _with_unique_shape(things: tuple[Thing, ...]) -> list[Thing]:
    counts = Counter(t.shape for t in things)
    return [t for t in things if counts[t.shape] == 1]


ANSWERS: tuple[str, ...] = ("yes", "no", *NUMBERS, *COLOURS, *SHAPES, *SIZES)
