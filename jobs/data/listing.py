"""What sources that list their samples as JSON share: strict reading, and an index of places.

The file is read and checked once, when it is opened, entry by entry; kept are the places of the
entries only, 20 bytes a sample. What is wrong with the file itself is a DataError with its line;
what is wrong with one sample is a BadSample, which the loader skips and counts.
"""

from __future__ import annotations

import json
from array import array
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from jobs.data.errors import BadSample
from jobs.data.sample import Sample
from jobs.data.store import Folder, OpenFile
from mir.errors import DataError

MAX_CAPTION = 20_000  # characters
MAX_ENTRY = 64 << 20  # bytes
# From a parsed entry to what it says of picture and caption, right or wrong.
Extract = Callable[[dict[str, Any]], tuple[object, object]]


@dataclass
class Index:
    """Where each entry lies in the file. numbers: what messages call it, e.g. its line."""

    starts: array[int] = field(default_factory=lambda: array("Q"))
    sizes: array[int] = field(default_factory=lambda: array("I"))
    numbers: array[int] = field(default_factory=lambda: array("Q"))

    def add(self, start: int, size: int, number: int) -> None:
        """Note one more entry."""
        self.starts.append(start)
        self.sizes.append(size)
        self.numbers.append(number)


class ListingSource:
    """Entries of a listing file; a picture's path is relative to the image folder."""

    def __init__(
        self,
        file: OpenFile,
        index: Index,
        extract: Extract,
        images: Folder,
        name: tuple[str, str],
    ) -> None:
        """name: what stands before and after the number in a sample's key."""
        self._file, self._index = file, index
        self._extract, self._images, self._name = extract, images, name

    def __len__(self) -> int:
        return len(self._index.starts)

    def __getitem__(self, index: int) -> Sample:
        """Raises BadSample for a picture or caption that cannot be used."""
        name, caption, key = self._read(index)
        text = check_caption(caption, key)
        if not isinstance(name, str) or not name:
            raise BadSample("no image path", key)
        return Sample(image=self._images.picture(name, key), caption=text, key=key)

    def caption(self, index: int) -> str:
        """The caption alone; no picture is opened. Raises BadSample."""
        _, caption, key = self._read(index)
        return check_caption(caption, key)

    def _read(self, index: int) -> tuple[object, object, str]:
        if not 0 <= index < len(self):
            raise IndexError(f"no sample {index} of {len(self)}")
        places = self._index
        key = f"{self._name[0]}{places.numbers[index]}{self._name[1]}"
        data = self._file.read(places.starts[index], places.sizes[index])
        return *self._extract(parse_entry(data, key, "what was there when it was opened")), key


def check_caption(caption: object, key: str) -> str:
    """The caption without surrounding space; BadSample where it is no usable text."""
    if not isinstance(caption, str):
        raise BadSample("caption is not a string", key)
    if len(caption) > MAX_CAPTION:
        raise BadSample("caption too long", key)
    text = caption.strip()
    if not text:
        raise BadSample("caption empty", key)
    if any(character == "\0" or "\ud800" <= character <= "\udfff" for character in text):
        raise BadSample("caption is not valid text", key)
    return text


def parse_entry(data: bytes, where: str, expected: str) -> Any:
    """JSON in UTF-8. Raises DataError that names `where` and what was `expected` there."""
    try:
        return json.loads(data.decode("utf-8-sig"), object_pairs_hook=unique_fields)
    except UnicodeDecodeError as error:
        raise DataError(f"{where}: not UTF-8 ({error}): save the file as UTF-8") from error
    except (ValueError, RecursionError) as error:
        raise DataError(f"{where}: not JSON ({error}): expected {expected}") from error


def unique_fields(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """An object's fields; ValueError where one stands twice, since readers differ in which wins."""
    fields = dict(pairs)
    if len(fields) < len(pairs):
        seen = [name for name, _ in pairs]
        twice = next(name for name in seen if seen.count(name) > 1)
        raise ValueError(f"field {twice[:40]!r} stands twice")
    return fields
