"""JSON lines: one object a line, {"image": "a.png", "caption": "A dog."}."""

from __future__ import annotations

from functools import partial
from typing import Any, BinaryIO

from jobs.data import listing
from jobs.data.listing import BadEntryError, Index, ListingSource, check_caption, parse_entry
from jobs.data.sample import Source, Turn
from jobs.data.store import OpenFile, folder_of, name_of, open_folder, open_listing
from jobs.spec import SourceSpec

_CHUNK = 1 << 20  # bytes


def open_json_lines(spec: SourceSpec, field: str) -> Source:
    """Find every line. Raises ConfigError, and DataError where not one of them is usable."""
    assert spec.path is not None
    image, caption = spec.image_field or "image", spec.caption_field or "caption"
    with open_listing(spec.path, f"{field}.path") as handle:
        index = _index(handle, spec.path, (image, caption))
        file = OpenFile(handle)
    images = open_folder(spec.images or folder_of(spec.path), f"{field}.images")

    def extract(entry: dict[str, Any], key: str) -> tuple[object, tuple[Turn, ...]]:
        return entry.get(image), (("", check_caption(entry.get(caption), key)),)

    return ListingSource(file, index, extract, images, (name_of(spec.path) + ":", ""))


def _index(handle: BinaryIO, path: str, needed: tuple[str, str]) -> Index:
    """Places of all lines that are not empty."""
    index = Index()
    start, number = 0, 0
    while line := handle.readline(listing.MAX_ENTRY + 1):
        number += 1
        if line.strip():
            index.add(start, len(line), number, partial(_check, line, f"{path}:{number}", needed))
        start += len(line)
        if len(line) > listing.MAX_ENTRY and not line.endswith(b"\n"):
            start += _pass_line(handle)
    return index.checked()


def _pass_line(handle: BinaryIO) -> int:
    """Go to the end of a line that is too long to be held; how many bytes that is."""
    passed = 0
    while part := handle.readline(_CHUNK):
        passed += len(part)
        if part.endswith(b"\n"):
            break
    return passed


def _check(line: bytes, where: str, needed: tuple[str, str]) -> None:
    example = f'{{"{needed[0]}": "a.png", "{needed[1]}": "A dog."}} a line'
    if len(line) > listing.MAX_ENTRY:
        size = f"{listing.MAX_ENTRY >> 20} MiB"
        raise BadEntryError(
            f"{where}: a line of more than {size}: write {example}", "entry too large"
        )
    entry = parse_entry(line, where, example)
    missing = [name for name in needed if name not in entry]
    if missing:
        found = [name[:40] for name in sorted(entry)[:8]]
        raise BadEntryError(
            f"{where}: no field {missing[0]!r} (found: {found}): "
            f"every line needs {needed[0]!r} and {needed[1]!r}; other names can be given as "
            "image_field and caption_field",
            "field missing",
        )
