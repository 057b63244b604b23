"""Captioned pictures listed in a file: JSON lines, or the JSON list of LLaVA.

The file is read and checked once, when it is opened; pictures are opened one by one when asked.
What is wrong with the file itself is a DataError with its line; what is wrong with one sample is
a BadSample, which the loader skips and counts.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

from jobs.data.errors import BadSample
from jobs.data.images import open_image, resolve_inside
from jobs.data.sample import Sample
from mir.errors import DataError

MAX_CAPTION = 20_000  # characters
MAX_LINE = 64 << 20  # bytes
Record = tuple[object, object, str]  # image, caption, key


class FileSource:
    """Records of a listing file; a picture's path is relative to the image folder."""

    def __init__(self, records: list[Record], images: Path) -> None:
        self._records = records
        self._images = images.resolve()

    def __len__(self) -> int:
        return len(self._records)

    def __getitem__(self, index: int) -> Sample:
        """Raises BadSample for a picture or caption that cannot be used."""
        name, caption, key = self._records[index]
        text = check_caption(caption, key)
        if not isinstance(name, str) or not name:
            raise BadSample("no image path", key)
        image = open_image(resolve_inside(self._images, name, key), key)
        return Sample(image=image, caption=text, key=key)


def check_caption(caption: object, key: str) -> str:
    """The caption without surrounding space; BadSample where it is no usable text."""
    if not isinstance(caption, str):
        raise BadSample("caption is not a string", key)
    if len(caption) > MAX_CAPTION:
        raise BadSample("caption too long", key)
    text = caption.strip()
    if not text:
        raise BadSample("caption empty", key)
    if any("\ud800" <= character <= "\udfff" for character in text):
        raise BadSample("caption is not valid text", key)
    return text


def read_json_lines(path: Path) -> list[Record]:
    """Records of a file with one object a line: {"image": "a.png", "caption": "A dog."}.

    Empty lines are passed over. Raises DataError with file and line for anything else.
    """
    records: list[Record] = []
    for number, line in _lines(path):
        where = f"{path}:{number}"
        entry = _parse(line, where, '{"image": "a.png", "caption": "A dog."}')
        if not isinstance(entry, dict):
            raise DataError(
                f"{where}: {type(entry).__name__} instead of an object: "
                'write one {"image": "a.png", "caption": "A dog."} a line'
            )
        missing = [field for field in ("image", "caption") if field not in entry]
        if missing:
            raise DataError(
                f"{where}: no field {missing[0]!r} (found: {sorted(entry)[:8]}): "
                "every line needs 'image' and 'caption'"
            )
        records.append((entry["image"], _shortened(entry["caption"]), f"{path.name}:{number}"))
    return records


def read_llava(path: Path) -> list[Record]:
    """Records of LLaVA's JSON list; the caption is the first answer of the conversation.

    Entries without picture or answer stay in, as bad samples. Raises DataError where the file is
    no JSON list of objects.
    """
    entries = _parse(path.read_bytes(), str(path), "the JSON list of LLaVA")
    if not isinstance(entries, list):
        raise DataError(
            f"{path}: {type(entries).__name__} instead of a list: "
            "kind 'llava' reads LLaVA's JSON list; for one object a line use kind 'jsonl'"
        )
    records: list[Record] = []
    for number, entry in enumerate(entries):
        if not isinstance(entry, dict):
            raise DataError(
                f"{path}: entry {number} is {type(entry).__name__} instead of an object: "
                'write {"image": ..., "conversations": [...]}'
            )
        answer = _shortened(_first_answer(entry.get("conversations")))
        records.append((entry.get("image"), answer, f"{path.name}[{number}]"))
    return records


def _first_answer(turns: object) -> object:
    if not isinstance(turns, list):
        return None
    answers = (t.get("value") for t in turns if isinstance(t, dict) and t.get("from") == "gpt")
    return next(answers, None)


def _shortened(caption: object) -> object:
    """Keep a monstrous caption recognisable without keeping it in memory."""
    if isinstance(caption, str):
        return caption[: MAX_CAPTION + 1]
    return caption if caption is None else type(caption)


def _lines(path: Path) -> Iterator[tuple[int, bytes]]:
    with path.open("rb") as handle:
        for number, line in enumerate(_bounded(handle, path), start=1):
            if line.strip():
                yield number, line


def _bounded(handle: BinaryIO, path: Path) -> Iterator[bytes]:
    number = 0
    while line := handle.readline(MAX_LINE + 1):
        number += 1
        if len(line) > MAX_LINE:
            raise DataError(
                f"{path}:{number}: a line of more than {MAX_LINE >> 20} MiB: "
                "write one JSON object a line"
            )
        yield line


def _parse(data: bytes, where: str, expected: str) -> Any:
    try:
        return json.loads(data.decode("utf-8-sig"))
    except UnicodeDecodeError as error:
        raise DataError(f"{where}: not UTF-8 ({error}): save the file as UTF-8") from error
    except (ValueError, RecursionError) as error:
        raise DataError(f"{where}: not JSON ({error}): expected {expected}") from error
