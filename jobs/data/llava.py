"""LLaVA's JSON list with an image folder.

The caption is the first answer of the conversation; or, with turns 'all', every question is read
and every answer learnt. Conversations of text alone, which LLaVA's mixes for fine-tuning have, are
no samples: entries without the field `image` are left out and counted.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, BinaryIO

from jobs.data import listing
from jobs.data.errors import BadSample
from jobs.data.listing import (
    MAX_CAPTION,
    BadEntryError,
    Extract,
    Index,
    ListingSource,
    check_caption,
    parse_entry,
)  # fmt: skip
from jobs.data.prompt import check_prompt
from jobs.data.sample import Source, Turn, text_of
from jobs.data.store import OpenFile, folder_of, name_of, open_folder, open_listing
from jobs.spec import SourceSpec
from mir.errors import ConfigError, DataError

_CHUNK = 1 << 20  # bytes
_SPACE = re.compile(r"[ \t\r\n]*")
_BOM = b"\xef\xbb\xbf"
PROMPT = "USER: {question} ASSISTANT:"
_EXAMPLE = '{"image": ..., "conversations": [...]}'


def open_llava(spec: SourceSpec, field: str) -> Source:
    """Walk through the list once. Entries that cannot be used stay in, as bad samples.

    Raises ConfigError, and DataError where the file is no JSON list or none of it is usable, be it
    for want of pictures.
    """
    assert spec.path is not None
    extract: Extract = _first_answer
    if spec.turns == "all":
        extract = partial(_conversation, check_prompt(spec.prompt or PROMPT, field))
    elif spec.prompt is not None:
        raise ConfigError(
            f"{field}.prompt: {spec.prompt!r} is not read with turns 'first-answer': remove it, or "
            "set turns: all"
        )
    with open_listing(spec.path, f"{field}.path") as handle:
        index = _Scanner(handle, spec.path).index()
        file = OpenFile(handle)
    images = open_folder(spec.images or folder_of(spec.path), f"{field}.images")
    return ListingSource(file, index, extract, images, (name_of(spec.path) + "[", "]"))


def _first_answer(entry: dict[str, Any], key: str) -> tuple[object, tuple[Turn, ...]]:
    answers = (value for who, value in _said(entry) if who == "gpt")
    return entry.get("image"), (("", check_caption(next(answers, None), key)),)


def _conversation(prompt: str, entry: dict[str, Any], key: str) -> tuple[object, tuple[Turn, ...]]:
    """All answers, each after the question before it; the picture's own place is at the front."""
    turns: list[Turn] = []
    question = ""
    for who, value in _said(entry):
        if who == "human":
            if not isinstance(value, str):
                raise BadSample("question is not a string", key)
            question = value.replace("<image>", "").strip()
        elif who == "gpt":
            answer = check_caption(value, key)
            if question:
                asked = prompt.replace("{question}", check_caption(question, key))
                turns.append((asked, f" {answer}"))
            else:
                turns.append(("", answer))
            question = ""
    if not turns:
        raise BadSample("no answer", key)
    if len(text_of(turns)) > MAX_CAPTION:
        raise BadSample("caption too long", key)
    return entry.get("image"), tuple(turns)


def _said(entry: dict[str, Any]) -> Iterator[tuple[object, object]]:
    """Who said what."""
    turns = entry.get("conversations")
    for turn in turns if isinstance(turns, list) else []:
        if isinstance(turn, dict):
            yield turn.get("from"), turn.get("value")


def _passes(check: Callable[[], object]) -> bool:
    try:
        check()
    except BadEntryError:
        return False
    return True


class _Scanner:
    """Finds where each entry of a long list begins and ends, holding one stretch of it at a time.

    Python's own parser finds the ends. It is given the bytes as Latin-1, in which places are those
    in the file, and is lenient: that an entry is UTF-8 and strict JSON is checked where it is read.
    """

    def __init__(self, handle: BinaryIO, path: str) -> None:
        self._handle, self._path = handle, path
        self._decode = json.JSONDecoder(strict=False, parse_int=lambda _: 0).raw_decode
        self._base = 0  # where the text begins in the file
        self._text = ""
        self._at = 0  # in the text
        self._ended = False

    def index(self) -> Index:
        """Places of all entries that have a picture, or are broken."""
        found = Index()
        self._read(_CHUNK)
        if self._text.startswith(_BOM.decode("latin-1")):
            self._at = len(_BOM)
        if self._peek() != "[":
            raise self._no_list()
        self._at += 1
        if self._peek() == "]":
            self._at += 1
        else:
            while self._entry(found):
                pass
        if self._peek() != "":
            raise DataError(f"{self._path}: not JSON (more follows after the list's end)")
        if found.without_picture and not found.starts:
            raise DataError(
                f"{self._path}: none of its {found.without_picture} entries has the field 'image': "
                f"write {_EXAMPLE}"
            )
        return found.checked()

    def _entry(self, found: Index) -> bool:
        """Note the next entry; whether another follows it."""
        number = len(found.starts) + found.without_picture
        where = f"{self._path}: entry {number}"
        self._peek()
        value, size = self._value(where)

        def check() -> None:
            data = self._text[self._at : self._at + size].encode("latin-1")
            parse_entry(data, where, _EXAMPLE)

        if isinstance(value, dict) and "image" not in value and _passes(check):
            found.without_picture += 1
        else:
            found.add(self._base + self._at, size, number, check)
        self._at += size
        follows = self._peek()
        if follows not in (",", "]") or follows == "":
            raise DataError(f"{where}: not JSON (neither ',' nor ']' after it)")
        self._at += 1
        return follows == ","

    def _value(self, where: str) -> tuple[Any, int]:
        """The value that begins here and its size in bytes; reads on until it is whole."""
        while True:
            try:
                value, end = self._decode(self._text, self._at)
            except RecursionError as error:
                raise DataError(f"{where}: not JSON (nested too deeply)") from error
            except ValueError as error:
                held = len(self._text) - self._at
                if self._ended or held > listing.MAX_ENTRY:
                    raise DataError(f"{where}: not JSON ({error})") from error
                self._read(max(_CHUNK, held))
                continue
            # A number may go on in the next stretch.
            if end < len(self._text) or self._ended:
                return value, end - self._at
            self._read(_CHUNK)

    def _peek(self) -> str:
        """Pass over space; the character that follows, '' at the file's end."""
        while True:
            found = _SPACE.match(self._text, self._at)
            assert found is not None
            self._at = found.end()
            if self._at < len(self._text) or self._ended:
                return self._text[self._at : self._at + 1]
            self._read(_CHUNK)

    def _read(self, size: int) -> None:
        """Forget what was passed, read on."""
        more = self._handle.read(size)
        self._ended = len(more) < size
        self._base += self._at
        self._text = self._text[self._at :] + more.decode("latin-1")
        self._at = 0

    def _no_list(self) -> DataError:
        try:
            found = type(self._value(self._path)[0]).__name__
        except DataError as error:
            return error
        return DataError(
            f"{self._path}: {found} instead of a list: "
            "kind 'llava' reads LLaVA's JSON list; for one object a line use kind 'jsonl'"
        )
