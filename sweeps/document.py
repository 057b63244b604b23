"""Read one YAML file as plain values, with the line of every field for error messages.

Scalars follow YAML 1.2 where 1.1 surprises people: only true and false are booleans (so a branch
may be called `on` or `off`), `1e-3` is a number, keys are always text. Duplicate keys are refused:
PyYAML would silently keep the last one.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from mir.errors import ConfigError

FieldPath = tuple[str | int, ...]
MAX_BYTES = 1_000_000
MAX_NODES = 100_000
_STR = "tag:yaml.org,2002:str"
_MERGE = "tag:yaml.org,2002:merge"


@dataclass(frozen=True)
class Document:
    """A file's values. name: as the user gave it; lines: 1-based line of each field."""

    name: str
    folder: Path
    data: dict[str, Any]
    lines: dict[FieldPath, int]

    def line(self, path: FieldPath) -> int | None:
        """Line of the field, or of its nearest ancestor that stands in the file."""
        for end in range(len(path), 0, -1):
            if path[:end] in self.lines:
                return self.lines[path[:end]]
        return None

    def place(self, path: FieldPath) -> str:
        """'file:line: dotted.field' for an error message."""
        line = self.line(path)
        where = self.name if line is None else f"{self.name}:{line}"
        return f"{where}: {dotted(path)}" if path else where


def dotted(path: FieldPath) -> str:
    """'space.optim.learning_rate'."""
    return ".".join(str(part) for part in path)


class _Loader(yaml.SafeLoader):
    """SafeLoader (no objects from tags) with YAML 1.2 scalars."""

    yaml_implicit_resolvers: dict[str, list[tuple[str, re.Pattern[str]]]] = {}  # noqa: RUF012


for _tag, _pattern, _first in (
    ("bool", r"^(?:true|True|TRUE|false|False|FALSE)$", "tTfF"),
    ("null", r"^(?:~|null|Null|NULL|)$", ["~", "n", "N", ""]),
    ("int", r"^[-+]?(?:0|[1-9][0-9_]*)$", "-+0123456789"),
    (
        "float",
        r"^(?:[-+]?(?:[0-9][0-9_]*(?:\.[0-9_]*)?|\.[0-9]+)(?:[eE][-+]?[0-9]+)?"
        r"|[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN))$",
        "-+.0123456789",
    ),
    ("merge", r"^<<$", "<"),
):
    _Loader.add_implicit_resolver(f"tag:yaml.org,2002:{_tag}", re.compile(_pattern), list(_first))


def read_document(path: str | Path) -> Document:
    """Read a YAML mapping. Raises ConfigError with file, line and remedy if it cannot be read."""
    name, file = str(path), Path(path)
    text = _read_text(name, file)
    try:
        loader = _Loader(text)
        try:
            node = loader.get_single_node()
            lines: dict[FieldPath, int] = {}
            if node is not None:
                _count(name, node, {}, [])
                _index(name, node, (), lines)
            data = loader.construct_document(node) if node is not None else None
        finally:
            loader.dispose()
    except yaml.MarkedYAMLError as error:
        raise ConfigError(_yaml_message(name, error)) from error
    except yaml.YAMLError as error:
        raise ConfigError(f"{name}: not readable as YAML: {_one_line(error)}") from error
    except RecursionError as error:
        raise ConfigError(f"{name}: nested too deeply to be a recipe. Flatten it.") from error
    if not isinstance(data, dict):
        found = "nothing" if data is None else f"a {type(data).__name__}"
        raise ConfigError(f"{name}: holds {found}, expected fields such as 'name: my-sweep'.")
    return Document(name=name, folder=file.resolve().parent, data=data, lines=lines)


def _read_text(name: str, file: Path) -> str:
    try:
        if file.is_dir():
            raise ConfigError(f"{name}: is a folder. Give the path of a YAML file in it.")
        if file.stat().st_size > MAX_BYTES:
            raise ConfigError(f"{name}: larger than {MAX_BYTES:,} bytes, so no recipe.")
        return file.read_text(encoding="utf-8")
    except FileNotFoundError as error:
        raise ConfigError(f"{name}: no such file. Check the path.") from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"{name}: not UTF-8 text. Save it as UTF-8 YAML.") from error
    except OSError as error:
        raise ConfigError(f"{name}: cannot be read: {error.strerror}. Mend that.") from error


def _yaml_message(name: str, error: yaml.MarkedYAMLError) -> str:
    mark = error.problem_mark
    where = name if mark is None else f"{name}:{mark.line + 1}"
    return f"{where}: not readable as YAML: {_one_line(error.problem or error)}. Mend that line."


def _one_line(error: object) -> str:
    return " ".join(str(error).split())


def _count(name: str, node: yaml.Node, known: dict[int, int], above: list[int]) -> int:
    """Number of values once aliases are written out: few bytes can stand for billions of them."""
    if id(node) in above:
        raise ConfigError(f"{name}:{node.start_mark.line + 1}: an alias contains itself.")
    if id(node) not in known:
        children: list[yaml.Node] = []
        if isinstance(node, yaml.MappingNode):
            children = [child for pair in node.value for child in pair]
        elif isinstance(node, yaml.SequenceNode):
            children = list(node.value)
        deeper = [*above, id(node)]
        known[id(node)] = 1 + sum(_count(name, child, known, deeper) for child in children)
    if known[id(node)] > MAX_NODES:
        raise ConfigError(f"{name}: more than {MAX_NODES:,} values once aliases are written out.")
    return known[id(node)]


def _index(name: str, node: yaml.Node, path: FieldPath, lines: dict[FieldPath, int]) -> None:
    """Note every field's line, make keys text, refuse duplicates."""
    if isinstance(node, yaml.SequenceNode):
        for position, child in enumerate(node.value):
            lines[(*path, position)] = child.start_mark.line + 1
            _index(name, child, (*path, position), lines)
    if not isinstance(node, yaml.MappingNode):
        return
    for key, child in node.value:
        line = key.start_mark.line + 1
        if not isinstance(key, yaml.ScalarNode):
            raise ConfigError(f"{name}:{line}: {dotted(path)}: a field's name must be plain text.")
        if key.tag == _MERGE:
            continue
        key.tag = _STR
        here = (*path, key.value)
        if here in lines:
            raise ConfigError(
                f"{name}:{line}: {dotted(here)}: given twice, first in line {lines[here]}. "
                "Remove one."
            )
        lines[here] = line
        _index(name, child, here, lines)
