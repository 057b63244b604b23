"""Questions about pictures with their answers, read from the usual files.

- JSON lines or a JSON list: {"image": "a.png", "question": "...", "answer": "..."}, or `answers`
  with several.
- VQA v2: {"questions": [{"image_id", "question", "question_id"}]}, with the answers in a second
  file {"annotations": [{"question_id", "answers": [{"answer"}]}]}.
- TextVQA: {"data": [{"image_id", "question", "answers": ["..."]}]}.

A sample's caption is the answer that most people gave (the first of them where they tie); all
answers are kept, because every one of them counts as right.
"""

from __future__ import annotations

import json
import re
import string
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any

from jobs.data.errors import BadSample
from jobs.data.listing import (
    BadEntryError,
    an_object,
    check_caption,
    not_utf8,
    parse_entry,
    parse_json,
)  # fmt: skip
from jobs.data.prompt import asked, check_prompt
from jobs.data.sample import Sample, Source
from jobs.data.store import Folder, open_folder, open_listing
from jobs.spec import SourceSpec
from mir.errors import ConfigError, DataError

PROMPT = "Question: {question}\nAnswer:"
IMAGE_NAME = "{image_id}.jpg"
# An entry, or the reason for which it cannot be used.
Entry = dict[str, Any] | str
_NOT_UTF8 = re.compile("[\udc80-\udcff]")
_LISTS = ("questions", "data")
_EXAMPLE = '{"image": "a.png", "question": "What is it?", "answer": "a dog"}'


def open_vqa(spec: SourceSpec, field: str) -> Source:
    """Open a question file. Raises ConfigError for bad settings, DataError for a bad file."""
    assert spec.path is not None
    folder = spec.images or spec.path.rpartition("/")[0] or "."
    return QuestionSource(
        read_questions(spec.path, spec.answers, field),
        spec.path.rpartition("/")[2],
        open_folder(folder, f"{field}.images"),
        check_image_name(spec.image_name or IMAGE_NAME, field),
        check_prompt(spec.prompt or PROMPT, field),
    )


class QuestionSource:
    """Question records of a file; see the module for its forms."""

    def __init__(
        self,
        entries: Sequence[Entry],
        name: str,
        images: Folder,
        image_name: str,
        prompt: str,
    ) -> None:
        self._entries, self._name = entries, name
        self._images, self._image_name = images, image_name
        self._prompt = prompt

    def __len__(self) -> int:
        return len(self._entries)

    def __getitem__(self, index: int) -> Sample:
        """Raises BadSample for a question, answer or picture that cannot be used."""
        entry, key = self._entry(index)
        question = check_caption(entry.get("question"), key)
        answers = tuple(check_caption(answer, key) for answer in _answers(entry))
        if not answers:
            raise BadSample("no answer", key)
        picture = self._images.picture(self._file(entry, key), key)
        return asked(picture, question, answers, key, self._prompt)

    def caption(self, index: int) -> str:
        """Question and answer as they are read; no picture is opened. Raises BadSample."""
        entry, key = self._entry(index)
        question = check_caption(entry.get("question"), key)
        answers = [check_caption(answer, key) for answer in _answers(entry)]
        return " ".join([self._prompt.replace("{question}", question), *answers[:1]])

    def _entry(self, index: int) -> tuple[dict[str, Any], str]:
        entry, key = self._entries[index], f"{self._name}[{index}]"
        if isinstance(entry, str):
            raise BadSample(entry, key)
        return entry, key

    def _file(self, entry: dict[str, Any], key: str) -> str:
        if isinstance(entry.get("image"), str) and entry["image"]:
            return str(entry["image"])
        number = entry.get("image_id")
        if not isinstance(number, int | str) or isinstance(number, bool):
            raise BadSample("no image path", key)
        try:
            return self._image_name.format(image_id=number)
        except ValueError as error:
            raise BadSample("image_id does not fit image_name", key) from error


def check_image_name(pattern: str, field: str) -> str:
    """The pattern as it is; ConfigError unless {image_id} is all that is put into it."""
    try:
        names = {name for _, name, _, _ in string.Formatter().parse(pattern) if name is not None}
    except ValueError as error:
        raise ConfigError(f"{field}.image_name: {pattern!r}: {error}") from error
    if names != {"image_id"}:
        raise ConfigError(
            f"{field}.image_name: {pattern!r} must have {{image_id}} and nothing else in braces, "
            f"e.g. '{IMAGE_NAME}'"
        )
    return pattern


def read_questions(path: str, annotations: str | None, field: str) -> list[Entry]:
    """All entries of a question file, each with its answers.

    Raises DataError, with what is wrong with the first, where not one of them is usable.
    """
    entries: list[Entry] = []
    first_bad: BadEntryError | None = None
    for check in _checks(path, field):
        try:
            entries.append(check())
        except BadEntryError as error:
            first_bad = first_bad or error
            entries.append(error.reason)
    if first_bad is not None and not any(isinstance(entry, dict) for entry in entries):
        raise first_bad
    return entries if annotations is None else _joined(entries, annotations, field)


def _checks(path: str, field: str) -> Iterator[Callable[[], dict[str, Any]]]:
    """For each entry what gives it, or raises BadEntryError."""
    with open_listing(path, f"{field}.path") as handle:
        if path.endswith(".jsonl"):
            for number, line in enumerate(handle, start=1):
                if line.strip():
                    yield partial(parse_entry, line, f"{path}:{number}", _EXAMPLE)
            return
        data = handle.read()
    listed = _listed(parse_json(data, path, _EXAMPLE, lenient=True), path)
    suspect = not _is_utf8(data)
    for number, entry in enumerate(listed):
        yield partial(_check, entry, f"{path}: entry {number}", suspect)


def _is_utf8(data: bytes) -> bool:
    try:
        data.decode()
    except UnicodeDecodeError:
        return False
    return True


def _check(entry: Any, where: str, suspect: bool) -> dict[str, Any]:
    found = an_object(entry, where, _EXAMPLE)
    if suspect and _NOT_UTF8.search(json.dumps(found, ensure_ascii=False, default=str)):
        raise not_utf8(where)
    return found


def _listed(whole: Any, path: str) -> list[Any]:
    if isinstance(whole, list):
        return whole
    found = [whole[name] for name in _LISTS if isinstance(whole, dict) and name in whole]
    if not found or not isinstance(found[0], list):
        raise DataError(
            f"{path}: neither a list of questions nor an object with one under "
            f"{' or '.join(_LISTS)}: write [{_EXAMPLE}]"
        )
    return list(found[0])


def _joined(entries: list[Entry], path: str, field: str) -> list[Entry]:
    """Entries with what is annotated to them; a bad annotation leaves its question without."""
    with open_listing(path, f"{field}.answers") as handle:
        whole = parse_json(handle.read(), path, '{"annotations": [...]}', lenient=True)
    found = whole.get("annotations") if isinstance(whole, dict) else None
    told = [one for one in found if isinstance(one, dict)] if isinstance(found, list) else []
    if found != [] and not told:
        raise DataError(f"{path}: no list of objects under annotations: give VQA's annotations")
    by_question = {str(one["question_id"]): one for one in told if "question_id" in one}
    return [
        e if isinstance(e, str) else {**by_question.get(str(e.get("question_id")), {}), **e}
        for e in entries
    ]


def _answers(entry: dict[str, Any]) -> list[Any]:
    """The answers as they stand; VQA wraps each in an object."""
    given = entry.get("answers", entry.get("answer"))
    several = given if isinstance(given, list) else [] if given is None else [given]
    return [one.get("answer") if isinstance(one, dict) else one for one in several]
