"""JSON lines: one object a line, {"image": "a.png", "caption": "A dog."}."""

from __future__ import annotations

from typing import Any, BinaryIO

from jobs.data import listing
from jobs.data.listing import Index, ListingSource, parse_entry
from jobs.data.sample import Source
from jobs.data.store import OpenFile, folder_of, name_of, open_folder, open_listing
from jobs.spec import SourceSpec
from mir.errors import DataError


def open_json_lines(spec: SourceSpec, field: str) -> Source:
    """Read and check every line once. Raises ConfigError, and DataError with file and line."""
    assert spec.path is not None
    image, caption = spec.image_field or "image", spec.caption_field or "caption"
    with open_listing(spec.path, f"{field}.path") as handle:
        index = _index(handle, spec.path, (image, caption))
        file = OpenFile(handle)
    images = open_folder(spec.images or folder_of(spec.path), f"{field}.images")

    def extract(entry: dict[str, Any]) -> tuple[object, object]:
        return entry.get(image), entry.get(caption)

    return ListingSource(file, index, extract, images, (name_of(spec.path) + ":", ""))


def _index(handle: BinaryIO, path: str, needed: tuple[str, str]) -> Index:
    """Places of all lines that are not empty."""
    index = Index()
    start, number = 0, 0
    example = f'{{"{needed[0]}": "a.png", "{needed[1]}": "A dog."}}'
    while line := handle.readline(listing.MAX_ENTRY + 1):
        number += 1
        where = f"{path}:{number}"
        if len(line) > listing.MAX_ENTRY:
            raise DataError(
                f"{where}: a line of more than {listing.MAX_ENTRY >> 20} MiB: "
                "write one JSON object a line"
            )
        if line.strip():
            _check(parse_entry(line, where, example), where, needed, example)
            index.add(start, len(line), number)
        start += len(line)
    return index


def _check(entry: Any, where: str, needed: tuple[str, str], example: str) -> None:
    if not isinstance(entry, dict):
        raise DataError(
            f"{where}: {type(entry).__name__} instead of an object: write one {example} a line"
        )
    missing = [name for name in needed if name not in entry]
    if missing:
        found = [name[:40] for name in sorted(entry)[:8]]
        raise DataError(
            f"{where}: no field {missing[0]!r} (found: {found}): "
            f"every line needs {needed[0]!r} and {needed[1]!r}; other names can be given as "
            "image_field and caption_field"
        )
