"""From what pydantic found wrong to one line that a user can act on."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel, ValidationError

from mir.errors import ConfigError
from sweeps.document import Document, FieldPath
from sweeps.fields import known_fields

_SHOULD = ": it should be "
_WORDS = (
    ("Input should be", "it should be"),
    ("String should", "it should"),
    ("a valid tuple", "a list"),
    ("a valid dictionary", "a mapping of fields"),
)


@dataclass(frozen=True)
class Mistake:
    """What is wrong with the value at `path`, with the remedy; one line."""

    path: FieldPath
    text: str


def refusal(document: Document, mistakes: Sequence[Mistake]) -> ConfigError:
    """One line: the first mistake that stands in the file, and how many more there are."""
    # A missing field has no line of its own, and often is one that stands there misspelt.
    first = min(mistakes, key=lambda m: (m.path not in document.lines, document.line(m.path) or 0))
    more = len(mistakes) - 1
    tail = f" (and {more} more mistake{'s' if more > 1 else ''})" if more else ""
    return ConfigError(f"{document.place(first.path)}: {first.text}{tail}")


def no_such(kind: str, name: str, known: Iterable[str]) -> str:
    """'no such field. Did you mean 'x'? Known: a, b.'"""
    names = sorted(known)
    close = difflib.get_close_matches(name, names, n=1)
    hint = f" Did you mean '{close[0]}'?" if close else ""
    return f"no such {kind}.{hint} Known: {', '.join(names) or 'none'}."


def show(value: object) -> str:
    """A value as the user wrote it, shortened."""
    text = str(value).lower() if isinstance(value, bool) else " ".join(repr(value).split())
    text = "null" if value is None else text
    return text if len(text) <= 60 else text[:57] + "..."


def from_pydantic(
    error: ValidationError, model: type[BaseModel], data: Any, prefix: FieldPath = ()
) -> list[Mistake]:
    """One Mistake a field, in pydantic's order; `prefix` is where `data` stands in the file."""
    found: dict[FieldPath, list[str]] = {}
    for item in error.errors(include_url=False):
        path = _clean(item["loc"], data, item["type"])
        text = _text(dict(item), path, model)
        texts = found.setdefault(prefix + path, [])
        if text not in texts:
            texts.append(text)
    return [Mistake(path, _either(texts)) for path, texts in found.items()]


def _either(texts: Sequence[str]) -> str:
    """What the arms of a union found wrong, in one sentence where they begin alike."""
    start, mark, _ = texts[0].partition(_SHOULD)
    if mark and all(text.startswith(start + mark) for text in texts):
        return start + mark + " or ".join(t.removeprefix(start + mark)[:-1] for t in texts) + "."
    return " Or: ".join(texts)


def _clean(loc: FieldPath, data: Any, kind: str) -> FieldPath:
    """Drop pydantic's union tags, which name types and not fields of the file."""
    kept: list[str | int] = []
    for position, part in enumerate(loc):
        last = position == len(loc) - 1
        if _holds(data, part):
            kept, data = [*kept, part], data[part]
        elif last and kind == "missing":
            kept.append(part)
    return tuple(kept)


def _holds(data: Any, part: str | int) -> bool:
    if isinstance(data, list | tuple):
        return isinstance(part, int) and part < len(data)
    return isinstance(data, dict) and part in data


def _text(item: dict[str, Any], path: FieldPath, model: type[BaseModel]) -> str:
    if item["type"] == "extra_forbidden":
        return no_such("field", str(path[-1]), known_fields(model, path[:-1]))
    if item["type"] == "missing":
        return "is missing. Add it."
    message = item["msg"]
    if item["type"] in ("value_error", "assertion_error"):
        return _sentence(message.removeprefix("Value error, "))
    if item["type"] == "literal_error" and isinstance(item["input"], str):
        known = re.findall(r"'([^']*)'", item["ctx"]["expected"])
        close = difflib.get_close_matches(item["input"], known, n=1)
        hint = f" Did you mean '{close[0]}'?" if close else ""
        return f"{show(item['input'])} is refused.{hint} Known: {', '.join(known)}."
    for theirs, ours in _WORDS:
        message = message.replace(theirs, ours)
    message = re.sub(r" or instance of \w+", "", message)
    return _sentence(f"{show(item['input'])} is refused: {message}")


def _sentence(text: str) -> str:
    return text if text.endswith((".", "?")) else text + "."
