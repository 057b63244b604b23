"""WebDataset: tar files in which consecutive members of one name are one sample.

Each tar is walked once, when it is opened: 25 bytes a sample are kept, nothing is unpacked.
"""

from __future__ import annotations

import tarfile
from array import array
from bisect import bisect_right
from collections.abc import Iterator
from itertools import groupby
from typing import Any, BinaryIO

from jobs.data.errors import BadSample
from jobs.data.images import MAX_FILE, decode_image
from jobs.data.listing import MAX_CAPTION, check_caption, parse_json
from jobs.data.sample import Sample, Source
from jobs.data.store import find_files, name_of, read_range
from jobs.spec import SourceSpec
from mir.errors import DataError

PICTURES = frozenset({"jpg", "jpeg", "png", "webp", "gif", "bmp", "tif", "tiff", "ppm"})
TEXTS = frozenset({"txt", "caption", "text"})
_MAX_HEADER = 1 << 20  # bytes; a header that claims more is no tar's
_MAX_TEXT = 4 * MAX_CAPTION  # bytes
_Member = tuple[str, str, int, int]  # name up to the first dot, the rest, offset, size


def open_webdataset(spec: SourceSpec, field: str) -> Source:
    """Index every tar. Raises ConfigError, and DataError for what is no uncompressed tar."""
    assert spec.path is not None
    system, files = find_files(spec.path, ".tar", f"{field}.path")
    source = TarSource(system, spec.caption_field or "caption")
    for file in files:
        source.add(file)
    return source


class TarSource:
    """Samples of several tars, in order."""

    def __init__(self, system: Any, caption_field: str) -> None:
        """caption_field: where a sample's JSON member has its caption."""
        self._system, self._field = system, caption_field
        self._files: list[str] = []
        self._firsts: list[int] = []  # of each file
        self._pictures, self._texts = array("Q"), array("Q")  # offsets, 0 where there is none
        self._picture_sizes, self._text_sizes = array("Q"), array("Q")
        self._parsed = array("B")  # 1 where the caption is in a JSON member

    def __len__(self) -> int:
        return len(self._pictures)

    def add(self, path: str) -> None:
        """Index one more tar."""
        self._files.append(path)
        self._firsts.append(len(self))
        with self._system.open(path, "rb") as handle:
            for _, members in groupby(_members(handle, path), key=lambda member: member[0]):
                self._add(list(members))

    def __getitem__(self, index: int) -> Sample:
        """Raises BadSample for a picture or caption that cannot be used."""
        path, key = self._place(index)
        text = self._caption(index, path, key)
        if not self._pictures[index]:
            raise BadSample("no picture in the tar", key)
        if self._picture_sizes[index] > MAX_FILE:
            raise BadSample("image file too large", key)
        data = self._read(path, self._pictures[index], self._picture_sizes[index])
        return Sample(image=decode_image(data, key), caption=text, key=key)

    def caption(self, index: int) -> str:
        """The caption alone. Raises BadSample."""
        return self._caption(index, *self._place(index))

    def _add(self, members: list[_Member]) -> None:
        """One sample; members that are neither picture nor caption are left alone."""
        found: dict[str, _Member] = {}
        for member in members:
            kind = member[1]
            role = "picture" if kind in PICTURES else "text" if kind in TEXTS else kind
            found.setdefault(role, member)
        if "picture" not in found and "text" not in found:
            return
        picture = found.get("picture")
        text = found.get("text") or found.get("json")
        self._pictures.append(picture[2] if picture else 0)
        self._picture_sizes.append(picture[3] if picture else 0)
        self._texts.append(text[2] if text else 0)
        self._text_sizes.append(text[3] if text else 0)
        self._parsed.append("text" not in found)

    def _place(self, index: int) -> tuple[str, str]:
        if not 0 <= index < len(self):
            raise IndexError(f"no sample {index} of {len(self)}")
        which = bisect_right(self._firsts, index) - 1
        path = self._files[which]
        return path, f"{name_of(path)}[{index - self._firsts[which]}]"

    def _caption(self, index: int, path: str, key: str) -> str:
        size = self._text_sizes[index]
        if not self._texts[index]:
            raise BadSample("no caption in the tar", key)
        if size > _MAX_TEXT:
            raise BadSample("caption too long", key)
        data = self._read(path, self._texts[index], size)
        if not self._parsed[index]:
            try:
                return check_caption(data.decode("utf-8-sig"), key)
            except UnicodeDecodeError as error:
                raise BadSample("caption is not UTF-8", key) from error
        try:
            entry = parse_json(data, key, "an object")
        except DataError as error:
            raise BadSample("metadata is not JSON", key) from error
        return check_caption(entry.get(self._field) if isinstance(entry, dict) else None, key)

    def _read(self, path: str, start: int, size: int) -> bytes:
        data = read_range(self._system, path, start, size)
        if len(data) < size:
            raise DataError(f"{path}: shorter than when it was opened: leave it alone in a run")
        return data


def _members(handle: BinaryIO, path: str) -> Iterator[_Member]:
    """Regular files in a tar: links, devices and sparse files are passed over."""
    try:
        with tarfile.open(fileobj=_Headers(handle), mode="r:") as tar:  # type: ignore[call-overload]
            while (member := tar.next()) is not None:
                tar.members.clear()  # it would keep them all
                folder, _, base = member.name.rpartition("/")
                stem, _, suffix = base.partition(".")
                if member.isfile() and not member.issparse() and stem and suffix:
                    name = f"{folder}/{stem}"
                    yield name, suffix.lower(), member.offset_data, member.size
    except (tarfile.TarError, OSError, ValueError, OverflowError, EOFError) as error:
        raise DataError(
            f"{path}: no whole uncompressed tar ({' '.join(str(error).split())}): "
            "fetch it again, or unpack and pack it without compression"
        ) from error


class _Headers:
    """A file for reading tar headers, which are small: large reads are a hostile tar's."""

    def __init__(self, handle: BinaryIO) -> None:
        self._handle = handle
        self.tell, self.seek = handle.tell, handle.seek

    def read(self, size: int = -1) -> bytes:
        if not 0 <= size <= _MAX_HEADER:
            raise tarfile.ReadError(f"a header of {size} bytes")
        return self._handle.read(size)
