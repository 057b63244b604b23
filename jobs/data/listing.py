"""What sources that list their samples as JSON share: strict reading, and an index of places.

The file is walked once, when it is opened; kept are the places of its entries only, 20 bytes a
sample. What is wrong with one entry, be it not even JSON, is a BadSample when it is read, which
the loader skips and counts. A file of which no entry is usable is no listing: a DataError.
"""

from __future__ import annotations

import json
from array import array
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from jobs.data.errors import BadSample
from jobs.data.sample import Sample, Turn, text_of
from jobs.data.store import Folder, OpenFile
from mir.errors import DataError

MAX_CAPTION = 20_000  # characters
MAX_ENTRY = 64 << 20  # bytes
# From a parsed entry and its key to what it says of the picture, right or wrong, and its text.
Extract = Callable[[dict[str, Any], str], tuple[object, tuple[Turn, ...]]]


class BadEntryError(DataError):
    """One entry cannot be used. reason: as of the BadSample that it becomes when it is read."""

    def __init__(self, message: str, reason: str) -> None:
        super().__init__(message)
        self.reason = reason


@dataclass
class Index:
    """Where each entry lies in the file. numbers: what messages call it, e.g. its line.

    without_picture: entries that have none and were left out.
    """

    starts: array[int] = field(default_factory=lambda: array("Q"))
    sizes: array[int] = field(default_factory=lambda: array("I"))
    numbers: array[int] = field(default_factory=lambda: array("Q"))
    without_picture: int = 0
    usable: bool = False
    first_bad: BadEntryError | None = None

    def add(self, start: int, size: int, number: int, check: Callable[[], object]) -> None:
        """Note one more entry, bad or not.

        check: raises BadEntryError for a bad one; not asked any more once an entry was usable.
        """
        self.starts.append(start)
        self.sizes.append(min(size, MAX_ENTRY + 1))
        self.numbers.append(number)
        if not self.usable:
            try:
                check()
                self.usable, self.first_bad = True, None
            except BadEntryError as error:
                self.first_bad = self.first_bad or error

    def checked(self) -> Index:
        """Itself. Raises DataError, with what is wrong with the first, where all entries are bad"""
        if self.first_bad is not None:
            raise self.first_bad
        return self


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

    @property
    def without_picture(self) -> int:
        """Entries of the list that have no picture and are no samples."""
        return self._index.without_picture

    def __getitem__(self, index: int) -> Sample:
        """Raises BadSample for a picture or caption that cannot be used."""
        name, ((prompt, caption), *more), key = self._read(index)
        if not isinstance(name, str) or not name:
            raise BadSample("no image path", key)
        return Sample(
            image=self._images.picture(name, key), caption=caption, key=key,
            prompt=prompt, more=tuple(more),
        )  # fmt: skip

    def caption(self, index: int) -> str:
        """The text alone; no picture is opened. Raises BadSample."""
        return text_of(self._read(index)[1])

    def _read(self, index: int) -> tuple[object, tuple[Turn, ...], str]:
        if not 0 <= index < len(self):
            raise IndexError(f"no sample {index} of {len(self)}")
        start, size = self._index.starts[index], self._index.sizes[index]
        key = f"{self._name[0]}{self._index.numbers[index]}{self._name[1]}"
        if size > MAX_ENTRY:
            raise BadSample("entry too large", key)
        data = self._file.read(start, size)
        if len(data) < size:
            raise DataError(f"{key}: shorter than when it was opened: leave it alone in a run")
        try:
            return *self._extract(parse_entry(data, key, ""), key), key
        except BadEntryError as error:
            raise BadSample(error.reason, key) from error


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


def parse_entry(data: bytes, where: str, example: str) -> dict[str, Any]:
    """A JSON object in UTF-8. Raises BadEntryError that names `where` and shows the `example`."""
    return an_object(parse_json(data, where, example), where, example)


def an_object(entry: Any, where: str, example: str) -> dict[str, Any]:
    """The entry. Raises BadEntryError where it is none, or where a field stands in it twice."""
    if isinstance(entry, dict):
        return entry
    if isinstance(entry, FieldTwiceError):
        raise BadEntryError(f"{where}: {entry}: expected {example}", "entry has a field twice")
    raise BadEntryError(
        f"{where}: {type(entry).__name__} instead of an object: write {example}",
        "entry is not an object",
    )


def parse_json(data: bytes, where: str, example: str, *, lenient: bool = False) -> Any:
    """JSON in UTF-8. Raises BadEntryError that names `where` and shows the `example`.

    lenient: for a file of many entries. Bytes that are no UTF-8 become lone surrogates, U+DC80 to
    U+DCFF, and an object with a field twice a FieldTwiceError in its place.
    """
    try:
        text = data.decode("utf-8-sig", "surrogateescape" if lenient else "strict")
        return json.loads(text, object_pairs_hook=_marked if lenient else unique_fields)
    except UnicodeDecodeError as error:
        raise not_utf8(where, f" ({error})") from error
    except FieldTwiceError as error:
        return an_object(error, where, example)
    except (ValueError, RecursionError) as error:
        text = f"{where}: not JSON ({error}): expected {example}"
        raise BadEntryError(text, "entry is not JSON") from error


def not_utf8(where: str, how: str = "") -> BadEntryError:
    """What to raise for an entry in another encoding."""
    return BadEntryError(f"{where}: not UTF-8{how}: save the file as UTF-8", "entry is not UTF-8")


class FieldTwiceError(ValueError):
    """A field stands twice in one object. Readers differ in which of them wins."""


def unique_fields(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """An object's fields. Raises FieldTwiceError."""
    fields = dict(pairs)
    if len(fields) < len(pairs):
        seen = [name for name, _ in pairs]
        twice = next(name for name in seen if seen.count(name) > 1)
        raise FieldTwiceError(f"field {twice[:40]!r} stands twice")
    return fields


def _marked(pairs: list[tuple[str, Any]]) -> dict[str, Any] | FieldTwiceError:
    try:
        return unique_fields(pairs)
    except FieldTwiceError as error:
        return error.with_traceback(None)
