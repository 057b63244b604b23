"""Procedural 64-pixel scenes: one to four objects on a plain background.

A scene is a pure function of (split, index). The splits are disjoint by construction: every
layout (the set of its objects' shape, colour, size and cell) belongs to one split by its hash.
"""

from __future__ import annotations

import random
import zlib
from dataclasses import dataclass
from functools import cache
from typing import Literal

import numpy as np
from PIL import Image, ImageDraw

Split = Literal["train", "validation"]
SPLITS: tuple[Split, ...] = ("train", "validation")

PIXELS = 64
GRID = 3
PATCH = 8  # side of a patch of the vision encoder, in pixels
PATCHES = (PIXELS // PATCH) ** 2
OVERSAMPLING = 4  # drawn larger and averaged: Pillow's polygons have no anti-aliasing
VALIDATION_SHARE = 10  # one layout in ten is kept for validation

SHAPES = ("circle", "square", "triangle", "diamond", "cross", "ring")
COLOURS: dict[str, tuple[int, int, int]] = {
    "red": (215, 40, 40),
    "green": (40, 160, 60),
    "blue": (45, 80, 215),
    "yellow": (240, 220, 50),
    "purple": (140, 50, 170),
    "orange": (245, 140, 30),
    "black": (25, 25, 25),
    "white": (250, 250, 250),
}
SIZES: dict[str, tuple[float, float]] = {"small": (4.8, 6.0), "large": (8.8, 10.0)}
ROWS = ("top", "middle", "bottom")
COLUMNS = ("left", "middle", "right")

Point = tuple[float, float]


@dataclass(frozen=True, kw_only=True)
class Thing:
    """One object. row, column: its cell in the 3 x 3 grid. x, y, radius: in pixels."""

    shape: str
    colour: str
    size: str
    row: int
    column: int
    x: float
    y: float
    radius: float

    @property
    def place(self) -> str:
        """Coarse position in words: 'top left', 'top', ..., 'center', ..., 'bottom right'."""
        return place_name(self.row, self.column)


@dataclass(frozen=True, kw_only=True)
class Scene:
    """things: in reading order (row, then column). background: grey level. noise: its seed."""

    things: tuple[Thing, ...]
    background: int
    noise: int


def place_name(row: int, column: int) -> str:
    """The words for a cell of the grid."""
    if row == column == 1:
        return "center"
    names = [ROWS[row]] * (row != 1) + [COLUMNS[column]] * (column != 1)
    return " ".join(names)


def split_of(content: str) -> Split:
    """The only split that may hold this content."""
    return "validation" if zlib.crc32(content.encode()) % VALIDATION_SHARE == 0 else "train"


def layout(scene: Scene) -> str:
    """What decides the split of a scene: all that a caption can say about it."""
    return ";".join(f"{t.size} {t.colour} {t.shape} {t.row}{t.column}" for t in scene.things)


def covered_patches(thing: Thing) -> list[int]:
    """Numbers (row by row) of the patches whose centre lies in the object's box; never empty."""
    side = PIXELS // PATCH
    centres = [(number, divmod(number, side)) for number in range(side * side)]
    return [
        number
        for number, (row, column) in centres
        if abs((column + 0.5) * PATCH - thing.x) <= thing.radius
        and abs((row + 0.5) * PATCH - thing.y) <= thing.radius
    ]


def scene_at(split: Split, index: int) -> Scene:
    """The scene of this split with this number; any index from 0 up exists."""
    rng = random.Random(f"scene {split} {index}")
    while True:
        scene = _draw(rng)
        if split_of(layout(scene)) == split:
            return scene


def _draw(rng: random.Random) -> Scene:
    count = rng.randint(1, 4)
    cells = sorted(rng.sample(range(GRID * GRID), count))
    # Colour and shape together name an object, so no two in a scene share both.
    names = rng.sample([(c, s) for c in COLOURS for s in SHAPES], count)
    things = tuple(_thing(rng, cell, *name) for cell, name in zip(cells, names, strict=True))
    return Scene(things=things, background=rng.randint(105, 165), noise=rng.getrandbits(32))


def _thing(rng: random.Random, cell: int, colour: str, shape: str) -> Thing:
    row, column = divmod(cell, GRID)
    size = rng.choice(tuple(SIZES))
    radius = rng.uniform(*SIZES[size])
    side = PIXELS / GRID
    slack = side / 2 - radius
    x = (column + 0.5) * side + rng.uniform(-slack, slack)
    y = (row + 0.5) * side + rng.uniform(-slack, slack)
    return Thing(
        shape=shape, colour=colour, size=size, row=row, column=column, x=x, y=y, radius=radius
    )


def render(scene: Scene) -> Image.Image:
    """The scene as an RGB image of 64 x 64 pixels, with slight noise."""
    grey = (scene.background,) * 3
    canvas = Image.new("RGB", (PIXELS * OVERSAMPLING,) * 2, grey)
    draw = ImageDraw.Draw(canvas)
    for thing in scene.things:
        _paint(draw, thing, grey)
    pixels = np.asarray(canvas.reduce(OVERSAMPLING), dtype=np.int16)
    noisy = pixels + np.roll(_noise(), scene.noise % pixels.size)
    return Image.fromarray(noisy.clip(0, 255).astype(np.uint8))


@cache
def _noise() -> np.ndarray:
    """One fixed field [64, 64, 3], rolled by each scene: drawing it anew would cost the most."""
    rng = np.random.default_rng(0)
    return np.rint(rng.normal(0, 4, (PIXELS, PIXELS, 3))).astype(np.int16)


def _paint(draw: ImageDraw.ImageDraw, thing: Thing, grey: tuple[int, int, int]) -> None:
    x, y, r = (v * OVERSAMPLING for v in (thing.x, thing.y, thing.radius))
    fill = COLOURS[thing.colour]
    if thing.shape in ("circle", "ring"):
        draw.ellipse((x - r, y - r, x + r, y + r), fill=fill)
        if thing.shape == "ring":
            inner = 0.55 * r
            draw.ellipse((x - inner, y - inner, x + inner, y + inner), fill=grey)
        return
    draw.polygon([(x + dx * r, y + dy * r) for dx, dy in _outline(thing.shape)], fill=fill)


def _outline(shape: str) -> tuple[Point, ...]:
    """Corners in units of the radius, y downwards."""
    if shape == "cross":
        a, b = 0.33, 1.0
        quarter = ((a, -b), (a, -a), (b, -a))
        return tuple(p for k in range(4) for p in (_turn(q, k) for q in quarter))
    return {
        "square": ((-0.85, -0.85), (0.85, -0.85), (0.85, 0.85), (-0.85, 0.85)),
        "triangle": ((0.0, -1.0), (0.95, 0.85), (-0.95, 0.85)),
        "diamond": ((0.0, -1.0), (0.75, 0.0), (0.0, 1.0), (-0.75, 0.0)),
    }[shape]


def _turn(point: Point, quarters: int) -> Point:
    for _ in range(quarters):
        point = (-point[1], point[0])
    return point
