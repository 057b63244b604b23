"""From a spec to an open source of samples, or to the texts of MIR's text side."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path

from jobs.data.sample import Source
from jobs.spec import SourceSpec, TextsSpec
from mir.errors import ConfigError, DataError

Opener = Callable[[SourceSpec, str], Source]


@dataclass(frozen=True)
class Kind:
    """One kind of source. opener: 'module:function', loaded when asked for; reads: its fields,
    beside `size`, which all kinds have."""

    opener: str
    reads: tuple[str, ...]


_TABLE = ("path", "images", "image_field", "caption_field")
KINDS: dict[str, Kind] = {
    "scenes": Kind("jobs.world.source:open_scenes", ("style", "split")),
    "jsonl": Kind("jobs.data.json_lines:open_json_lines", _TABLE),
    "llava": Kind("jobs.data.llava:open_llava", ("path", "images", "turns", "prompt")),
    "webdataset": Kind("jobs.data.webdataset:open_webdataset", ("path", "caption_field")),
    "parquet": Kind("jobs.data.tables:open_parquet", _TABLE),
    "datasets": Kind("jobs.data.tables:open_saved", (*_TABLE, "split")),
    "questions": Kind("jobs.world.asked:open_questions", ("split", "prompt")),
    "vqa": Kind("jobs.data.vqa:open_vqa", ("path", "images", "answers", "image_name", "prompt")),
}


def open_source(spec: SourceSpec, field: str = "data.sources") -> Source:
    """Open a source; `field` says in messages which part of the recipe it came from.

    Raises ConfigError for missing or misplaced settings and a size that is not so, DataError for a
    file that cannot be used or holds no sample.
    """
    kind = KINDS[spec.kind]
    _refuse_misplaced(spec, kind, field)
    if "path" in kind.reads and not spec.path:
        raise ConfigError(f"{field}.path: missing: kind {spec.kind!r} needs the path of its data")
    module, _, function = kind.opener.partition(":")
    opener: Opener = getattr(import_module(module), function)
    source = opener(spec, field)
    if len(source) == 0:
        raise DataError(f"{field}: {spec.path or spec.kind} holds no samples: give it at least one")
    if spec.size not in (None, len(source)):
        raise ConfigError(
            f"{field}.size: {spec.size} is declared, but {spec.path} holds {len(source)} samples: "
            f"set it to {len(source)}, or check the path"
        )
    return source


def _refuse_misplaced(spec: SourceSpec, kind: Kind, field: str) -> None:
    for name, info in SourceSpec.model_fields.items():
        value = getattr(spec, name)
        if name in ("kind", "size", *kind.reads) or value == info.default:
            continue
        readers = [other for other, its in KINDS.items() if name in its.reads]
        place = f"{field}.{name}: {value!r}"
        if len(readers) < 3:
            few = " and ".join(repr(reader) for reader in readers)
            raise ConfigError(f"{place} is read only by kind {few}: remove it")
        raise ConfigError(
            f"{place} is not read by kind {spec.kind!r}: "
            f"remove it, or use a kind that does: {', '.join(readers)}"
        )


def open_texts(spec: TextsSpec) -> list[str]:
    """The unrelated texts, in a fixed order: lines of a file, or files of a folder by name.

    Raises ConfigError where there is no such file or folder, DataError where it holds no text.
    """
    if spec.source == "embedded":
        from jobs.world.texts import embedded_texts

        return list(embedded_texts())
    path = Path(spec.source).expanduser()
    if not path.exists():
        raise ConfigError(
            f"score.texts.source: {spec.source!r} does not exist: name a text file (one text a "
            "line), a folder of .txt files, or 'embedded'"
        )
    files = sorted(path.glob("*.txt")) if path.is_dir() else [path]
    texts = [_read_text(file) for file in files]
    lines = texts if path.is_dir() else [line for text in texts for line in text.splitlines()]
    found = [line.strip() for line in lines if line.strip()]
    if not found:
        raise DataError(f"score.texts.source: {spec.source!r} holds no text: add some")
    return found


def _read_text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: not UTF-8 ({error}): save the file as UTF-8") from error
