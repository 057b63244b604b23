"""Unrelated texts: little stories, market notes and workshop notes that describe no picture.

They are MIR's text side in the embedded world and part of what the language model learns from.
They speak of colours, shapes and places too, as ordinary text does: MIR asks whether vision
tokens look like text, and no picture of a red circle can where text never says "red circle".
Texts belong to one split by their content, as the scenes do.
"""

from __future__ import annotations

import random

from jobs.world.captions import with_articles
from jobs.world.scenes import COLOURS, COLUMNS, ROWS, SHAPES, SIZES, Split, place_name, split_of

HE = ("tom", "ben", "max", "sam", "leo", "paul", "hugo", "adam", "karl", "omar")
SHE = ("anna", "mia", "lucy", "eva", "nora", "ruth", "jane", "lena", "vera", "zoe")
TRADES = ("baker", "farmer", "teacher", "doctor", "sailor", "king", "painter", "miller")
HOMES = ("village", "town", "farm", "castle", "cabin", "house")
GOALS = ("river", "market", "sea", "forest", "bridge", "garden", "school", "shop", "mountain")
THINGS = (
    "book",
    "lamp",
    "key",
    "boat",
    "cake",
    "fish",
    "bread",
    "coat",
    "drum",
    "kite",
    "clock",
    "basket",
    "letter",
)
ANIMALS = ("dog", "cat", "horse", "bear", "fox", "owl", "goat", "duck")
ADJECTIVES = (
    "old",
    "new",
    "heavy",
    "warm",
    "cold",
    "strange",
    "lovely",
    "broken",
    "quiet",
    "tiny",
    "golden",
)
WEATHER = ("rain", "snow", "wind", "sun", "fog", "storm")
TIMES = ("morning", "evening", "night", "day", "winter", "summer")
FEELINGS = ("happy", "sad", "tired", "proud", "angry", "glad", "afraid")
GOODS = (
    "apples",
    "eggs",
    "salt",
    "milk",
    "tea",
    "wood",
    "wool",
    "honey",
    "stones",
    "flowers",
    "candles",
)
BARE = ("plain", "grey", "bare", "light", "empty")
PLACES = tuple(
    place_name(row, column) for row in range(len(ROWS)) for column in range(len(COLUMNS))
)
AMOUNTS = ("two", "three", "four", "five", "six", "ten", "twenty")

_START = (
    "once there was a {trade} named {name} who lived in a {adj} {home} .",
    "one {time} {name} the {trade} went to the {goal} with a {animal} .",
    "{name} was a {trade} and had a {adj} {thing} .",
    "in the {time} {name} liked to walk along the {goal} .",
    "when the {weather} came , {name} stayed in the {home} with {other} .",
)
_MIDDLE = (
    "{he} wanted to buy a {adj} {thing} but had no money .",
    "near the {goal} {he} found a {thing} and gave it to {other} .",
    "the {weather} was so strong that nobody could leave the {home} .",
    "{other} asked {him} for the {thing} , but {he} said no .",
    "then a {animal} took the {thing} and ran to the {goal} .",
    "every {time} {he} told the {animal} a story about the {goal} .",
    "{he} had lost {his} {thing} and looked for it all {time} .",
    "{other} said that the {goal} was far away and {adj} .",
    "over the door {he} painted a {size} {colour} {shape} on the {bare} wall .",
    "the {thing} was {size} and {colour} and stood at the {place} of the {bare} room .",
    "{other} wore a {colour} coat with a {colour2} {shape} .",
)
_END = (
    "in the end {name} and {other} were {feeling} and went home .",
    "after that {he} was never {feeling} again .",
    "so {he} kept the {thing} and felt {feeling} .",
    "and {other} still has the {thing} today .",
)
_NOTE = (
    "at the market in the {home} the {trade} sold {amount} {goods} and bought {goods2} .",
    "the price of {goods} went up because of the {weather} .",
    "{name} paid {amount} coins for {goods} and {amount2} coins for a {adj} {thing} .",
    "people from the {goal} will bring {goods} next {time} .",
    "the {trade} said that {goods} are {adj} this {time} .",
    "a {animal} ate {amount} of the {goods} before {name} came back .",
)
_WORKSHOP = (
    "{name} cut a {size} {colour} {shape} for {other} and a {colour2} {shape2} for the {trade} .",
    "the {colour} {shape} is at the {place} , the {size} {shape2} at the {place2} .",
    "{other} put a {bare} {thing} at the {place} of the table .",
    "at the {place} of the {home} hangs a {colour} {shape} .",
    "{he} sold the {size} {shape} and kept the {colour2} one .",
    "{amount} {colour} {goods} lay at the {place} of the {bare} table .",
    "there is a {size} {colour} {thing} at the {place} of the {home} .",
    "a {size} {colour} {shape} is at the {place} and the {thing} is below .",
    "the {thing} is left of the {colour} {shape} , the {animal} sits above the {shape2} .",
)


def text_at(split: Split, index: int) -> str:
    """The text of this split with this number: about 35 to 65 words."""
    rng = random.Random(f"text {split} {index}")
    while True:
        text = rng.choice(_KINDS)(rng)
        if split_of(text) == split:
            return text


def embedded_texts(count: int = 256) -> tuple[str, ...]:
    """Distinct held-out texts for MIR's text side, always the same ones in the same order."""
    found: dict[str, None] = {}
    index = 0
    while len(found) < count:
        found[text_at("validation", index)] = None
        index += 1
    return tuple(found)


def _story(rng: random.Random) -> str:
    fixed = _cast(rng)
    middle = rng.sample(_MIDDLE, 3)
    return _fill(rng, (rng.choice(_START), *middle, rng.choice(_END)), fixed)


def _notes(rng: random.Random) -> str:
    return _fill(rng, tuple(rng.sample(_NOTE, 4)), _cast(rng))


def _workshop(rng: random.Random) -> str:
    return _fill(rng, tuple(rng.sample(_WORKSHOP, 4)), _cast(rng))


_KINDS = (_story, _story, _notes, _workshop, _workshop)


def _cast(rng: random.Random) -> dict[str, str]:
    """What stays the same within a text: who it is about, the thing, the place, the animal."""
    male = rng.random() < 0.5
    name = rng.choice(HE if male else SHE)
    return {
        "name": name,
        "other": rng.choice([n for n in HE + SHE if n != name]),
        "he": "he" if male else "she",
        "him": "him" if male else "her",
        "his": "his" if male else "her",
        "trade": rng.choice(TRADES),
        "thing": rng.choice(THINGS),
        "goal": rng.choice(GOALS),
        "home": rng.choice(HOMES),
        "animal": rng.choice(ANIMALS),
    }


def _fill(rng: random.Random, sentences: tuple[str, ...], fixed: dict[str, str]) -> str:
    lists = {
        "adj": ADJECTIVES,
        "weather": WEATHER,
        "time": TIMES,
        "feeling": FEELINGS,
        "goods": GOODS,
        "goods2": GOODS,
        "amount": AMOUNTS,
        "amount2": AMOUNTS,
        "size": tuple(SIZES),
        "colour": tuple(COLOURS),
        "colour2": tuple(COLOURS),
        "shape": SHAPES,
        "shape2": SHAPES,
        "place": PLACES,
        "place2": PLACES,
        "bare": BARE,
    }
    filled = []
    for sentence in sentences:
        words = {slot: rng.choice(values) for slot, values in lists.items()}
        filled.append(sentence.format(**fixed, **words))
    return with_articles(" ".join(filled))
