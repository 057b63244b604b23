"""Prepared captions on disk: JSON lines with small pictures, split so that variants do not leak.

A source's folder holds `images/`, `train.jsonl` and `validation.jsonl`; each line has the fields
`image` (relative to the folder), `caption` and `group`. Folders appear whole or not at all.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections import Counter
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from jobs.data.errors import BadSample

MAX_SIDE = 336  # pixels; the largest that common encoders read
VALIDATION_SHARE = 10  # one group in so many


@dataclass(frozen=True, kw_only=True)
class Item:
    """One picture to be: `load` may raise BadSample; samples of one `group` share a split."""

    name: str
    caption: str
    group: str
    load: Callable[[], Image.Image]


def split_of(group: str) -> str:
    """'train' or 'validation', by the group's name alone: equal groups agree across sources."""
    number = int.from_bytes(hashlib.sha256(group.encode()).digest()[:8], "big")
    return "validation" if number % VALIDATION_SHARE == 0 else "train"


def write_source(folder: Path, items: Iterable[Item]) -> str:
    """Write a source and return one line that says what is in it. Bad pictures are counted."""
    with whole_folder(folder) as making:
        (making / "images").mkdir()
        lines: dict[str, list[str]] = {"train": [], "validation": []}
        bad: Counter[str] = Counter()
        for item in items:
            try:
                picture = item.load()
            except BadSample as problem:
                bad[problem.reason] += 1
                continue
            image = f"images/{item.name}.jpg"
            picture.thumbnail((MAX_SIDE, MAX_SIDE), Image.Resampling.LANCZOS)
            picture.save(making / image, quality=95)
            entry = {"image": image, "caption": item.caption, "group": item.group}
            lines[split_of(item.group)].append(json.dumps(entry, ensure_ascii=False) + "\n")
        for split, written in lines.items():
            (making / f"{split}.jsonl").write_text("".join(written), encoding="utf-8")
    left_out = "".join(f", {count} left out ({reason})" for reason, count in sorted(bad.items()))
    return f"{len(lines['train'])} train, {len(lines['validation'])} validation{left_out}"


class whole_folder:  # noqa: N801 - used as a with-statement's verb
    """A folder that is written aside and renamed when complete, so that half of one never stays."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._making = folder.with_name(f"{folder.name}.making")

    def __enter__(self) -> Path:
        with suppress(FileNotFoundError):
            shutil.rmtree(self._making)
        self._making.mkdir(parents=True)
        return self._making

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is not None:
            shutil.rmtree(self._making)
            return
        with suppress(FileNotFoundError):
            shutil.rmtree(self._folder)
        self._making.replace(self._folder)
